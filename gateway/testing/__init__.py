"""
The public test kit: a clock that is set by hand, an event loop in which waiting takes no time, a provider that acts.

For tests of the engine and of whatever drives a `contract.provider.Driver`. No product code imports it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack

import msgspec

from gateway.contract.errors import (
    CallbackForged,
    Failure,
    JobLost,
    ModelFailed,
    OutcomeUnknown,
    PollFailed,
    SendWithheld,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost
from gateway.contract.provider import Call, Callback, Callbacks, Cancel, Cancellation, Capabilities, Found

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# -- time -------------------------------------------------------------------------------------------------------------

START = datetime(2026, 1, 1, tzinfo=UTC)
_MOST_STEPS_AT_ONE_MOMENT = 50_000


class ManualClock:
    """A `contract.clock.Clock` that stands still until it is told to go on."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed_seconds = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_seconds)

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self._elapsed_seconds

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; they must not be negative."""
        if seconds < 0:
            raise ValueError(f"time does not pass backwards: {seconds}")
        self._elapsed_seconds += seconds


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


# -- a provider -------------------------------------------------------------------------------------------------------


class Script(msgspec.Struct, kw_only=True, frozen=True):
    """
    What becomes of one submit, and of its job. The default: accepted at once, done after a second.

    `raises` with `starts` is an answer that got lost; without, a request that was refused or never came.
    """

    starts: bool = True  # a job is started, and billed once it runs
    raises: Exception | None = None  # the submit ends with this
    arrive_seconds: float = 0.0  # until the request is there, and the job starts
    answer_seconds: float = 0.0  # from then until the answer is here
    holds: bool = False  # the answer comes when the job is over
    queue_seconds: float = 0.0  # until it runs
    run_seconds: float = 1.0  # from then until its end; infinity: it hangs
    end: Phase = Phase.SUCCEEDED
    output: Any = "done"
    failure: Failure | None = None  # with FAILED
    cost: Cost | None = None  # what the provider reports
    callbacks: int = 1  # how often its end is told, to callers that gave an address; 0: the callback is lost
    callback_seconds: float = 0.0  # from the end until the first of them
    forged: bool = False  # its callbacks carry a wrong signature
    is_forgotten: bool = False  # once it is over, the provider knows it no more
    polls_failing: int = 0  # so many polls do not get through
    poll_raises: Exception | None = None  # every poll ends with this
    cancel: Cancellation | Exception | None = None  # the answer to a cancel; None: what fits its state
    listed_seconds: float = 0.0  # until a job that was started stands in the provider's list


class Job:
    """One line in a provider's books."""

    def __init__(self, id: str, call: Call, script: Script, at: float) -> None:
        self.id = id
        self.prediction = call.prediction
        self.attempt = call.attempt
        self.idempotency_id = call.idempotency_id
        self.callback_url = call.callback_url
        self.input = call.input
        self.script = script
        self.started_at = at  # monotonic seconds
        self.runs_at = at + script.queue_seconds
        self.ends_at = self.runs_at + script.run_seconds
        self.canceled_at: float | None = None
        self.cancels = 0  # how often we were asked to stop it
        self.polls = 0

    def phase(self, now: float) -> Phase:
        if self.canceled_at is not None:
            return Phase.CANCELED
        if now >= self.ends_at:
            return self.script.end
        return Phase.RUNNING if now >= self.runs_at else Phase.QUEUED

    def is_billed(self, now: float) -> bool:
        """It ran, if only for a moment; what was stopped in the queue is free."""
        return now >= self.runs_at if self.canceled_at is None else self.canceled_at > self.runs_at


