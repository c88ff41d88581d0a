"""Carries what the store's outbox holds to its receivers, so that a dead one costs nobody else. Writes no bodies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError
from gateway.contract.host import host_of
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.prediction import Prediction
from gateway.delivery.judge import Judge
from gateway.delivery.lane import Claim, Lane, Standing, Trust
from gateway.delivery.schedule import SCHEDULE_SECONDS, next_due
from gateway.delivery.slot import Slots
from gateway.delivery.webhook import Outcome, Result
from gateway.store.protocol import Delivery, Store

MAX_HELD = 512  # claimed, sent or not
MAX_CLAIMED = 64  # in one go
IDLE_SECONDS = 5.0
HELD_SECONDS = 1.0  # when something waits: others may give it back
BUSY_SECONDS = 0.5  # when something is due and may not be claimed yet
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
GIVE_BACK_SECONDS = 1.0  # of a drain, at its end
TRIES_PER_LEASE = 4  # a claim lasts as long as so many tries that time out
MARGIN_SECONDS = 5.0

_log = logging.getLogger("turnout.delivery")


# Whose delivery it is, for those who want to know, and the W3C context a try passes on: (prediction, delivery, try).
Look = Callable[[str], Awaitable[Prediction | None]]
Trace = Callable[[Prediction, str, int], str]


class Sends(Protocol):
    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome: ...


class Outbox:
    """
    `run()` until `drain()`. `draw` gives numbers from [0, 1); `worker` names this process in the store;
    `timeout_seconds` is the sender's.

    A crash between "sent" and "recorded" sends the same bytes with the same id once more: at least once, never unseen.
    With `look` each try looks its prediction up, so that `delivery_made` is announced and `trace` is passed on.
    """

    def __init__(
        self,
        store: Store,
        sender: Sends,
        *,
        worker: str,
        clock: Clock,
        draw: Callable[[], float],
        observer: Observer | None = None,
        schedule_seconds: Sequence[float] = SCHEDULE_SECONDS,
        timeout_seconds: float = 15.0,
        look: Look | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._store = store
        self._look = look
        self._trace = trace
        self._sender = sender
        self._worker = worker
        self._clock = clock
        self._draw = draw
        self._observer = observer or Observer()
        self._schedule_seconds = schedule_seconds
        self._lease_seconds = TRIES_PER_LEASE * max(timeout_seconds, MARGIN_SECONDS)
        self._exchange_seconds = timeout_seconds + MARGIN_SECONDS  # with less left of a claim nothing is begun
        self._judge = Judge(store, clock, worker=worker)
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._tasks: dict[asyncio.Task[None], Claim] = {}
        self._slots = Slots()
        self._woken = asyncio.Event()
        self._unsent: list[Delivery] = []  # let go, and to be given back
        self._running: asyncio.Task[Any] | None = None
        self._is_throttled = False  # something due was left in the store
        self._is_draining = False

    def wake(self) -> None:
        """Something was written to the outbox."""
        self._woken.set()

    def in_hand(self) -> tuple[int, datetime | None]:
        """How many deliveries are claimed, and when the oldest of them came to be."""
        claims = list(self._tasks.values())
        for lane in list(self._lanes.values()):
            claims += lane.waiting
        return len(claims), min((claim.delivery.created_at for claim in claims), default=None)

    def receivers(self) -> Mapping[str, int]:
        """How many are `failing`, and how many are `shut`: not even tried for a while."""
        now = self._clock.monotonic()
        bad = [lane.is_shut(now) for lane in list(self._lanes.values()) if lane.is_suspect]
        return {"failing": len(bad) - sum(bad), "shut": sum(bad)}

    def standings(self) -> list[Standing]:
        """The receivers that something is known against."""
        now = self._clock.monotonic()
        bad = [lane for lane in self._lanes.values() if lane.is_suspect or lane.failing_since or lane.is_gone]
        return sorted((lane.standing(now) for lane in bad), key=lambda standing: (standing.owner, standing.host))

    async def retry(self, owner: str, host: str) -> None:
        """
        Somebody asks for another try: what is known against this receiver is forgotten. Raises StoreError.

        By every process of the store: each looks there before it passes a delivery by, and after a try has failed; what
        was on its way is due again at once. Whoever makes deliveries due asks before it, and calls `wake` after it.
        """
        await self._judge.ask(owner, host)

    async def run(self) -> None:
        """Claim and send until `drain`. Outlives every trouble of the store, and bugs: deliveries must go on."""
        self._running = asyncio.current_task()
        failures = 0
        while not self._is_draining:
            self._woken.clear()
            try:
                rest_seconds = await self._step()
                failures = 0
            except StoreError as error:
                rest_seconds = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                failures += 1
                _log.warning("the outbox cannot be read, next try in %.1f s: %s", rest_seconds, error)
            except Exception:
                rest_seconds = IDLE_SECONDS  # what was claimed comes back with its lease
                _log.exception("a round of the outbox failed; the next one is in %.1f s", rest_seconds)
            if rest_seconds:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), rest_seconds)
        await self._give_back()

    async def drain(self, seconds: float) -> None:
        """
        Begin nothing more, give what is on its way `seconds` to end, cut off the rest: it is sent again later.

        What was not begun is given back, at once where it waits for nothing: others send it. A store that is out holds
        nobody up: then it comes back when its claims are over.
        """
        self._is_draining = True
        self._woken.set()
        for lane in self._lanes.values():
            self._unsent += lane.give_up()
        last_seconds = min(GIVE_BACK_SECONDS, seconds / 4)
        running = () if self._running is None else (self._running,)
        await self._wait_giving_back(seconds - last_seconds, *self._tasks, *self._judge.notes, *running)
        cut_off = [*self._tasks, *self._judge.notes]
        for task in cut_off:
            task.cancel()
        await asyncio.gather(*cut_off, return_exceptions=True)
        for lane in self._lanes.values():
            self._unsent += (claim.delivery for claim in lane.waiting)
            lane.waiting.clear()
        await self._wait_giving_back(last_seconds)

    async def _wait_giving_back(self, seconds: float, *others: asyncio.Task[Any]) -> None:
        giving = asyncio.create_task(self._give_back())
        await asyncio.wait({giving, *others}, timeout=seconds)
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)

    async def _step(self) -> float:
        """One round: seconds to rest after it."""
        held = self._make_room()
        await self._give_back()
        unproven = self._unproven()
        full = frozenset(key for key, lane in self._lanes.items() if lane.is_full(unproven))
        limit = min(MAX_HELD - held, MAX_CLAIMED)
        self._is_throttled = bool(full) or limit <= 0
        claimed: list[Delivery] = []
        if limit > 0:
            claimed = await self._store.claim_deliveries(
                self._worker, limit=limit, lease_seconds=self._lease_seconds, exclude_lanes=full
            )
        if self._is_draining:
            self._unsent += claimed
            return 0.0
        self._admit(claimed)
        if claimed and len(claimed) == limit:
            return 0.0
        due_at = await self._store.next_delivery_at()
        if due_at is None:
            return IDLE_SECONDS
        return min(max((due_at - self._clock.now()).total_seconds(), 0.0) or BUSY_SECONDS, HELD_SECONDS)

    def _make_room(self) -> int:
        """How many are held. Where it gets tight no lane holds more than its share."""
        waiting = sum(len(lane.waiting) for lane in self._lanes.values())
        if len(self._tasks) + waiting > MAX_HELD // 2:
            unproven = self._unproven()
            for lane in self._lanes.values():
                surplus = lane.give_up_surplus(unproven)
                waiting -= len(surplus)
                self._unsent += surplus
        return len(self._tasks) + waiting

    def _unproven(self) -> int:
        return sum(lane.trust is not Trust.PROVEN for lane in self._lanes.values() if lane.waiting)

    async def _give_back(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not unsent:
            return
        try:
            await self._store.release_deliveries(unsent)
        except StoreError as error:
            _log.warning("%d webhooks come back when their claims are over: %s", len(unsent), error)

    def _admit(self, claimed: list[Delivery]) -> None:
        now = self._clock.monotonic()
        for delivery in claimed:
            key = (delivery.owner, host_of(delivery.url))
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(*key, has_answered=self._judge.has_answered(key[1]))
            lane.used_at = now
            lane.waiting.append(Claim(delivery, now + self._lease_seconds))
        self._pump()

    def _pump(self) -> None:
        """Begin whatever may begin, one of each lane in turn."""
        if self._is_draining:
            return
        now = self._clock.monotonic()
        ready = [lane for lane in self._lanes.values() if lane.waiting]
        while ready:
            ready = [lane for lane in ready if self._begin_next(lane, now)]
        for key in [key for key, lane in self._lanes.items() if lane.is_forgettable(now)]:
            del self._lanes[key]

    def _begin_next(self, lane: Lane, now: float) -> bool:
        trust = lane.trust
        if not self._slots.has_one(trust):
            return False
        claim = lane.next()
        if claim is None:
            return False
        if claim.until - now < self._exchange_seconds:
            # Somebody else may have it soon; so we let go, and claim it anew.
            lane.sending.discard(claim.delivery.prediction)
            self._unsent.append(claim.delivery)
            self._woken.set()
            return True
        self._slots.take(trust)
        task = asyncio.create_task(self._carry(lane, claim, now))
        self._tasks[task] = claim
        task.add_done_callback(lambda ended: self._ended(ended, lane, claim, trust))
        return True

    def _ended(self, task: asyncio.Task[None], lane: Lane, claim: Claim, trust: Trust) -> None:
        self._tasks.pop(task, None)
        self._slots.free(trust)
        lane.sending.discard(claim.delivery.prediction)
        if task.cancelled():
            if not claim.is_begun:
                self._unsent.append(claim.delivery)
        elif (error := task.exception()) is not None:
            _log.error("a delivery was dropped and comes back with its lease", exc_info=error)
        self._pump()
        if self._is_throttled:
            self._woken.set()

    def _carry(self, lane: Lane, claim: Claim, now: float) -> Coroutine[Any, Any, None]:
        delivery = claim.delivery
        is_last_chance = delivery.is_final and delivery.tries + 1 >= len(self._schedule_seconds)
        if not delivery.is_final and delivery.may_have_been_sent:
            # It is sent once, and never after what came later.
            return self._record(claim, ended="exhausted", error="claimed once before")
        if lane.is_disabled or (lane.is_shut(now) and not is_last_chance):
            return self._pass_by(lane, claim)
        return self._send(lane, claim)

    async def _pass_by(self, lane: Lane, claim: Claim) -> None:
        """As things stand here nothing is sent there; but somebody may have asked for it."""
        await self._judge.hear(lane)
        if lane.is_disabled:
            await self._refuse(claim)
        elif lane.is_shut(self._clock.monotonic()):
            await self._skip(claim)
        else:
            await self._send(lane, claim)

    async def _refuse(self, claim: Claim) -> None:
        """Nothing has arrived there for days. It stays listed, and goes when somebody asks for it."""
        self._announce(claim.delivery, "exhausted", 0.0)
        await self._record(claim, ended="exhausted", error="not tried: for days the receiver has only failed")

    async def _skip(self, claim: Claim) -> None:
        """The receiver was dead a moment ago: this try counts as made, without a connection."""
        delivery = claim.delivery
        due_at = self._next_due(delivery, None) if delivery.is_final else None
        ended = None if due_at else "exhausted"
        self._announce(delivery, ended, 0.0)
        await self._record(claim, ended=ended, due_at=due_at, error="not tried: the receiver fails every time")

    async def _send(self, lane: Lane, claim: Claim) -> None:
        delivery = claim.delivery
        begun_at = self._clock.now()
        prediction = await self._look_up(delivery)
        traceparent = ""
        if prediction is not None and self._trace is not None:
            traceparent = self._trace(prediction, delivery.id, delivery.tries + 1)
        heard = lane.heard
        claim.is_begun = True
        outcome = await self._sender.send(delivery, traceparent=traceparent)
        is_outdated = False
        if outcome.result is not Result.DELIVERED:
            await self._judge.hear(lane)
            # Somebody has asked for another try meanwhile: this one says nothing about the receiver as it is by now.
            is_outdated = lane.heard != heard
        if not is_outdated:
            self._judge.judge(lane, outcome)
        ended: str | None = None
        due_at: datetime | None = None
        if is_outdated and delivery.is_final:
            due_at = self._clock.now()
        elif outcome.result in (Result.DELIVERED, Result.GONE):
            ended = outcome.result.value
        elif delivery.is_final:
            due_at = self._next_due(delivery, outcome.retry_after_seconds, is_slow=outcome.is_slow)
        if due_at is None and ended is None:
            ended = "exhausted"
        self._announce(delivery, ended, outcome.seconds)
        if prediction is not None:
            tried = DeliveryTry(
                delivery=delivery.id,
                event=delivery.event,
                number=delivery.tries + 1,
                outcome=ended or "retry",
                status=outcome.status,
                begun_at=begun_at,
                seconds=outcome.seconds,
            )
            self._observer.delivery_made(prediction, tried)
        await self._record(claim, ended=ended, due_at=due_at, status=outcome.status, error=outcome.error)

    def _announce(self, delivery: Delivery, ended: str | None, seconds: float) -> None:
        self._observer.delivery_tried(delivery.event, ended or "retry", seconds)
        if ended is not None:
            since = (self._clock.now() - delivery.created_at).total_seconds()
            self._observer.delivery_ended(delivery.event, ended, since)

    async def _look_up(self, delivery: Delivery) -> Prediction | None:
        if self._look is None:
            return None
        try:
            return await self._look(delivery.prediction)
        except StoreError:
            return None  # the delivery matters, its trace does not

    def _next_due(
        self, delivery: Delivery, retry_after_seconds: float | None, *, is_slow: bool = False
    ) -> datetime | None:
        return next_due(
            delivery.tries + 1,
            delivery.created_at,
            self._clock.now(),
            self._draw(),
            retry_after_seconds,
            schedule_seconds=self._schedule_seconds,
            is_slow=is_slow,
        )

    async def _record(
        self,
        claim: Claim,
        *,
        ended: str | None,
        due_at: datetime | None = None,
        status: int | None = None,
        error: str | None = None,
    ) -> None:
        """Write the try down; while the store is out, again until the claim is over. A stale fence writes nothing."""
        for seconds in (*BACKOFF_SECONDS, *BACKOFF_SECONDS[-1:] * 6):
            try:
                await self._store.finish_delivery(
                    claim.delivery,
                    ended=ended,
                    due_at=due_at,
                    status=status,
                    error=error,
                )
                if due_at is not None:
                    self._woken.set()
                return
            except StoreError:
                if self._clock.monotonic() + seconds > claim.until:
                    break
                await asyncio.sleep(seconds)
        _log.warning("a delivery was tried and could not be recorded: it will be sent once more")
