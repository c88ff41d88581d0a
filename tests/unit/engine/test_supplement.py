"""What is told after the end: in whatever order and however often, the best of it remains, and the end stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import JobTimedOut, ModelFailed
from gateway.contract.fact import AttemptEnded, Begun, CancelSent, Fact, Happening, Learned, LedgerEntry, Phase, Source
from gateway.contract.money import Cost, CostBasis, Price
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import Offer
from gateway.engine.cost import cost_of
from gateway.engine.lifecycle import reduce
from tests.unit.engine.world import a_prediction, an_attempt, at, running

PRICES = {
    "by the second": Price(per_second=1_000_000),
    "by the prediction": Price(per_prediction=5_000_000),
    "unknown": Price(),
}
REPORTED = Cost(nanos=4_200_000, basis=CostBasis.REPORTED)
ENDS = {
    Phase.SUCCEEDED: AttemptStatus.SUCCEEDED,
    Phase.FAILED: AttemptStatus.FAILED,
    Phase.CANCELED: AttemptStatus.CANCELED,
}


def tellings(phase: Phase) -> list[Fact]:
    """One end, told ever better: bare, with its time, with more, with what was billed."""
    failure = ModelFailed("out of memory").failure if phase is Phase.FAILED else None
    bare = Fact(phase=phase, handle={"id": "job"}, output="done" if phase is Phase.SUCCEEDED else None, failure=failure)
    timed = replace(bare, metrics={"predict_time": 3.0})
    full = replace(bare, metrics={"predict_time": 3.0, "image_count": 1})
    return [bare, timed, full, replace(full, cost=REPORTED)]


class Play:
    """A prediction with one running attempt that we have asked to stop where it is to end so, and its ledger."""

    def __init__(self, phase: Phase, price: Price) -> None:
        self.offer = Offer(id="o", model="acme/m", provider="p1", name="m", version="f" * 64, price=price)
        self.ledger: list[LedgerEntry] = []
        self.prediction = a_prediction()
        self.now = 1.0
        self.apply(Begun(attempt=an_attempt(1)))
        self.apply(Learned(attempt=1, fact=running(), source=Source.POLL))
        if phase is Phase.CANCELED:
            self.apply(CancelSent(attempt=1, confirmed=False))

    def apply(self, happening: Happening) -> bool:
        self.now += 1.0
        reduction = reduce(self.prediction, happening, at(self.now))
        is_new = reduction.prediction is not self.prediction
        self.prediction = reduction.prediction
        self.ledger += [effect for effect in reduction.effects if isinstance(effect, LedgerEntry)]
        return is_new

    def tell(self, fact: Fact) -> bool:
        cost = cost_of(self.prediction, 1, fact, offer=lambda id: self.offer, now=at(self.now + 1))
        return self.apply(Learned(attempt=1, fact=fact, source=Source.CALLBACK, cost=cost))

    @property
    def attempt(self) -> Attempt:
        return self.prediction.attempts[0]


def end_of(prediction: Prediction) -> tuple[Any, ...]:
    return prediction.status, prediction.output, prediction.error, prediction.completed_at, prediction.metrics


@settings(max_examples=400, deadline=None)
@given(
    phase=st.sampled_from(list(ENDS)),
    price=st.sampled_from(list(PRICES)),
    order=st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
def test_the_best_telling_remains_whatever_the_order_and_the_repeats(
    phase: Phase, price: str, order: list[int]
) -> None:
    facts = tellings(phase)
    best = Play(phase, PRICES[price])
    best.tell(facts[max(order)])
    play = Play(phase, PRICES[price])
    play.tell(facts[order[0]])
    first = end_of(play.prediction), play.attempt.ended_at
    for turn in order[1:]:
        play.tell(facts[turn])
        assert (end_of(play.prediction), play.attempt.ended_at) == first, "the end moved"
    assert play.attempt.status is ENDS[phase]
    if max(order) > 0:  # a bare end is reckoned by our own clock, which ran on
        assert play.attempt.cost == best.attempt.cost
    assert play.attempt.metrics == best.attempt.metrics
    assert play.ledger[-1].state == best.ledger[-1].state
    if play.ledger[-1].state == "settled":
        assert play.ledger[-1].nanos == play.attempt.cost.nanos
    for turn in order:
        assert not play.tell(facts[turn]), "told once more, it changed something"


def test_a_maybe_is_settled_by_what_its_canceled_job_is_said_to_have_cost() -> None:
    play = Play(Phase.CANCELED, PRICES["unknown"])
    play.apply(CancelSent(attempt=1, confirmed=True))
    assert play.ledger[-1].state == "maybe"
    ended_at = play.attempt.ended_at
    assert play.tell(replace(tellings(Phase.CANCELED)[0], cost=REPORTED))
    assert (play.ledger[-1].state, play.ledger[-1].nanos) == ("settled", REPORTED.nanos)
    assert (play.attempt.status, play.attempt.ended_at) == (AttemptStatus.CANCELED, ended_at)


@pytest.mark.parametrize("said", [Phase.FAILED, Phase.CANCELED, Phase.RUNNING, Phase.QUEUED])
def test_another_end_than_the_one_that_is_known_brings_nothing(said: Phase) -> None:
    play = Play(Phase.SUCCEEDED, PRICES["unknown"])
    play.tell(tellings(Phase.SUCCEEDED)[0])
    fact = Fact(phase=said, handle={"id": "job"}, metrics={"predict_time": 9.0}, cost=REPORTED)
    assert not play.tell(fact)
    assert play.prediction.status is Status.SUCCEEDED
    assert play.attempt.cost.nanos is None


def test_an_end_told_again_an_hour_later_is_not_reckoned_by_that_hour() -> None:
    play = Play(Phase.SUCCEEDED, PRICES["by the second"])
    play.tell(tellings(Phase.SUCCEEDED)[0])
    before = play.attempt.cost
    play.now += 3_600
    assert not play.tell(tellings(Phase.SUCCEEDED)[0])
    assert play.attempt.cost == before


def test_what_was_given_up_is_settled_once_and_then_told_better() -> None:
    play = Play(Phase.SUCCEEDED, PRICES["unknown"])
    play.apply(AttemptEnded(attempt=1, failure=JobTimedOut().failure))
    assert play.attempt.status.value == "abandoned"
    play.tell(tellings(Phase.FAILED)[0])
    assert play.attempt.status.value == "failed"
    assert play.tell(tellings(Phase.FAILED)[3])
    assert (play.ledger[-1].state, play.ledger[-1].nanos, play.ledger[-1].corrects_nanos) == (
        "settled", REPORTED.nanos, None,
    )  # fmt: skip
