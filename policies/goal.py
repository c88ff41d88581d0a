"""
The cheapest plan that succeeds in time with a stated probability, over the candidates' distributions. Pure.

A plan is a sequence: whom to try first, how long to wait for him, whom to try then. What failing over takes and costs
is part of what is compared: a cheap offer may come first where a fast one can still save the day.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.contract.route import Candidate
from policies import expect

WORK = 600  # sequences that are reckoned out at each length
WIDTH = 10  # … of which so many, at least, are followed up
MOST_STEPS = 4
GRID = 32  # parts of the time, by which it is looked ahead
# Shares of what is usual, at which one may stop waiting for an offer and try the next.
PATIENCE = (0.9, 0.98)
MOST_BRANCHES = 3  # ways in which the time so far may have gone, that are told apart
STOPPED_BILL = 0.5  # of the price, at least, for what is stopped on the way
NO_DATA_SUCCESS = 0.9
NEAR = 0.05  # so much dearer is as good


class Solve(Protocol):
    """`aims`, or who remembers what it came to."""

    def __call__(
        self, candidates: Sequence[Candidate], *, success: float, within_seconds: float, attempts: int
    ) -> list[Aim]: ...


class Step(NamedTuple):
    candidate: int  # place among the candidates
    until_seconds: float | None  # how long it is waited for; None: to the end


class Aim(NamedTuple):
    """A sequence, and what is to be expected of it."""

    steps: tuple[Step, ...]
    success: float  # probability of a result in time
    nanos: float  # in the mean of all predictions, with and without a result
    is_met: bool

    @property
    def per_result(self) -> float:
        """Who fails for nothing is not cheap: somebody else must be paid then."""
        return self.nanos / self.success if self.success > 0 else math.inf


class _Trial(NamedTuple):
    """One candidate, as a sequence sees it."""

    spread: tuple[float, ...]
    success: float
    failure_seconds: float
    nanos: float
    failure_nanos: float
    stopped_nanos: float
    may_stop: bool  # its provider can be asked to


class _Branch(NamedTuple):
    """With this probability nothing has come of it so far, and so much time is gone."""

    mass: float
    seconds: float


class _Path(NamedTuple):
    steps: tuple[Step, ...]
    branches: tuple[_Branch, ...]
    done: float
    nanos: float


def aims(candidates: Sequence[Candidate], *, success: float, within_seconds: float, attempts: int) -> list[Aim]:
    """
    The cheapest sequence of at most `attempts` that succeeds `within_seconds` with probability `success`.

    After it stand those that begin with somebody else and are as good by NEAR. If none meets the goal, the most
    probable one, alone: `is_met` says which. Empty where nothing is known of anybody's time. An unknown price counts as
    the dearest known one.
    """
    trials = _trials(candidates)
    if trials is None:
        return []
    chances = _chances(trials, within_seconds)
    paths = [_Path((), (_Branch(1.0, 0.0),), 0.0, 0.0)]
    found: list[_Path] = []
    for _ in range(min(attempts, MOST_STEPS, len(trials))):
        longer = [after for path in paths for after in _continued(path, trials, within_seconds)]
        found += [path for path in longer if path.steps[-1].until_seconds is None]  # for whom would the last be left?
        paths = _front(longer, chances, within_seconds, width=max(WIDTH, WORK // (3 * len(trials))))
    known = [Aim(path.steps, path.done, path.nanos, path.done >= success) for path in found]
    met = sorted((one for one in known if one.is_met), key=lambda one: (one.per_result, -one.success))
    if not met:
        return [max(known, key=lambda one: (round(one.success, 4), -one.nanos))]
    firsts: dict[int, Aim] = {}
    for one in met:
        if one.per_result > met[0].per_result * (1 + NEAR):
            break
        firsts.setdefault(one.steps[0].candidate, one)
    return list(firsts.values())


def _trials(candidates: Sequence[Candidate]) -> list[_Trial] | None:
    spreads = [candidate.signals.seconds for candidate in candidates if candidate.signals.seconds]
    if not spreads:
        return None
    # Nobody knows how fast a stranger is: between the others and the slowest of them, at each share.
    stranger = tuple((max(column) + statistics.fmean(column)) / 2 for column in zip(*spreads, strict=True))
    known = [c.expected_nanos for c in candidates if c.expected_nanos is not None]
    dearest = max(known, default=0)
    return [_trial(candidate, stranger, dearest) for candidate in candidates]


def _trial(candidate: Candidate, stranger: tuple[float, ...], dearest: int) -> _Trial:
    signals = candidate.signals
    spread = signals.seconds or stranger
    nanos = float(dearest if candidate.expected_nanos is None else candidate.expected_nanos)
    success = signals.success if signals.success is not None else NO_DATA_SUCCESS
    usual = expect.at_share(spread, 0.5)
    return _Trial(
        spread=spread,
        success=success,
        failure_seconds=signals.failure_seconds if signals.failure_seconds is not None else usual,
        nanos=nanos * signals.bill,
        failure_nanos=nanos * signals.failure_bill,
        stopped_nanos=nanos * max(signals.failure_bill, STOPPED_BILL),
        may_stop="stop" in candidate.offer.capabilities,
    )


def _continued(path: _Path, trials: Sequence[_Trial], within: float) -> list[_Path]:
    tried = {step.candidate for step in path.steps}
    longer: list[_Path] = []
    for place, trial in enumerate(trials):
        if place in tried:
            continue
        longer.append(_after(path, place, trial, within, None))
        if trial.may_stop and len(tried) + 1 < len(trials):
            longer += [_after(path, place, trial, within, expect.at_share(trial.spread, share)) for share in PATIENCE]
    return longer


def _after(path: _Path, place: int, trial: _Trial, within: float, until: float | None) -> _Path:
    done, nanos = path.done, path.nanos
    branches: list[_Branch] = []
    for mass, passed in path.branches:
        left = within - passed
        if left <= 0:
            branches.append(_Branch(mass, passed))
            continue
        patience = left if until is None else min(until, left)
        in_time = trial.success * expect.share_within(trial.spread, patience)
        failed = (1 - trial.success) * mass
        late = (trial.success - in_time) * mass
        done += mass * in_time
        nanos += mass * in_time * trial.nanos + failed * trial.failure_nanos
        nanos += late * (trial.nanos if until is None else trial.stopped_nanos)
        branches.append(_Branch(failed, passed + min(trial.failure_seconds, patience)))
        branches.append(_Branch(late, passed + patience))
    return _Path((*path.steps, Step(place, until)), _merged(branches), done, nanos)


def _merged(branches: list[_Branch]) -> tuple[_Branch, ...]:
    """The heaviest as they are, the others as one."""
    branches = [branch for branch in branches if branch.mass > 1e-9]
    if len(branches) <= MOST_BRANCHES:
        return tuple(branches)
    branches.sort(reverse=True)
    rest = branches[MOST_BRANCHES - 1 :]
    mass = sum(branch.mass for branch in rest)
    seconds = sum(branch.mass * branch.seconds for branch in rest) / mass
    return (*branches[: MOST_BRANCHES - 1], _Branch(mass, seconds))


def _chances(trials: Sequence[_Trial], within: float) -> list[float]:
    """What the best single candidate could still make of the time that is left, in GRID steps of it."""
    return [
        max(trial.success * expect.share_within(trial.spread, within * step / GRID) for trial in trials)
        for step in range(GRID + 1)
    ]


def _front(paths: list[_Path], chances: Sequence[float], within: float, *, width: int) -> list[_Path]:
    """Those that no other beats in both price and what may become of it, thinned out evenly."""

    def prospect(path: _Path) -> float:
        left = ((mass, max(within - seconds, 0.0)) for mass, seconds in path.branches)
        return path.done + sum(mass * chances[int(GRID * seconds / within)] for mass, seconds in left)

    front: list[_Path] = []
    best = -1.0
    for found, path in sorted(((prospect(path), path) for path in paths), key=lambda pair: (pair[1].nanos, -pair[0])):
        if found > best + 1e-9:
            front.append(path)
            best = found
    if len(front) <= width:
        return front
    step = (len(front) - 1) / (width - 1)
    return [front[round(number * step)] for number in range(width)]
