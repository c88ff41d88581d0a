"""What a candidate is expected to cost and to take, failures and what they waste included. Orders nothing."""

from __future__ import annotations

import bisect
import itertools
import math

from gateway.contract.route import SHARES, Candidate, Signals

LEAST_SUCCESS = 0.02  # what never succeeds is not infinitely dear: it must remain comparable
QUANTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# What each of SHARES stands for in a mean: the durations that are nearer to it than to its neighbours.
_EDGES = (0.0, *((low + high) / 2 for low, high in itertools.pairwise(SHARES)), 1.0)
_WEIGHTS = tuple(high - low for low, high in itertools.pairwise(_EDGES))
OPTIMIST_SUCCESS = 0.95
MOST_FAILURE = 2.0  # times what is usual: longer ones are what `success` is for


def seconds(signals: Signals, quantile: str) -> float | None:
    """Until a result, by those of the offer's attempts that brought one; None: no data."""
    spread = signals.seconds
    if not spread:
        return signals.total_p95 if quantile == "p95" else signals.total_p50
    if quantile == "mean":
        return sum(weight * value for weight, value in zip(_WEIGHTS, spread, strict=True))
    return at_share(spread, QUANTILES[quantile])


def seconds_per_success(signals: Signals, quantile: str) -> float | None:
    """
    Until a result if the offer were tried again and again: time of failures included.

    Ordering by it is what brings the first success soonest (the index of Gittins for one-shot trials).
    """
    good = seconds(signals, quantile)
    if good is None:
        return None
    return _per_success(signals.success, good, _until_failure(signals, good))


def nanos_per_success(candidate: Candidate) -> float:
    """Nano-dollars for one result: what successes are really billed, and what failures waste. inf: unknown."""
    nanos, signals = candidate.expected_nanos, candidate.signals
    if nanos is None:
        return math.inf
    return _per_success(signals.success, nanos * signals.bill, nanos * signals.failure_bill)


def at_best_nanos(candidate: Candidate) -> float:
    """`nanos_per_success`, had everything that was learned long ago turned to the better."""
    nanos = candidate.expected_nanos
    return math.inf if nanos is None else nanos * min(candidate.signals.bill, 1.0)


def at_best_seconds(signals: Signals) -> float | None:
    """`seconds_per_success`, likewise."""
    return None if signals.hoped_seconds is None else signals.hoped_seconds / OPTIMIST_SUCCESS


def tries(success: float | None) -> float:
    """Attempts that a result takes."""
    return 1.0 if success is None else 1.0 / max(success, LEAST_SUCCESS)


def _per_success(success: float | None, good: float, bad: float) -> float:
    if success is None:
        return good
    likely = max(success, LEAST_SUCCESS)
    return good + (1 - likely) / likely * bad


def _until_failure(signals: Signals, usual: float) -> float:
    """
    Where no failure was seen it is known as late as a result would be.

    A single timeout may have taken a thousand times as long, and shall not weigh as if every failure did.
    """
    seen = signals.failure_seconds
    return usual if seen is None else min(seen, usual * MOST_FAILURE)


def at_share(spread: tuple[float, ...], share: float) -> float:
    """The duration below which `share` of a distribution lies."""
    place = min(max(bisect.bisect_left(SHARES, share), 1), len(SHARES) - 1)
    low, high = SHARES[place - 1], SHARES[place]
    part = (share - low) / (high - low)
    return max(spread[place - 1] + (spread[place] - spread[place - 1]) * part, 0.0)


def share_within(spread: tuple[float, ...], seconds: float) -> float:
    """The share of a distribution that is done after so long. What no duration has reached yet is not promised."""
    if seconds < spread[0]:
        return SHARES[0] * max(seconds, 0.0) / spread[0] if spread[0] > 0 else 0.0
    place = bisect.bisect_right(spread, seconds)
    if place == len(spread):
        return SHARES[-1] + (1 - SHARES[-1]) * min(seconds / spread[-1] - 1, 1.0) if spread[-1] > 0 else 1.0
    low, high = spread[place - 1], spread[place]
    part = (seconds - low) / (high - low) if high > low else 1.0
    return SHARES[place - 1] + (SHARES[place] - SHARES[place - 1]) * part
