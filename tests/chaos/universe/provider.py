"""
A provider that plays its part in a universe and keeps books: what was started, billed, canceled. They are the judge.

A House is the provider itself and outlives every gateway; one gateway's connections to it are a `client.Client`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.contract.errors import (
    JobCanceled,
    JobLost,
    ModelFailed,
    PollFailed,
    ResultLost,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost, CostBasis
from gateway.contract.provider import (
    Call,
    Callbacks,
    Cancel,
    Cancellation,
    Capabilities,
    Listed,
)
from gateway.testing import START, signature
from tests.chaos.universe.fate import COURSES, Course, Fate
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.network import Network

_QUEUE = frozenset({"queue"})
_SYNC = frozenset({"sync"})
_STREAM = frozenset({"stream"})

KINDS: dict[str, Capabilities] = {
    "called": Capabilities(
        modes=_QUEUE,
        cancel=Cancel.ANY_TIME,
        callbacks=Callbacks.SIGNED,
        min_poll_seconds=0.5,
        result_lifetime_seconds=60,
    ),
    "polled": Capabilities(modes=_QUEUE, cancel=Cancel.ANY_TIME, min_poll_seconds=0.5),
    "nudged": Capabilities(modes=_QUEUE, cancel=Cancel.QUEUED_ONLY, callbacks=Callbacks.UNSIGNED, min_poll_seconds=0.5),
    "repeatable": Capabilities(modes=_QUEUE, cancel=Cancel.ANY_TIME, min_poll_seconds=0.5, idempotent_submit=True),
    "listed": Capabilities(modes=_QUEUE, cancel=Cancel.ANY_TIME, min_poll_seconds=0.5, lists=True),
    "stubborn": Capabilities(modes=_QUEUE, cancel=Cancel.NONE, min_poll_seconds=1.0),
    "held": Capabilities(modes=_SYNC, cancel=Cancel.NONE, pollable=False),
    "breakable": Capabilities(modes=_SYNC, cancel=Cancel.DISCONNECT, pollable=False),
    "streamed": Capabilities(modes=_STREAM, cancel=Cancel.DISCONNECT, pollable=False),
    "reported": Capabilities(
        modes=_STREAM, cancel=Cancel.ANY_TIME, callbacks=Callbacks.SIGNED, min_poll_seconds=0.5, lists=True
    ),
}
_CALLBACK_PAUSES = (0.5, 2.0, 8.0, 20.0, 40.0)  # before each repeat of a callback nobody took
_TOLD_NANOS = 700_000  # what a job cost, by the word of a house that tells it
_WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]


class Job:
    """One line in the books. Times are the loop's seconds."""

    def __init__(self, id: str, house: str, call: Call, course: Course, at: float, queue: float, run: float) -> None:
        self.id = id
        self.house = house
        self.prediction = call.prediction
        self.attempt = call.attempt
        self.input = call.input
        self.idempotency_id = call.idempotency_id
        self.callback_url = call.callback_url
        self.wants_steps = call.stream
        self.course = course
        self.started_at = at
        self.runs_at = at + queue
        self.ends_at = self.runs_at + run
        self.canceled_at: float | None = None
        self.cancels: list[float] = []  # when it was asked to stop, or somebody tried to ask
        self.polls = 0
        self.ends_told = 0
        self.is_answered = False  # the submit has been

    def phase(self, now: float) -> Phase:
        if self.canceled_at is not None and self.canceled_at <= now:
            return Phase.CANCELED
        if now >= self.ends_at:
            return self.course.end
        return Phase.RUNNING if now >= self.runs_at else Phase.QUEUED

    def is_over(self, now: float) -> bool:
        return self.phase(now).is_end

    def is_billed(self, now: float) -> bool:
        """It ran, if only for a moment; what was stopped in the queue is free."""
        return now >= self.runs_at if self.canceled_at is None else self.canceled_at > self.runs_at


