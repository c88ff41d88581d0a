"""What a provider tells of an attempt after its end, reduced: money and metrics. Pure; never the end itself."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import ResultLost
from gateway.contract.fact import Effect, Fact, Learned, Phase
from gateway.contract.money import UNKNOWN_COST, Cost, CostBasis
from gateway.contract.prediction import Prediction
from gateway.engine.end import Change, with_attempt
from gateway.engine.settlement import settlement

_RANKS = {CostBasis.UNKNOWN: 0, CostBasis.COMPUTED: 1, CostBasis.REPORTED: 2}


def supplement(prediction: Prediction, attempt: Attempt, happening: Learned) -> Change:
    """
    The same end once more, told better: a cost that was unknown, or only reckoned, and metrics that were missing.

    In whatever order the tellings come, and however often, the best of them remains.
    """
    fact = happening.fact
    if not _is_same_end(attempt, fact):
        return prediction, ()
    missing = {name: value for name, value in fact.metrics.items() if name not in attempt.metrics}
    cost = happening.cost or fact.cost or UNKNOWN_COST
    is_better = _is_better(cost, attempt, fact, has_more=bool(missing))
    if not missing and not is_better:
        return prediction, ()
    told = replace(
        attempt,
        running_at=attempt.running_at or fact.started_at,  # what was stopped unseen may have run
        metrics=attempt.metrics | missing,
        cost=cost if is_better else attempt.cost,
    )
    effects: tuple[Effect, ...] = ()
    if is_better:
        entry = settlement(replace(told, status=_settled_as(told)))
        effects = (replace(entry, corrects_nanos=attempt.cost.nanos),)
    return with_attempt(prediction, told), effects


def _is_same_end(attempt: Attempt, fact: Fact) -> bool:
    match fact.phase:
        case Phase.SUCCEEDED:
            is_lost = attempt.failure is not None and attempt.failure.code == ResultLost.code
            return attempt.status in (AttemptStatus.SUCCEEDED, AttemptStatus.COLLECTING) or is_lost
        case Phase.FAILED:
            return attempt.status is AttemptStatus.FAILED
        case Phase.CANCELED:
            return attempt.status is AttemptStatus.CANCELED
    return False


def _is_better(cost: Cost, attempt: Attempt, fact: Fact, *, has_more: bool) -> bool:
    if cost.nanos is None:
        return False
    known = attempt.cost
    if known.nanos is None:
        return True
    if _RANKS[cost.basis] != _RANKS[known.basis]:
        return _RANKS[cost.basis] > _RANKS[known.basis]
    # Reckoned from all that was known, and more.
    return cost.basis is CostBasis.COMPUTED and has_more and attempt.metrics.keys() <= fact.metrics.keys()


def _settled_as(attempt: Attempt) -> AttemptStatus:
    """A job that succeeded is paid, whether its files could be had or not."""
    return AttemptStatus.SUCCEEDED if attempt.status is AttemptStatus.COLLECTING else attempt.status
