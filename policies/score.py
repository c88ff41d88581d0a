"""How good each candidate is by the measure of a policy: lower is better, inf is unknown. Orders nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from gateway.contract.money import NANOS
from gateway.contract.reason import Value
from gateway.contract.route import NO_SIGNALS, BreakerState, Candidate, Signals
from policies.document import Policy, Rank
from policies.expect import (
    OPTIMIST_SUCCESS,
    at_best_nanos,
    at_best_seconds,
    nanos_per_success,
    seconds,
    seconds_per_success,
    tries,
)
from policies.view import View

# An offer without data stands at the unlucky end of a wide prior: it is explored, but first only by its merits.
LATENCY_PRIOR = 1.5  # x the median of its siblings
SUCCESS_PRIOR = 0.9  # x the median of its siblings
# Holding all that is in flight makes an offer count as so much slower: measured latency lags behind a rush.
LOAD = 0.25
LOAD_DAMPING = 10  # attempts in flight, below which load says little

FEW_SAMPLES = 5
MAX_EXPLORING = 2  # attempts in flight on an offer without data
LUCKY = 0.5  # what a time that was seen only once or twice may come to
STALE_SECONDS = 5.0  # without a word of an offer: it may have mended


def scores(policy: Policy, views: Sequence[View]) -> list[float]:
    return _SCORES[policy.rank.by](policy, views)


def cost(policy: Policy, views: Sequence[View]) -> list[float]:
    """Dollars to a result."""
    return [view.measured("cost", _dollars) for view in views]


def latency(policy: Policy, views: Sequence[View]) -> list[float]:
    """Seconds to a result, somewhat more for what is loaded most."""
    found = [view.measured("latency", _seconds) for view in views]
    if math.inf in found:
        known = [value for value in found if value != math.inf]
        prior = statistics.median(known) * LATENCY_PRIOR if known else 1.0
        found = [prior if value == math.inf else value for value in found]
    loads = [view.candidate.signals.in_flight for view in views]
    whole = sum(loads)
    if not whole:
        return found
    share = LOAD / (whole + LOAD_DAMPING)
    return [value * (1 + share * load) for value, load in zip(found, loads, strict=True)]


def _health(policy: Policy, views: Sequence[View]) -> list[float]:
    """Tries that a result takes: 1 is perfect. What is being probed is not trusted yet."""
    shares = [view.candidate.signals.success for view in views]
    known = [share for share in shares if share is not None]
    prior = tries(statistics.median(known) * SUCCESS_PRIOR) if known and len(known) < len(shares) else 1.0
    return [
        (prior if share is None else tries(share))
        + (1.0 if view.candidate.signals.breaker is BreakerState.PROBING else 0.0)
        for share, view in zip(shares, views, strict=True)
    ]


def _blend(policy: Policy, views: Sequence[View]) -> list[float]:
    """The weighted mean of cost, latency and health, each as a share of the worst candidate's."""
    weights = policy.rank.weights
    whole = weights.cost + weights.latency + weights.health
    mixed = [0.0] * len(views)
    for weight, measure in ((weights.cost, cost), (weights.latency, latency), (weights.health, _health)):
        if weight > 0:
            found = measure(policy, views)
            worst = max((score for score in found if score != math.inf), default=0.0)
            part = weight / whole
            # Unknown is as bad as the worst.
            mixed = [
                had + part * (1.0 if score == math.inf else score / worst if worst > 0 else 0.0)
                for had, score in zip(mixed, found, strict=True)
            ]
    return mixed


def _ordered(policy: Policy, views: Sequence[View]) -> list[float]:
    places = {provider: float(place) for place, provider in enumerate(policy.rank.order, 1)}
    return [places.get(view.candidate.offer.provider, len(places) + 1.0) for view in views]


_SCORES: dict[str, Callable[[Policy, Sequence[View]], list[float]]] = {
    "cost": cost,
    "latency": latency,
    "health": _health,
    "blend": _blend,
    "ordered": _ordered,
}


def shown(rank: Rank, candidate: Candidate, score: float) -> tuple[Value, Value]:
    """What a candidate has to show for its place, in the measure that the policy ranks by: for a `Reason`."""
    if rank.by in ("cost", "goal"):
        return "cost", candidate.expected_nanos
    if rank.by == "latency":
        return rank.quantile, seconds(candidate.signals, rank.quantile)
    if rank.by == "health":
        return "success", candidate.signals.success
    return ("score" if rank.by == "blend" else "place"), score


def hope(view: View) -> float:
    """
    The score it may have, had all that is known against it passed by or been bad luck; inf: a try would teach nothing.

    Of one that nobody knows, anything: -inf.
    """
    if view.hope != view.hope:  # not a number: not reckoned yet
        view.hope = _hope(view.candidate, view.policy.rank.by)
    return view.hope


def _hope(candidate: Candidate, by: str) -> float:
    signals = candidate.signals
    if signals.in_flight >= MAX_EXPLORING:
        return math.inf
    if signals.breaker is BreakerState.PROBING:
        return -math.inf  # nothing else would bring it back
    is_known = signals.samples + signals.in_flight >= FEW_SAMPLES
    if by == "cost" and candidate.expected_nanos is None:
        return -math.inf if candidate.offer.price.is_known and not is_known else math.inf
    if is_known and (signals.in_flight or (signals.unheard_seconds or 0.0) < STALE_SECONDS):
        return math.inf
    if by in ("cost", "goal") and signals.seconds:
        # A price is known without a try; only how it is really billed, and how often it fails, may have changed.
        return at_best_nanos(candidate) / NANOS
    if by == "latency" and signals.seconds:
        hoped = at_best_seconds(signals)
        return math.inf if hoped is None else hoped * (1.0 if is_known else LUCKY)
    if is_known:
        # Of a known one only what is held against it may have passed by: a steady one that is dear stays dear.
        return -math.inf if by != "cost" and _is_blemished(signals) else math.inf
    return math.inf if by == "cost" else -math.inf


def _is_blemished(signals: Signals) -> bool:
    return signals.success is not None and signals.success < OPTIMIST_SUCCESS


def is_stranger(candidate: Candidate) -> bool:
    return candidate.signals == NO_SIGNALS


def _dollars(candidate: Candidate, policy: Policy) -> float:
    return nanos_per_success(candidate) / NANOS


def _seconds(candidate: Candidate, policy: Policy) -> float:
    found = seconds_per_success(candidate.signals, policy.rank.quantile)
    return math.inf if found is None else found
