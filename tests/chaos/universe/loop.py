"""
A loop of several simulated processes in virtual time. It owns when what runs; it knows no engine and no store.

Time jumps to the next timer when nobody has anything to do. What is ready runs in an order drawn from the seed. Every
handle belongs to the process in whose context it was made: a frozen process's handles wait, a dead one's never run.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar, TypeVarTuple, Unpack

from gateway.testing import Stalled

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_STEPS_AT_ONE_MOMENT = 200_000


class Process:
    """What SIGSTOP and SIGKILL are for. Everything it begins inherits it; `spawn` begins something in it."""

    def __init__(self, loop: UniverseLoop, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.frozen_until = 0.0
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)
        self.crashed: dict[int, Callable[[], None]] = {}  # what the world does as it dies
        self._loop = loop
        self._parked: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64

    @property
    def is_frozen(self) -> bool:
        return self.frozen_until > self._loop.time()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._loop.create_task(work, context=self.context)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        self.frozen_until = self._loop.time() + seconds
        self._loop.call_later(seconds, self._thaw, context=self._loop.world.context)

    def crash(self) -> None:
        """SIGKILL: nothing of it runs any more, and no `finally`."""
        self.is_dead = True
        self._parked.clear()
        for hear in list(self.crashed.values()):
            hear()
        self.crashed.clear()

    def on_crash(self, hear: Callable[[], None]) -> Callable[[], object]:
        """Call `hear` should it die; what is returned takes that back."""
        key = self._loop.number()
        self.crashed[key] = hear
        return lambda: self.crashed.pop(key, None)

    def tasks(self) -> list[asyncio.Task[Any]]:
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def keep(self, task: asyncio.Task[Any]) -> None:
        """A dead process's tasks must not be collected: that would run their `finally`."""
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._prune_at = 64 + 2 * len(self.tasks())

    def park(self, handle: asyncio.Handle) -> None:
        self._parked.append(handle)

    def _thaw(self) -> None:
        if not self.is_frozen and not self.is_dead:
            self._loop.unpark(self._parked)
            self._parked = []


_PROCESS: ContextVar[Process] = ContextVar("process")


class UniverseLoop(BaseEventLoop):
    """`loop.world` is the process of everybody who is no gateway: callers, providers, receivers, the weather."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random.random
        self._seconds = 0.0
        self._numbers = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timed = 0
        self.turns = 0  # handles that were run: two runs of one seed agree on it
        self._ready: list[asyncio.Handle] = []  # type: ignore[assignment]
        self._processes: list[Process] = []
        self.set_task_factory(_factory)
        self.world = self.process("world")

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self._processes.append(process)
        return process

    def time(self) -> float:
        return self._seconds

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Threads would make chance of their own: it is done here and now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def unpark(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def bury(self) -> None:
        """At the end: unwind what still waits, the dead included, without letting it do anything."""
        for process in self._processes:
            for task in process.tasks():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                work = task.get_coro()
                if work is not None:
                    with contextlib.suppress(BaseException):
                        work.close()
        self._ready.clear()
        self._timers.clear()

    # -- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timed += 1
        heapq.heappush(self._timers, (when, self._timed, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._seconds + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def _process_events(self, event_list: Any) -> None: ...

    def _write_to_self(self) -> None: ...

    def _run_once(self) -> None:
        """Until somebody stops it: asyncio's own loop round this one would cost more than what it does."""
        ready, random, process_of = self._ready, self._random, _PROCESS
        steps = 0
        while not self._stopping:  # type: ignore[attr-defined]
            count = len(ready)
            if not count:
                self._pass_time()
                steps = 0
                continue
            if count > 1:
                place = int(random() * count)
                ready[place], ready[-1] = ready[-1], ready[place]
            handle = ready.pop()
            if handle._cancelled:
                continue
            context: Context = handle._context  # type: ignore[attr-defined]
            process = context.get(process_of)
            if process is not None:
                if process.is_dead:
                    continue
                if process.frozen_until > self._seconds:
                    process.park(handle)
                    continue
            self.turns += 1
            steps += 1
            if steps > _MOST_STEPS_AT_ONE_MOMENT:
                raise Stalled(f"{steps} steps were made at one moment: somebody spins")
            try:
                context.run(handle._callback, *handle._args)  # type: ignore[misc]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"in {handle}", "exception": error, "handle": handle})

    def _pass_time(self) -> None:
        """On to the next timer, with all that are due then."""
        timers = self._timers
        while timers:
            when, _, handle = heapq.heappop(timers)
            if not handle._cancelled:
                break
        else:
            raise Stalled("nobody has anything to do, and no timer is set")
        self._seconds = max(self._seconds, when)
        self._ready.append(handle)
        while timers and timers[0][0] <= self._seconds:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self._ready.append(handle)


def _factory(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, context: Context | None = None
) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = context.get(_PROCESS) if context is not None else _PROCESS.get(None)
    if process is not None:
        process.keep(task)
    return task
