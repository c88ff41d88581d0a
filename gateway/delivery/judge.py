"""What tries say of their receivers, and what is kept of it. It sends nothing, and decides no delivery."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from typing import Any

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError
from gateway.delivery.lane import DISABLED_AFTER, Lane
from gateway.delivery.record import Records
from gateway.delivery.webhook import Outcome, Result
from gateway.store.protocol import Store

MOST_REMEMBERED = 10_000  # hosts that have answered

_log = logging.getLogger("turnout.delivery")


class Judge:
    """`notes` are what is being written down; nobody waits for it but the end."""

    def __init__(self, store: Store, clock: Clock, *, worker: str) -> None:
        self._records = Records(store)
        self._clock = clock
        self._worker = worker
        self._asks = itertools.count()
        self._answered: dict[str, None] = {}  # the last one last
        self.notes: set[asyncio.Task[None]] = set()

    def has_answered(self, host: str) -> bool:
        """Somebody's deliveries there were answered lately, whatever became of them."""
        return host in self._answered

    def judge(self, lane: Lane, outcome: Outcome) -> None:
        """What a try says of its receiver. Anything but a 2xx is a failure, but only silence shuts the lane."""
        now = self._clock.now()
        if outcome.result is Result.UNREACHED:
            lane.failed(self._clock.monotonic())
        else:
            lane.answered()
            self._remember_host(lane.host)
        lane.is_gone = outcome.result is Result.GONE
        if outcome.result is Result.DELIVERED:
            self._pardon(lane)
            return
        if lane.failing_since is None:
            lane.failing_since = now
        if lane.is_due_for_note(now):
            lane.noted_at = now
            self._note(self._remember(lane))
        elif now - lane.failing_since >= DISABLED_AFTER:
            self._disable(lane)

    def _remember_host(self, host: str) -> None:
        self._answered.pop(host, None)
        self._answered[host] = None
        if len(self._answered) > MOST_REMEMBERED:
            del self._answered[next(iter(self._answered))]

    async def ask(self, owner: str, host: str) -> None:
        """Somebody asks for another try: every process is to forget what it knows. Raises StoreError."""
        await self._records.ask(owner, host, self._clock.now(), by=f"{self._worker}.{next(self._asks)}")

    async def hear(self, lane: Lane) -> None:
        """If somebody has asked for another try, here or elsewhere, what is known against it is forgotten."""
        try:
            asked = await self._records.asked(lane.owner, lane.host, self._clock.now())
        except StoreError:
            return
        if asked and asked != lane.heard:
            lane.heard = asked
            lane.reopen()
            self._pardon(lane)

    async def _remember(self, lane: Lane) -> None:
        """Others, and this process before its last start, may have known for longer that it fails."""
        try:
            since = await self._records.failed(lane.owner, lane.host, self._clock.now())
        except StoreError:
            lane.noted_at = None  # with the next failure
            return
        if lane.failing_since is None:
            return  # something has arrived meanwhile
        lane.failing_since = min(since, lane.failing_since)
        if self._clock.now() - lane.failing_since >= DISABLED_AFTER:
            self._disable(lane)

    def _disable(self, lane: Lane) -> None:
        if not lane.is_disabled:
            lane.is_disabled = True
            _log.warning("webhooks to %s are not tried any more: for days it has only failed", lane.host)

    def _pardon(self, lane: Lane) -> None:
        is_known = lane.noted_at is not None
        lane.forgive()
        if is_known:
            self._note(self._records.arrived(lane.owner, lane.host))

    def _note(self, writing: Coroutine[Any, Any, None]) -> None:
        """Nobody waits for it: at worst a record is found to be old."""
        note = asyncio.create_task(writing)
        self.notes.add(note)
        note.add_done_callback(self.notes.discard)
