"""Creates whose end nobody heard of: committed or not, they are settled when the store says which. Accepts nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.contract.clock import Clock
from gateway.contract.prediction import Prediction

log = logging.getLogger("turnout.engine")

MOST_REMEMBERED = 10_000
# What was not there that long after is not coming: a store never commits later than it would have answered.
SURE_SECONDS = 15.0


class _Doubt(NamedTuple):
    is_wanted: bool
    since: float


class Doubts:
    """
    Bounded; the oldest is forgotten first, and then left as it is: held by this worker for as long as that lives.

    One that is wanted has a caller who can still find it: it was posted with an Idempotency-Key, or only nobody waited
    for the answer. It is let go, and so claimed and driven. Any other was answered with an error: its caller may have
    gone elsewhere with it, so that it is cancelled before anybody begins it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        look: Callable[[str], Awaitable[Prediction | None]],
        cancel: Callable[[str], Awaitable[object]],
        release: Callable[[str], Awaitable[None]],
        most: int = MOST_REMEMBERED,
    ) -> None:
        self._clock = clock
        self._look = look
        self._cancel = cancel
        self._release = release
        self._most = most
        self._doubts: dict[str, _Doubt] = {}

    def __len__(self) -> int:
        return len(self._doubts)

    def add(self, id: str, *, is_wanted: bool) -> None:
        self._doubts[id] = _Doubt(is_wanted, self._clock.monotonic())
        while len(self._doubts) > self._most:
            forgotten = next(iter(self._doubts))
            del self._doubts[forgotten]
            log.error("whether prediction %s was stored is not known, and too many are like it: it is left", forgotten)

    async def settle(self) -> None:
        """Settle what can be. Raises StoreError while the store is out; the rest is for the next time."""
        for id, doubt in list(self._doubts.items()):
            prediction = await self._look(id)
            if prediction is None:
                if self._clock.monotonic() - doubt.since >= SURE_SECONDS:
                    self._doubts.pop(id, None)
                continue
            if not doubt.is_wanted and not prediction.is_terminal:
                log.info("prediction %s was stored though its caller heard of an error: it is cancelled", id)
                await self._cancel(id)
            await self._release(id)
            self._doubts.pop(id, None)
