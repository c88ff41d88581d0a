"""
Quantile sketches of durations that forget: log histograms with forward decay, and mixtures of them. They read no clock.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: ICDE 2009) lets weights grow with time in place of making old ones
smaller: adding is one operation, nothing is ever swept, and two sketches merge by adding their bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gateway.contract.route import SHARES

GROWTH = 1.06  # of one bin over the one before: values are known within three per cent
LEAST_SECONDS = 0.001
MOST_SECONDS = 86_400.0

_LOG_GROWTH = math.log(GROWTH)
_LEAST_LOG = math.log(LEAST_SECONDS)
_MOST_BINS = int((math.log(MOST_SECONDS) - _LEAST_LOG) / _LOG_GROWTH)
# Weights are counted anew from the present before they leave what a float holds.
_MOST_HALF_LIVES = 200.0

Bins = dict[int, float]


def bin_of(seconds: float) -> int:
    if seconds <= LEAST_SECONDS:
        return 0
    return min(int((math.log(seconds) - _LEAST_LOG) / _LOG_GROWTH), _MOST_BINS)


def seconds_of(position: float) -> float:
    """A bin begins at its number and ends at the next."""
    return LEAST_SECONDS * math.exp(_LOG_GROWTH * position)


class Sketch:
    """Durations in seconds, the older the less they weigh. Times are the monotonic clock's, in any order."""

    __slots__ = ("_bins", "_half_life", "_landmark", "_sum", "_total")

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life = half_life_seconds
        self._landmark = 0.0
        self._bins: Bins = {}
        self._total = self._sum = 0.0

    def add(self, seconds: float, *, at: float) -> None:
        age = (at - self._landmark) / self._half_life
        if age > _MOST_HALF_LIVES:
            self._move(at)
            age = 0.0
        weight = 2.0**age
        number = bin_of(seconds)
        self._bins[number] = self._bins.get(number, 0.0) + weight
        self._total += weight
        self._sum += weight * seconds

    def _move(self, landmark: float) -> None:
        scale = 2.0 ** ((self._landmark - landmark) / self._half_life)
        kept = {number: weight * scale for number, weight in self._bins.items()}
        self._bins = {number: weight for number, weight in kept.items() if weight > 1e-12}
        self._total = sum(self._bins.values())
        self._sum *= scale
        self._landmark = landmark

    def weight(self, now: float) -> float:
        """How many durations it amounts to: a fresh one counts 1, one that is a half-life old a half."""
        return self._total * math.exp2(min((self._landmark - now) / self._half_life, _MOST_HALF_LIVES))

    @property
    def mean(self) -> float | None:
        """Exact, as a bill wants it."""
        return self._sum / self._total if self._total > 0 else None

    @property
    def bins(self) -> Bins:
        """Only their proportion to each other means anything. Not to be changed."""
        return self._bins


def mixture(parts: Iterable[tuple[Bins, float]]) -> Bins:
    """Distributions laid over each other, each with the weight it shall have in all."""
    mixed: Bins = {}
    for bins, weight in parts:
        total = sum(bins.values())
        if total <= 0 or weight <= 0:
            continue
        scale = weight / total
        for number, part in bins.items():
            mixed[number] = mixed.get(number, 0.0) + part * scale
    return mixed


def widened(bins: Bins, factor: float) -> Bins:
    """The same with less certainty: a third of it `factor` times as fast, a third so much slower."""
    shift = round(math.log(factor) / _LOG_GROWTH)
    spread: Bins = {}
    for number, weight in bins.items():
        for place in (number - shift, number, number + shift):
            place = min(max(place, 0), _MOST_BINS)
            spread[place] = spread.get(place, 0.0) + weight / 3
    return spread


def with_overdue(bins: Bins, total: float, ages: Sequence[float]) -> Bins:
    """
    With those that are still under way: each is known to take longer than its age.

    `bins` weigh `total` in all. Each age's weight of 1 goes to what is slower, in proportion, as Efron's redistribution
    to the right has it; where nothing is slower, to twice its age.
    """
    if not ages:
        return bins
    scale = total / sum(bins.values()) if bins else 0.0
    after = {number: weight * scale for number, weight in bins.items()}
    for age in sorted(ages):
        number = bin_of(age)
        slower = {place: weight for place, weight in after.items() if place > number}
        whole = sum(slower.values())
        if whole <= 0:
            place = bin_of(2 * age)
            after[place] = after.get(place, 0.0) + 1.0
            continue
        for place, weight in slower.items():
            after[place] += weight / whole
    return after


def quantiles(bins: Bins, shares: Sequence[float]) -> list[float] | None:
    """The seconds below which each of `shares` (ascending, from (0, 1)) lies; None of an empty distribution."""
    total = sum(bins.values())
    if total <= 0:
        return None
    found: list[float] = []
    below = 0.0
    wanted = iter(shares)
    share = next(wanted, None)
    for number in sorted(bins):
        weight = bins[number]
        while share is not None and below + weight >= share * total * (1 - 1e-12):
            inside = min(max((share * total - below) / weight, 0.0), 1.0) if weight > 0 else 1.0
            found.append(seconds_of(number + inside))
            share = next(wanted, None)
        below += weight
    while share is not None:  # sums of floats miss their mark
        found.append(seconds_of(max(bins) + 1))
        share = next(wanted, None)
    return found


def spread(bins: Bins) -> tuple[float, ...]:
    """The distribution at `contract.route.SHARES`; empty of an empty one."""
    return tuple(quantiles(bins, SHARES) or ())


def mean(bins: Bins) -> float | None:
    total = sum(bins.values())
    return sum(weight * seconds_of(number + 0.5) for number, weight in bins.items()) / total if total > 0 else None
