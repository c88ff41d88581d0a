"""What stays of a prediction after its time of keeping, and that nothing brings the rest back."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.body import prediction_bytes
from gateway.contract.errors import JobTimedOut, ModelFailed
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    DataRemoved,
    Fact,
    GivenUp,
    Happening,
    Learned,
    LedgerEntry,
    Phase,
    Planned,
    Source,
)
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import Plan
from gateway.engine.lifecycle import is_open, reduce
from tests.unit.engine.world import a_prediction, an_attempt, at, succeeded

SECRET = "a private thing"
HANDLE = {"id": "job", "status_url": f"https://queue.example/status?of={SECRET}"}
PLAN = Plan(policy="balanced", choices=(), max_attempts=4, pay_twice_up_to_nanos=0)


def play(*happenings: Happening) -> Prediction:
    prediction = a_prediction(webhook=f"https://hooks.example/?token={SECRET}")
    prediction = replace(
        prediction, request=replace(prediction.request, input={"prompt": SECRET}, fingerprint="f" * 64)
    )
    for step, happening in enumerate(happenings, 1):
        prediction = reduce(prediction, happening, at(step)).prediction
    return prediction


def learned(number: int, fact: Fact) -> Learned:
    return Learned(attempt=number, fact=fact, source=Source.CALLBACK, cost=fact.cost)


def finished() -> Prediction:
    return play(
        Planned(plan=PLAN),
        Begun(attempt=an_attempt(1)),
        learned(1, Fact(phase=Phase.FAILED, handle=HANDLE, logs=SECRET, failure=ModelFailed("out of memory").failure)),
        Begun(attempt=an_attempt(2)),
        learned(2, Fact(phase=Phase.RUNNING, handle=HANDLE, output=[SECRET], logs=SECRET)),
        learned(2, succeeded([SECRET, "and more"], logs=SECRET, cost=Cost(nanos=7, basis=CostBasis.REPORTED))),
    )


def test_data_goes_and_what_happened_stays() -> None:
    before = finished()
    reduction = reduce(before, DataRemoved(), at(99))
    after = reduction.prediction
    assert SECRET not in msgspec.json.encode(after).decode()
    assert after.data_removed
    assert not reduction.is_open
    assert reduction.effects == ()
    kept = ("id", "status", "error", "created_at", "completed_at", "metrics", "plan", "winner", "events", "deliveries")
    assert all(getattr(after, name) == getattr(before, name) for name in kept)
    assert [(a.status, a.cost, a.handle) for a in after.attempts] == [
        (a.status, a.cost, {"id": "job"}) for a in before.attempts
    ]


def test_it_is_shown_as_replicate_shows_it() -> None:
    body = msgspec.json.decode(prediction_bytes(reduce(finished(), DataRemoved(), at(99)).prediction, public_url="x"))
    assert body["data_removed"] is True
    assert (body["input"], body["output"], body["logs"]) == ({}, None, "")
    assert body["status"] == "succeeded"
    assert "webhook" not in body
    assert body["routing"]["cost"]["at_least"] == "0.000000007"


def test_the_error_stays() -> None:
    failed = play(GivenUp(failure=ModelFailed("out of memory").failure))
    after = reduce(failed, DataRemoved(), at(99)).prediction
    assert (after.status, after.error) == (Status.FAILED, "out of memory")


@pytest.mark.parametrize(
    "happenings",
    [
        [],
        [Begun(attempt=an_attempt(1))],
        [Begun(attempt=an_attempt(1)), GivenUp(failure=ModelFailed().failure)],
    ],
    ids=["not begun", "under way", "ended, and an attempt is still to be stopped"],
)
def test_nothing_is_removed_while_somebody_works_on_it(happenings: list[Happening]) -> None:
    prediction = play(*happenings)
    assert is_open(prediction)
    assert reduce(prediction, DataRemoved(), at(99)).prediction is prediction


def test_once_is_enough() -> None:
    removed = reduce(finished(), DataRemoved(), at(99)).prediction
    assert reduce(removed, DataRemoved(), at(100)).prediction is removed


def test_what_is_learned_later_brings_money_and_no_data() -> None:
    given_up = play(
        Begun(attempt=an_attempt(1)),
        AttemptEnded(attempt=1, failure=JobTimedOut().failure),
        GivenUp(failure=ModelFailed("no").failure),
    )
    removed = reduce(given_up, DataRemoved(), at(99)).prediction
    fact = Fact(
        phase=Phase.SUCCEEDED,
        handle=HANDLE,
        output=[SECRET],
        logs=SECRET,
        cost=Cost(nanos=5, basis=CostBasis.REPORTED),
    )
    reduction = reduce(removed, learned(1, fact), at(200))
    assert reduction.prediction.attempts[0].status is AttemptStatus.SUCCEEDED
    assert [e.nanos for e in reduction.effects if isinstance(e, LedgerEntry)] == [5]
    assert SECRET not in msgspec.json.encode(reduction.prediction).decode()