class House:
    """
    `price_nanos` is what it takes for a job; None: nobody knows.

    `carry(url, headers, body)` brings a callback to whichever gateway answers, and raises if none takes it.

    `arrived(house, call)` is told of each submit as its first byte comes, `told(prediction, who, what)` of all it does.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        price_nanos: int | None,
        loop: UniverseLoop,
        fate: Fate,
        network: Network,
        arrived: Callable[[str, Call], None],
        told: Callable[[str, str, str], None],
        carry: Callable[[str, dict[str, str], bytes], Awaitable[str]],
    ) -> None:
        self.name = name
        self.kind = kind
        self.capabilities = KINDS[kind]
        self.price_nanos = price_nanos
        self.jobs: dict[str, Job] = {}
        self.loop = loop
        self.fate = fate
        self.network = network
        self.tells_cost = fate.chance(0.4)
        self._arrived = arrived
        self.told = told
        self._carry = carry

    # -- what its API does -------------------------------------------------------------------------------------------

    def take(self, call: Call, starts: bool) -> Job | None:
        """The request is there."""
        self._arrived(self.name, call)
        if self.capabilities.idempotent_submit:
            for job in self.jobs.values():
                if job.idempotency_id == call.idempotency_id:
                    return job
        return self._start(call) if starts else None

    def look(self, id: str) -> Fact:
        job = self._find(id)
        job.polls += 1
        if job.course.poll_error:
            raise ValueError("a bug in the adapter")
        if job.polls <= job.course.polls_failing:
            raise PollFailed("the line was cut")
        now = self.loop.time()
        if job.course.is_lost and now > job.runs_at:
            raise JobLost("no such job")
        if job.course.is_expired and now > job.ends_at:
            raise ResultLost("its result has expired") if self.fate.chance(0.5) else JobLost("no such job")
        return self.fact(job)

    def list(self) -> list[Listed]:
        """It lags a little behind."""
        now = self.loop.time()
        return [
            Listed(
                handle={"id": job.id},
                created_at=_at(job.started_at),
                callback_url=job.callback_url,
                input=job.input,
            )
            for job in self.jobs.values()
            if now - job.started_at > 1.0
        ]

    def stop(self, id: str) -> Cancellation:
        job, now = self._find(id), self.loop.time()
        how = job.course.cancel
        if how == "cut":
            raise PollFailed("it answered 503", status=503)
        if how == "refused" or self.capabilities.cancel is Cancel.NONE:
            return Cancellation.UNSUPPORTED
        if job.is_over(now):
            return Cancellation.TOO_LATE
        if self.capabilities.cancel is Cancel.QUEUED_ONLY and now >= job.runs_at:
            return Cancellation.UNSUPPORTED
        if how == "heard":
            self._cancel(job, now + 2.0)
            return Cancellation.REQUESTED
        self._cancel(job, now)
        return Cancellation.STOPPED

    def broken_off(self, job: Job) -> None:
        """The connection of a held call is gone."""
        if self.capabilities.cancel is Cancel.DISCONNECT and not job.is_over(self.loop.time()):
            job.cancels.append(self.loop.time())
            self._cancel(job, self.loop.time())

    def fact(self, job: Job, at: float | None = None) -> Fact:
        """What it says of the job, now or as it was."""
        now = self.loop.time() if at is None else at
        phase = job.phase(now)
        handle = {"id": job.id}
        if not phase.is_end:
            if phase is Phase.QUEUED:
                return Fact(phase=phase, handle=handle)
            step = min(3, int(now - job.runs_at) + 1)
            return Fact(
                phase=phase, handle=handle, output=_WORDS[:step], logs="step\n" * step, started_at=_at(job.runs_at)
            )
        if job.course.flips_to is not None and phase is not Phase.CANCELED:
            job.ends_told += 1
            phase = job.course.flips_to if job.ends_told > 1 else phase
        cost = Cost(nanos=_TOLD_NANOS, basis=CostBasis.REPORTED) if self._tells_cost(phase) else None
        failure = None
        if phase is Phase.FAILED:
            failure = job.course.failure or ModelFailed("it raised").failure
        if phase is Phase.CANCELED and not job.cancels:
            failure = JobCanceled().failure
        succeeded = phase is Phase.SUCCEEDED
        over = min(job.ends_at, now) if job.canceled_at is None else job.canceled_at
        ran = job.runs_at < over
        return Fact(
            phase=phase,
            handle=handle,
            output=_output(job) if succeeded and not job.course.is_empty else None,
            logs="step\n" * 3 if succeeded else None,
            cost=cost,
            failure=failure,
            started_at=_at(job.runs_at) if ran else None,
            completed_at=_at(over) if ran else None,
        )

    # -- its books ---------------------------------------------------------------------------------------------------

    def cost_nanos(self, end: Phase) -> int | None:
        """Of a job that ended so: what it tells, else its price, by which only success is charged. None: unknown."""
        if self._tells_cost(end):
            return _TOLD_NANOS
        return 0 if self.price_nanos is not None and end is not Phase.SUCCEEDED else self.price_nanos

    def _tells_cost(self, end: Phase) -> bool:
        return self.tells_cost and end is not Phase.CANCELED

    def _start(self, call: Call) -> Job:
        fault = self.fate.draw("job")
        course = COURSES[fault] if fault is not None else Course()
        queue, run = self.fate.pick(0.0, 0.1, 1.0, 4.0), self.fate.pick(0.2, 1.0, 1.0, 4.0, 12.0, 25.0)
        queue = course.queue_seconds if course.queue_seconds is not None else queue
        run = course.run_seconds if course.run_seconds is not None else run
        job = Job(f"{self.name}-{len(self.jobs) + 1}", self.name, call, course, self.loop.time(), queue, run)
        self.jobs[job.id] = job
        self.told(call.prediction, self.name, f"starts {job.id} for attempt {call.attempt}: {fault or 'well'}")
        if call.callback_url is not None and self.capabilities.callbacks is not Callbacks.NONE:
            self._schedule(job)
        return job

    def _cancel(self, job: Job, at: float) -> None:
        job.canceled_at = at
        if job.callback_url is not None and self.capabilities.callbacks is not Callbacks.NONE:
            self._later(at - self.loop.time() + 0.05, lambda: self._call_back(job, 0, self.signed(job)))

    def _find(self, id: str) -> Job:
        job = self.jobs.get(id)
        if job is None:
            raise JobLost("no such job")
        return job

    # -- calling back ------------------------------------------------------------------------------------------------

    def _schedule(self, job: Job) -> None:
        """Its callbacks: of each step if that was asked for, and of the end."""
        if job.wants_steps and job.runs_at < math.inf and self.fate.chance(0.5):
            for after in (0.0, 1.1, 2.2):
                if job.runs_at + after < job.ends_at:
                    self._later(job.runs_at + after - self.loop.time(), lambda: self._tell(job))
        if job.ends_at < math.inf:
            self._later(job.ends_at - self.loop.time(), lambda: self._tell(job))

    def _tell(self, job: Job) -> None:
        if job.canceled_at is not None:
            return
        fault = self.fate.draw("callback")
        if fault == "F12 callback lost" or job.course.is_lost:
            return
        headers, body = self.signed(job)
        delay, times = self.fate.between(0.0, 0.1), 1
        if fault == "F13 callback duplicated":
            times = self.fate.random.randint(2, 5)
        elif fault == "F14 callback late":
            delay = self.fate.between(5.0, 60.0)
        elif fault == "F14 callbacks reordered":
            delay = self.fate.between(0.0, 3.0)
        elif fault == "F15 callback forged":
            self._later(delay, lambda: self._call_back(job, 9, ({"signature": "somebody else's"}, body)))
        elif fault == "F15 callback replayed":
            self._later(self.fate.between(1.0, 90.0), lambda: self._call_back(job, 9, (headers, body)))
        elif fault == "F15 callback for another attempt":
            other = self.fate.random.choice(list(self.jobs.values()))
            self._later(delay, lambda: self._call_back(job, 9, self.signed(other)))
        for turn in range(times):
            self._later(delay + 0.3 * turn, lambda: self._call_back(job, 0, (headers, body)))

    def signed(self, job: Job) -> tuple[dict[str, str], bytes]:
        return signature(self.name), msgspec.json.encode(self.fact(job))

    def _call_back(self, job: Job, tries: int, letter: tuple[dict[str, str], bytes]) -> None:
        async def carry() -> None:
            assert job.callback_url is not None
            if not job.is_answered:
                self.fate.count("F14 callback before the answer")
            try:
                if self.network.is_down(self.name):
                    raise ConnectionError("its network is down")  # noqa: TRY301 - as any other that does not get through
                answer = await self._carry(job.callback_url, *letter)
            except ConnectionError as error:
                self.told(job.prediction, self.name, f"calls back of {job.id}: {error}")
                if tries < len(_CALLBACK_PAUSES):
                    self._later(_CALLBACK_PAUSES[tries], lambda: self._call_back(job, tries + 1, letter))
            else:
                self.told(job.prediction, self.name, f"calls back of {job.id}: {answer}")

        self.loop.world.spawn(carry())

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.loop.call_later(max(0.0, seconds), act, context=self.loop.world.context)


def _output(job: Job) -> Any:
    """Some give words, some a file."""
    if ord(job.prediction[0]) % 5 < 3:
        return f"https://provider.example/{job.id}.png"
    return [*_WORDS[:3], job.id]


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)
