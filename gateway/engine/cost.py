"""What an attempt cost, once it has ended: what the provider reports in money, else price x units, else unknown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gateway.contract.attempt import AttemptStatus
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import UNKNOWN_COST, Cost, CostBasis, Price
from gateway.contract.prediction import Prediction
from gateway.contract.route import Offer
from gateway.routing.unit import measured_units, price_for


def settle(price: Price, fact: Fact, *, input: dict[str, Any], run_seconds: float | None) -> Cost:
    """
    The cost of a job that has ended.

    `run_seconds` is our own measure, used where the provider does not tell its own. A job that failed or was
    canceled is charged only what runs by the second: providers bill machines, not missing results.
    """
    if fact.cost is not None:
        return fact.cost
    if not price.is_known:
        return UNKNOWN_COST
    holding = price_for(price, input)
    if fact.phase is Phase.SUCCEEDED:
        nanos = holding.of(measured_units(fact.metrics, run_seconds, input=input))
    elif "seconds" in (holding if holding.is_known else price).units:
        nanos = Price(per_second=holding.per_second).of(measured_units(fact.metrics, run_seconds))
    else:
        nanos = 0
    return Cost(nanos=nanos, basis=CostBasis.COMPUTED if nanos is not None else CostBasis.UNKNOWN)


def cost_of(
    prediction: Prediction, number: int, fact: Fact, *, offer: Callable[[str], Offer | None], now: datetime
) -> Cost | None:
    """What attempt `number` cost, if `fact` ends it."""
    if not fact.phase.is_end:
        return None
    attempt = prediction.attempts[number - 1]
    served = offer(attempt.offer)
    if served is None:
        return fact.cost
    began = fact.started_at or attempt.running_at
    if fact.phase is Phase.CANCELED and began is None:
        # Stopped in the queue, for all that anybody has told: nothing ran.
        return settle(served.price, fact, input=prediction.request.input, run_seconds=0.0)
    start = began or attempt.begun_at
    # An end that is told once more does not make the job any longer; one that we gave up ran on.
    known = attempt.ended_at if attempt.status is not AttemptStatus.ABANDONED else None
    end = fact.completed_at if fact.completed_at is not None and fact.started_at is not None else known or now
    run_seconds = max(0.0, (end - start).total_seconds())
    return settle(served.price, fact, input=prediction.request.input, run_seconds=run_seconds)
