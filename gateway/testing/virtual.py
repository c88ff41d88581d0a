"""A clock that is set by hand, and an event loop in which waiting takes no time. Who acts in it is not its affair."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = datetime(2026, 1, 1, tzinfo=UTC)
_MOST_STEPS_AT_ONE_MOMENT = 50_000


class ManualClock:
    """A `contract.clock.Clock` that stands still until it is told to go on."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed_seconds = 0.0
        self._stepped = timedelta()

    def now(self) -> datetime:
        return self._start + self._stepped + timedelta(seconds=self._elapsed_seconds)

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self._elapsed_seconds

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; they must not be negative."""
        if seconds < 0:
            raise ValueError(f"time does not pass backwards: {seconds}")
        self._elapsed_seconds += seconds

    def step(self, seconds: float) -> None:
        """The date alone jumps, back or forth, and no time passes."""
        self._stepped += timedelta(seconds=seconds)


class Stalled(RuntimeError):
    """Everybody waits for something that nobody will do, or nobody ever lets time pass."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose time is a `ManualClock`: when nobody has anything to do, it moves on to the next timer.

    Work in threads takes no time: while an executor or an awaitable handed to `outside` is busy, the clock stands.
    Raises Stalled where a real loop would hang for ever, or spin.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._busy_outside = 0
        self._steps = 0
        super().__init__(_Selector(self._wait))

    def time(self) -> float:
        return self.clock.monotonic()

    async def outside(self, work: Awaitable[T]) -> T:
        """Await `work` that some thread does, with the clock standing."""
        self._busy_outside += 1
        try:
            return await work
        finally:
            self._busy_outside -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._busy_outside += 1
        future.add_done_callback(self._came_back)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own
        await self.outside(super().shutdown_default_executor())

    def _came_back(self, _: object) -> None:
        self._busy_outside -= 1

    def _wait(self, timeout: float | None, look: Callable[[float | None], Any]) -> Any:
        self._steps += 1
        if self._steps > _MOST_STEPS_AT_ONE_MOMENT:
            self._steps = 0  # so that the loop can still be closed
            raise Stalled(f"{_MOST_STEPS_AT_ONE_MOMENT} steps were made at one moment: somebody spins")
        ready = look(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._busy_outside:
            return look(10.0)
        if timeout is None:
            raise Stalled("nobody has anything to do, and no timer is set")
        self._steps = 0
        self.clock.advance(timeout)
        return ready


class _Selector(selectors.DefaultSelector):
    """Asks the loop how long to wait."""

    def __init__(self, wait: Callable[[float | None, Callable[[float | None], Any]], Any]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> Any:
        return self._wait(timeout, super().select)


def run_virtual(main: Coroutine[Any, Any, T], clock: ManualClock | None = None) -> T:
    """`asyncio.run` in a `VirtualLoop`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock or ManualClock())) as runner:
        return runner.run(main)
