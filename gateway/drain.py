"""The end of a gateway in its order, within its time. Closes no connections: that is the edge's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

from gateway.contract.clock import Clock
from gateway.delivery.outbox import Outbox
from gateway.engine.engine import Engine

# Of `[server] drain_seconds`: what is left is for the last commits, and for what only needs to be closed.
REQUEST_SHARE = 0.6
WORK_SHARE = 0.7
SUBMIT_SECONDS = DELIVERY_SECONDS = 15.0


class Drain:
    """
    `begin()` at the first signal, `end()` when nothing is accepted any more.

    From the beginning nothing is claimed, and what is under way ends beside the last requests, not after them: submits
    and webhooks that were sent are waited for, jobs at the providers are left alone. At the end the leases go.
    """

    def __init__(self, engine: Engine, outbox: Outbox, clock: Clock, *, seconds: float) -> None:
        self._engine = engine
        self._outbox = outbox
        self._clock = clock
        self._seconds = seconds
        self._begun_at: float | None = None
        self._delivering: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._begun_at is not None:
            return
        self._begun_at = self._clock.monotonic()
        self._engine.begin_drain()
        self._delivering = asyncio.create_task(self._outbox.drain(min(DELIVERY_SECONDS, WORK_SHARE * self._seconds)))

    async def end(self) -> None:
        self.begin()
        passed = self._clock.monotonic() - (self._begun_at or 0.0)
        left = max(1.0, min(SUBMIT_SECONDS, WORK_SHARE * self._seconds) - passed)
        await self._engine.drain(seconds=left)
        if self._delivering is not None:
            await asyncio.wait({self._delivering}, timeout=max(1.0, self._seconds - passed))


async def on_end_of_input(act: Callable[[], object]) -> None:
    """`act` once when standard input ends: whoever started us holds its other end, and is gone."""

    class Watching(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            act()

    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(Watching, os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0))
