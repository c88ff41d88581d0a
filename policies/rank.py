"""In which order the kept offers are tried, and why. Chance is drawn from outside; nothing depends on list order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.contract.money import NANOS, format_dollars
from gateway.contract.route import BreakerState, Candidate, Reason
from policies.document import Rank
from policies.keep import Code

Draw = Callable[[], float]  # from [0, 1)

NEAR = 0.05  # scores so close to the best of them count as equal, and are ordered by draw
FEW_SAMPLES = 5
MAX_EXPLORING = 2  # attempts in flight on an offer without data
# An offer without data stands at the unlucky end of a wide prior: it is explored, but first only by its merits.
LATENCY_PRIOR = 1.5  # x the median of its siblings
SUCCESS_PRIOR = 0.9  # x the median of its siblings
# Holding all that is in flight makes an offer count as so much slower: measured latency lags behind a rush.
LOAD = 0.25
LOAD_DAMPING = 10  # attempts in flight, below which load says little


class Ranked(NamedTuple):
    candidate: Candidate
    score: float | None  # lower is better; None: unknown
    reasons: tuple[Reason, ...]


def order(rank: Rank, candidates: Sequence[Candidate], *, may_explore: bool, draw: Draw) -> list[Ranked]:
    """`candidates`, best first. With `may_explore` an offer without data may come to the front, by draw."""
    if not candidates:
        return []
    scores = _SCORES[rank.by](rank, candidates)
    places, tied = _places(scores, candidates, near=0.0 if rank.by == "ordered" else NEAR, draw=draw)
    explored = _explored(rank, candidates, draw) if may_explore and rank.explore > 0 else None
    ranked = _explain(rank, candidates, scores, places, tied)
    if explored is not None and explored != places[0]:
        at = places.index(explored)
        reason = Reason(code=Code.EXPLORED, text=f"{candidates[explored].signals.samples} samples: tried to learn more")
        first = ranked.pop(at)
        ranked.insert(0, first._replace(reasons=(reason, *first.reasons)))
    return ranked


# -- scores: lower is better, inf is unknown --------------------------------------------------------------------


def _cost(rank: Rank, candidates: Sequence[Candidate]) -> list[float]:
    return [math.inf if c.expected_nanos is None else c.expected_nanos / NANOS for c in candidates]


def _latency(rank: Rank, candidates: Sequence[Candidate]) -> list[float]:
    """Seconds to a result: the measured quantile x the tries it takes, somewhat more for what is loaded most."""
    if rank.quantile == "p95":
        seconds = [c.signals.total_p95 for c in candidates]
    else:
        seconds = [c.signals.total_p50 for c in candidates]
    known = [value for value in seconds if value is not None]
    prior = statistics.median(known) * LATENCY_PRIOR if known else 1.0
    damped = sum(c.signals.in_flight for c in candidates) + LOAD_DAMPING
    return [
        (prior if value is None else value) * _tries(c.signals.success) * (1 + LOAD * c.signals.in_flight / damped)
        for value, c in zip(seconds, candidates, strict=True)
    ]


def _health(rank: Rank, candidates: Sequence[Candidate]) -> list[float]:
    """Tries that a result takes: 1 is perfect. What is being probed is not trusted yet."""
    known = [c.signals.success for c in candidates if c.signals.success is not None]
    prior = statistics.median(known) * SUCCESS_PRIOR if known else 1.0
    return [
        _tries(prior if c.signals.success is None else c.signals.success)
        + (1.0 if c.signals.breaker is BreakerState.PROBING else 0.0)
        for c in candidates
    ]


def _blend(rank: Rank, candidates: Sequence[Candidate]) -> list[float]:
    """The weighted mean of cost, latency and health, each as a share of the worst candidate's."""
    weights = rank.weights
    parts = [
        (weight, _shares(score(rank, candidates)))
        for weight, score in ((weights.cost, _cost), (weights.latency, _latency), (weights.health, _health))
        if weight > 0
    ]
    total = sum(weight for weight, _ in parts)
    if not total:
        return [0.0] * len(candidates)
    return [sum(weight * shares[i] for weight, shares in parts) / total for i in range(len(candidates))]


def _ordered(rank: Rank, candidates: Sequence[Candidate]) -> list[float]:
    places = {provider: float(place) for place, provider in enumerate(rank.order, 1)}
    return [places.get(c.offer.provider, len(places) + 1.0) for c in candidates]


_SCORES: dict[str, Callable[[Rank, Sequence[Candidate]], list[float]]] = {
    "cost": _cost,
    "latency": _latency,
    "health": _health,
    "blend": _blend,
    "ordered": _ordered,
}


