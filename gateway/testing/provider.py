"""Providers that act by scripts and keep books, with no network between. What they do, they do in virtual time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

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
from gateway.contract.provider import (
    Call,
    Callback,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    Listed,
    Sighting,
    Unanswered,
)
from gateway.testing.virtual import ManualClock
from providers._lookout import Lookout


class Actor:
    """What every `contract.provider.Driver` does alike behind which there is no network: its signature is its name."""

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        self.name = name
        self.capabilities = capabilities

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        return self.capabilities

    async def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, now: datetime, secret: str | None = None
    ) -> Callback:
        if self.capabilities.callbacks is not Callbacks.SIGNED:
            return Callback(fact=None)
        if headers.get("signature") != signature(self.name)["signature"]:
            raise CallbackForged("the signature does not fit")
        return Callback(fact=msgspec.json.decode(body, type=Fact))

    async def credentials_for(self, url: str) -> dict[str, str]:
        return {}

    async def aclose(self) -> None: ...


def signature(name: str) -> dict[str, str]:
    """The headers of a callback from an actor of this name."""
    return {"signature": f"signed by {name}"}


def recognise(submits: Sequence[Unanswered], jobs: Iterable[Listed]) -> list[Sighting]:
    """What a list of these jobs says of each submit, to whoever reads it whole."""
    lookout = Lookout()
    for submit in submits:
        lookout.expect(submit.call, {})
    for job in jobs:
        lookout.see(job)
    return [lookout.found(submit, {}) for submit in submits]


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


class FakeProvider(Actor):
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
        super().__init__(name, capabilities or Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME))
        self.jobs: list[Job] = []
        self.submits: list[Call] = []  # as they left, whatever became of them
        self.looks: list[int] = []  # for how many submits its list was looked through, each time
        self.list_seconds = 0.0  # from when its list was read until the answer is here
        self.list_raises: Exception | None = None  # every look ends with this
        self.is_closed = False
        self._script = script or Script()
        self._clock = clock
        self._deliver = deliver
        self._ids = itertools.count(1)
        self._due: list[tuple[float, int, Job, int]] = []
        self._courier: asyncio.Task[None] | None = None

    # -- Driver ----------------------------------------------------------------------------------------------------

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

    async def find(self, submits: Sequence[Unanswered]) -> list[Sighting]:
        """Whoever merely fits has the same input: there is one model here."""
        self.looks.append(len(submits))
        found = recognise(submits, self._listed())
        await asyncio.sleep(self.list_seconds)
        if self.list_raises is not None:
            raise self.list_raises
        return found

    async def aclose(self) -> None:
        self.is_closed = True
        if self._courier is not None:
            self._courier.cancel()
            await asyncio.wait({self._courier})

    # -- for tests -------------------------------------------------------------------------------------------------

    def callback(self, job: Job) -> tuple[dict[str, str], bytes]:
        """Headers and body of what it would tell of `job` now."""
        return signature("somebody else" if job.script.forged else self.name), msgspec.json.encode(self._fact(job))

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

    def _listed(self) -> Iterable[Listed]:
        now = self._clock.monotonic()
        for job in self.jobs if self.capabilities.lists else ():
            if now >= job.started_at + job.script.listed_seconds:
                made_at = self._clock.now() - timedelta(seconds=now - job.started_at)
                yield Listed(handle={"id": job.id}, created_at=made_at, callback_url=job.callback_url, input=job.input)

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
