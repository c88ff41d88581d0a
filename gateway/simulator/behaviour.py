"""How a simulated provider behaves, and what that means for each of its jobs. One seed and one order: one fate."""

from __future__ import annotations

import math
import random
from typing import Annotated, Any, Literal

import msgspec

from gateway.contract.errors import ConfigurationError
from gateway.contract.money import NANOS, parse_dollars

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]

Submit = Literal["accept", "refuse", "throttle", "cut", "cut_before", "garbage", "truncate"]
End = Literal["succeed", "fail", "hang"]

_SUBMITS: tuple[Submit, ...] = (
    "cut_before",
    "refuse",
    "throttle",
    "cut",
    "garbage",
    "truncate",
)  # hit twice: the first
_FAULTS = (*_SUBMITS, "hang", "error", "lost_webhook")
# Drawn apart, so that what a seed meant before they were thought of it means still.
_LATER_FAULTS = ("truncate", "slow", "duplicate", "late", "forged")


class Behaviour(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Rates are shares of jobs, from 0 to 1; times are medians of log-normal draws, in seconds."""

    price: str = "0"  # dollars per prediction that ran
    per_second: str = "0"  # dollars per second of run time
    queue: Seconds = 0.05
    median: Seconds = 0.3  # of the run time
    sigma: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.25  # of both, as a log-normal's
    error: Rate = 0.0  # the job runs and fails
    refuse: Rate = 0.0  # the submit is answered 500, and nothing runs
    throttle: Rate = 0.0  # the submit is answered 429
    retry_after: Seconds = 1.0  # with 429
    hang: Rate = 0.0  # the job never ends
    cut: Rate = 0.0  # the job is started, and the connection broken without an answer
    cut_before: Rate = 0.0  # the connection is broken, and nothing started
    garbage: Rate = 0.0  # the job is started, and the answer makes no sense
    truncate: Rate = 0.0  # the job is started, and the answer broken off in its middle
    slow: Rate = 0.0  # the submit is answered late: the job's callback may well come first
    slow_seconds: Seconds = 2.0
    stumble: Rate = 0.0  # a poll or a cancel is answered 500; of these, not of jobs
    lost_webhook: Rate = 0.0  # the callback is never sent
    duplicate: Rate = 0.0  # every callback comes two to five times
    late: Rate = 0.0  # every callback comes late: after polls, and in any order
    late_seconds: Seconds = 3.0
    forged: Rate = 0.0  # before each callback comes one with a wrong signature that says the opposite
    slow_start: Seconds = 0.0  # added to the queue of the first job after a start
    capacity: Annotated[int, msgspec.Meta(ge=0)] = 0  # jobs at once; beyond it they queue. 0: any number
    seed: int = 0

    def changed(self, changes: dict[str, Any]) -> Behaviour:
        """Raises ConfigurationError in one line for a key or value that cannot be."""
        try:
            behaviour = msgspec.convert(msgspec.to_builtins(self) | changes, Behaviour, strict=False)
            parse_dollars(behaviour.price)
            parse_dollars(behaviour.per_second)
        except (msgspec.ValidationError, ValueError) as error:
            known = ", ".join(Behaviour.__struct_fields__)
            raise ConfigurationError(f"{error}; the keys are {known}") from None
        return behaviour


class Fate(msgspec.Struct, kw_only=True, frozen=True):
    """What will happen to one job."""

    submit: Submit
    end: End
    queue_seconds: float
    run_seconds: float
    loses_webhook: bool
    answer_seconds: float = 0.0  # the submit is answered so late
    callbacks: int = 1  # how often each is sent
    callback_seconds: float = 0.0  # … and how late
    is_forged: bool = False  # … and whether somebody else is quicker


class Dice:
    """Draws fates. Every job takes the same number of draws, so that a change of one rate leaves the others' fates."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a seeded play, nothing secret
        self._later = random.Random(f"later {seed}")  # noqa: S311
        self._polls = random.Random(f"polls {seed}")  # noqa: S311

    def cast(self, behaviour: Behaviour) -> Fate:
        points = {fault: self._random.random() for fault in _FAULTS}
        queue, run = (math.exp(self._random.gauss(0, 1) * behaviour.sigma) for _ in range(2))
        points |= {fault: self._later.random() for fault in _LATER_FAULTS}
        times, share = self._later.randint(2, 5), self._later.random()
        hit = [fault for fault in (*_FAULTS, *_LATER_FAULTS) if points[fault] < getattr(behaviour, fault)]
        return Fate(
            submit=next((fault for fault in _SUBMITS if fault in hit), "accept"),
            end="hang" if "hang" in hit else "fail" if "error" in hit else "succeed",
            queue_seconds=behaviour.queue * queue,
            run_seconds=behaviour.median * run,
            loses_webhook="lost_webhook" in hit,
            answer_seconds=behaviour.slow_seconds * (0.5 + share) if "slow" in hit else 0.0,
            callbacks=times if "duplicate" in hit else 1,
            callback_seconds=behaviour.late_seconds * (0.5 + share) if "late" in hit else 0.0,
            is_forged="forged" in hit,
        )

    def stumbles(self, behaviour: Behaviour) -> bool:
        """Whether a poll or a cancel gets no answer that helps. Drawn for each, in the order they come."""
        return self._polls.random() < behaviour.stumble


def bill(behaviour: Behaviour, run_seconds: float) -> int:
    """Nano-dollars for a job that ran so long."""
    per_second = parse_dollars(behaviour.per_second) / NANOS
    return parse_dollars(behaviour.price) + int(per_second * run_seconds * NANOS + 0.5)