def _tries(success: float | None) -> float:
    return 1.0 if success is None else 1.0 / max(success, 0.05)


def _shares(scores: list[float]) -> list[float]:
    """Each as a share of the worst known one; unknown is as bad as the worst."""
    worst = max((score for score in scores if score != math.inf), default=0.0)
    return [1.0 if score == math.inf else score / worst if worst > 0 else 0.0 for score in scores]


# -- places -----------------------------------------------------------------------------------------------------


def _places(
    scores: list[float], candidates: Sequence[Candidate], *, near: float, draw: Draw
) -> tuple[list[int], dict[int, int]]:
    """Indices, best first, and for each that is as good as others how many they are."""
    by_score = sorted(range(len(scores)), key=scores.__getitem__)
    places: list[int] = []
    tied: dict[int, int] = {}
    start = 0
    while start < len(by_score):
        limit = scores[by_score[start]] * (1 + near)
        end = start + 1
        while end < len(by_score) and scores[by_score[end]] <= limit:
            end += 1
        group = by_score[start:end]
        if len(group) > 1:
            group = _shuffled(group, candidates, draw)
            tied.update(dict.fromkeys(group, len(group)))
        places += group
        start = end
    return places, tied


def _shuffled(group: list[int], candidates: Sequence[Candidate], draw: Draw) -> list[int]:
    """Drawn without replacement, with weights 1 / (1 + in flight): a rush spreads, whatever the list says."""
    keys = {i: -math.log1p(-draw()) * (1 + candidates[i].signals.in_flight) for i in group}
    return sorted(group, key=keys.__getitem__)


def _explored(rank: Rank, candidates: Sequence[Candidate], draw: Draw) -> int | None:
    if rank.by == "ordered":
        return None  # ops have said who comes first
    unknown = [i for i, c in enumerate(candidates) if _is_worth_a_try(rank, c)]
    if not unknown or len(unknown) == len(candidates):
        return None  # where nobody has data, draws spread them already
    drawn = draw()
    return unknown[int(drawn / rank.explore * len(unknown))] if drawn < rank.explore else None


def _is_worth_a_try(rank: Rank, candidate: Candidate) -> bool:
    signals = candidate.signals
    if signals.in_flight >= MAX_EXPLORING:
        return False
    if signals.breaker is BreakerState.PROBING:
        return True  # nothing else would bring it back
    if signals.samples + signals.in_flight >= FEW_SAMPLES:
        return False
    # By cost, only one whose cost hangs on what was never measured has anything to teach.
    return rank.by != "cost" or (candidate.expected_nanos is None and candidate.offer.price.is_known)


# -- reasons ----------------------------------------------------------------------------------------------------

_FIRST = {
    "cost": Code.CHEAPEST,
    "latency": Code.FASTEST,
    "health": Code.STEADIEST,
    "blend": Code.BEST,
    "ordered": Code.ORDERED,
}


def _explain(
    rank: Rank, candidates: Sequence[Candidate], scores: list[float], places: list[int], tied: dict[int, int]
) -> list[Ranked]:
    texts = [_said(rank, candidate, score) for candidate, score in zip(candidates, scores, strict=True)]
    ranked: list[Ranked] = []
    for place, i in enumerate(places):
        if place == 0:
            code: str = _FIRST[rank.by]
            text = f"{texts[i]}, next {texts[places[1]]}" if len(places) > 1 else f"{texts[i]}, no other"
        else:
            code, text = Code.NEXT, f"{texts[i]}, behind {candidates[places[place - 1]].offer.provider}"
        reasons: tuple[Reason, ...] = (Reason(code=code, text=text),)
        if i in tied:
            reasons += (Reason(code=Code.TIE, text=f"one of {tied[i]} that are as good, ordered by draw"),)
        ranked.append(Ranked(candidates[i], None if scores[i] == math.inf else scores[i], reasons))
    return ranked


def _said(rank: Rank, candidate: Candidate, score: float) -> str:
    """What the candidate has to show for its place, in the measure that the policy ranks by."""
    signals = candidate.signals
    if rank.by == "cost":
        return f"{format_dollars(candidate.expected_nanos)} expected" if score != math.inf else "cost unknown"
    if rank.by == "latency":
        measured = signals.total_p95 if rank.quantile == "p95" else signals.total_p50
        return "latency unknown" if measured is None else f"{rank.quantile} {measured:.3g} s"
    if rank.by == "health":
        return "success unknown" if signals.success is None else f"{signals.success:.0%} succeed"
    if rank.by == "blend":
        return f"score {score:.3f}"
    return f"place {score:.0f}"
