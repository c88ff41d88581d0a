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

Submit = Literal["accept", "refuse", "throttle", "cut", "cut_before", "garbage"]
End = Literal["succeed", "fail", "hang"]

_SUBMITS: tuple[Submit, ...] = ("cut_before", "refuse", "throttle", "cut", "garbage")  # who is hit twice gets the first
_FAULTS = (*_SUBMITS, "hang", "error", "lost_webhook")


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
    lost_webhook: Rate = 0.0  # the callback is never sent
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


class Dice:
    """Draws fates. Every job takes the same number of draws, so that a change of one rate leaves the others' fates."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a seeded play, nothing secret

    def cast(self, behaviour: Behaviour) -> Fate:
        points = {fault: self._random.random() for fault in _FAULTS}
        queue, run = (math.exp(self._random.gauss(0, 1) * behaviour.sigma) for _ in range(2))
        hit = [fault for fault in _FAULTS if points[fault] < getattr(behaviour, fault)]
        return Fate(
            submit=next((fault for fault in _SUBMITS if fault in hit), "accept"),
            end="hang" if "hang" in hit else "fail" if "error" in hit else "succeed",
            queue_seconds=behaviour.queue * queue,
            run_seconds=behaviour.median * run,
            loses_webhook="lost_webhook" in hit,
        )


def bill(behaviour: Behaviour, run_seconds: float) -> int:
    """Nano-dollars for a job that ran so long."""
    per_second = parse_dollars(behaviour.per_second) / NANOS
    return parse_dollars(behaviour.price) + int(per_second * run_seconds * NANOS + 0.5)