class FakeProvider:
    """
    A `contract.provider.Driver` that acts by scripts and keeps books, with no network between.

    `script` is asked once for each job. `deliver(url, headers, body)` carries its callbacks; what it raises makes the
    provider try again, as real ones do. It outlives the engine that calls it: its jobs go on.
    """

    def __init__(
        self,
        name: str,
        clock: ManualClock,
        *,
        script: Script | Callable[[Call], Script] | None = None,
        capabilities: Capabilities | None = None,
        deliver: Callable[[str, dict[str, str], bytes], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self.capabilities = capabilities or Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME)
        self.jobs: list[Job] = []
        self.submits: list[Call] = []  # as they left, whatever became of them
        self.is_closed = False
        self._script = script or Script()
        self._clock = clock
        self._deliver = deliver
        self._ids = itertools.count(1)
        self._due: list[tuple[float, int, Job, int]] = []
        self._courier: asyncio.Task[None] | None = None

    # -- Driver ----------------------------------------------------------------------------------------------------

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        return self.capabilities

    async def submit(self, call: Call, *, on_fact: Any = None, may_send: Callable[[], bool] | None = None) -> Fact:
        if may_send is not None and not may_send():
            raise SendWithheld
        self.submits.append(call)
        script = self._script(call) if callable(self._script) else self._script
        await asyncio.sleep(script.arrive_seconds)
        job = self._find(call) if self.capabilities.idempotent_submit else None
        if job is None and script.starts:
            job = self._start(call, script)
        await asyncio.sleep(script.answer_seconds)
        if script.raises is not None:
            raise script.raises
        if job is None:
            raise OutcomeUnknown("the connection broke")
        if script.holds:
            await self._hold(job, call.deadline_seconds)
        return self._fact(job)

    async def poll(self, handle: dict[str, str]) -> Fact:
        job = self._by_handle(handle)
        job.polls += 1
        if job.script.poll_raises is not None:
            raise job.script.poll_raises
        if job.polls <= job.script.polls_failing:
            raise PollFailed("the line was cut")
        if job.script.is_forgotten and self._phase(job).is_end:
            raise JobLost("no such job")
        return self._fact(job)

    async def cancel(self, handle: dict[str, str]) -> Cancellation:
        job = self._by_handle(handle)
        job.cancels += 1
        if isinstance(job.script.cancel, Exception):
            raise job.script.cancel
        if job.script.cancel is Cancellation.UNSUPPORTED:
            return Cancellation.UNSUPPORTED
        if self._phase(job).is_end:
            return Cancellation.TOO_LATE
        if job.script.cancel is not Cancellation.TOO_LATE:
            job.canceled_at = self._clock.monotonic()
        return job.script.cancel or Cancellation.STOPPED

    async def find(self, call: Call, *, since: datetime) -> tuple[Found, ...]:
        now = self._clock.monotonic()
        found: list[Found] = []
        for job in self.jobs if self.capabilities.lists else ():
            created_at = self._clock.now() - timedelta(seconds=now - job.started_at)
            if created_at < since or now < job.started_at + job.script.listed_seconds:
                continue
            is_certain = call.callback_url is not None and job.callback_url == call.callback_url
            if is_certain or (call.callback_url is None is job.callback_url and job.input == call.input):
                found.append(Found(handle={"id": job.id}, created_at=created_at, is_certain=is_certain))
        return tuple(found)

    async def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, now: datetime, secret: str | None = None
    ) -> Callback:
        if self.capabilities.callbacks is not Callbacks.SIGNED:
            return Callback(fact=None)
        if headers.get("signature") != f"signed by {self.name}":
            raise CallbackForged("the signature does not fit")
        return Callback(fact=msgspec.json.decode(body, type=Fact))

    async def credentials_for(self, url: str) -> dict[str, str]:
        return {}

    async def aclose(self) -> None:
        self.is_closed = True
        if self._courier is not None:
            self._courier.cancel()
            await asyncio.wait({self._courier})

    # -- for tests -------------------------------------------------------------------------------------------------

    def callback(self, job: Job) -> tuple[dict[str, str], bytes]:
        """Headers and body of what it would tell of `job` now."""
        signer = "somebody else" if job.script.forged else self.name
        return {"signature": f"signed by {signer}"}, msgspec.json.encode(self._fact(job))

    def billed(self, prediction: str) -> list[Job]:
        now = self._clock.monotonic()
        return [job for job in self.jobs if job.prediction == prediction and job.is_billed(now)]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _start(self, call: Call, script: Script) -> Job:
        job = Job(f"{self.name}-{next(self._ids)}", call, script, self._clock.monotonic())
        self.jobs.append(job)
        if call.callback_url and self._deliver is not None and job.ends_at < math.inf:
            for turn in range(script.callbacks):
                heapq.heappush(
                    self._due, (job.ends_at + script.callback_seconds + turn, len(self.jobs) * 100 + turn, job, 0)
                )
            if script.callbacks and (self._courier is None or self._courier.done()):
                self._courier = asyncio.create_task(self._carry())
        return job

    async def _carry(self) -> None:
        """Bring every callback that is due, in the order of their times; what was not taken is brought again."""
        while self._due:
            # Short steps, since a job that starts later may end sooner.
            wait = self._due[0][0] - self._clock.monotonic()
            if wait > 0:
                await asyncio.sleep(min(wait, 0.25))
                continue
            at, order, job, tries = heapq.heappop(self._due)
            if job.canceled_at is not None or job.callback_url is None or self._deliver is None:
                continue
            headers, body = self.callback(job)
            try:
                await self._deliver(job.callback_url, headers, body)
            except Exception:
                if tries < 3:
                    heapq.heappush(self._due, (at + 2.0 ** (tries + 1), order, job, tries + 1))

    async def _hold(self, job: Job, deadline_seconds: float) -> None:
        """Until the job is over. The driver bounds it; a caller that hangs up may stop it."""
        left = max(0.0, job.ends_at - self._clock.monotonic())
        try:
            await asyncio.sleep(min(left, deadline_seconds))
        except asyncio.CancelledError:
            if self.capabilities.cancel is Cancel.DISCONNECT:
                job.canceled_at = self._clock.monotonic()
            raise
        if left > deadline_seconds:
            raise OutcomeUnknown("no answer came in time")

    def _find(self, call: Call) -> Job | None:
        return next((job for job in self.jobs if job.idempotency_id == call.idempotency_id), None)

    def _by_handle(self, handle: dict[str, str]) -> Job:
        for job in self.jobs:
            if job.id == handle["id"]:
                return job
        raise JobLost("no such job")

    def _phase(self, job: Job) -> Phase:
        return job.phase(self._clock.monotonic())

    def _fact(self, job: Job) -> Fact:
        phase = self._phase(job)
        if not phase.is_end:
            return Fact(phase=phase, handle={"id": job.id})
        return Fact(
            phase=phase,
            handle={"id": job.id},
            output=job.script.output if phase is Phase.SUCCEEDED else None,
            failure=(job.script.failure or ModelFailed().failure) if phase is Phase.FAILED else None,
            cost=job.script.cost,
            started_at=self._began(job),
        )

    def _began(self, job: Job) -> datetime | None:
        """When it began to run; None for one that was stopped in the queue."""
        now = self._clock.monotonic()
        return self._clock.now() - timedelta(seconds=now - job.runs_at) if job.is_billed(now) else None
