"""The lifecycle's rules, over random orders of duplicated happenings; and proof that a broken rule is caught."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import ModelFailed, NotSent, OutcomeUnknown, ResultLost
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    CancelRequested,
    CancelSent,
    Collected,
    DeadlinePassed,
    Fact,
    GivenUp,
    Happening,
    Learned,
    LedgerEntry,
    Notify,
    Phase,
    Planned,
    Source,
    StreamEvent,
    SubmitFailed,
)
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import Plan
from gateway.engine.end import with_attempt
from gateway.engine.lifecycle import is_open, reduce
from gateway.store.protocol import Reduction
from tests.unit.engine.world import START, a_prediction, an_attempt, at, queued, running, succeeded

Reducer = Callable[[Prediction, Happening, Any], Reduction]


def play(prediction: Prediction, *happenings: Happening, now: float = 1.0) -> tuple[Prediction, list[Any]]:
    effects: list[Any] = []
    for step, happening in enumerate(happenings):
        reduction = reduce(prediction, happening, at(now + step))
        prediction = reduction.prediction
        effects += reduction.effects
    return prediction, effects


def learned(number: int, fact: Fact, **changes: Any) -> Learned:
    return Learned(attempt=number, fact=fact, source=Source.POLL, **changes)


FAILED = Fact(phase=Phase.FAILED, failure=ModelFailed("CUDA out of memory").failure)
CANCELED = Fact(phase=Phase.CANCELED)
COST = Cost(nanos=500, basis=CostBasis.COMPUTED)


class TestTheHappyPath:
    def test_a_prediction_runs_and_succeeds_with_every_effect_once(self) -> None:
        prediction, effects = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            learned(1, queued()),
            learned(1, running(["a"], "10%")),
            learned(1, running(["a", "b"], "10%20%")),
            learned(1, succeeded(["a", "b", "c"], logs="10%20%30%"), cost=COST),
        )
        assert prediction.status is Status.SUCCEEDED
        assert prediction.output == ["a", "b", "c"]
        assert prediction.logs == "10%20%30%"
        assert not is_open(prediction)
        assert "".join(e.data for e in effects if isinstance(e, StreamEvent) and e.event == "output") == "abc"
        assert "".join(e.data for e in effects if isinstance(e, StreamEvent) and e.event == "logs") == "10%20%30%"
        assert [e.event for e in effects if isinstance(e, StreamEvent)][-1] == "done"
        assert Counter(e.event for e in effects if isinstance(e, Notify))["completed"] == 1
        assert [(e.state, e.nanos) for e in effects if isinstance(e, LedgerEntry)][-1] == ("settled", 500)

    def test_files_are_collected_before_it_succeeds(self) -> None:
        prediction, _ = play(
            a_prediction(file_output=True),
            Begun(attempt=an_attempt(1)),
            learned(1, succeeded("https://provider.example/out.png")),
        )
        assert prediction.status is Status.STARTING
        assert prediction.winner == 1
        prediction, effects = play(prediction, Collected(attempt=1, output="https://ours/out.png"))
        assert prediction.status is Status.SUCCEEDED
        assert prediction.output == "https://ours/out.png"
        assert StreamEvent(event="output", data="https://ours/out.png") in effects

    def test_lost_files_give_the_win_back(self) -> None:
        prediction, _ = play(
            a_prediction(file_output=True),
            Begun(attempt=an_attempt(1)),
            learned(1, succeeded("https://provider.example/out.png")),
            AttemptEnded(attempt=1, failure=ResultLost().failure),
            Begun(attempt=an_attempt(2)),
            learned(2, succeeded("plain text")),
        )
        assert prediction.status is Status.SUCCEEDED
        assert prediction.winner == 2

    def test_the_plan_it_shows_is_the_one_by_which_it_was_first_sent_somewhere(self) -> None:
        waited, sent, moved = (
            Plan(policy=name, choices=(), max_attempts=3, pay_twice_up_to_nanos=0) for name in ("wait", "send", "move")
        )
        prediction, _ = play(a_prediction(), Planned(plan=waited))
        assert prediction.plan == waited
        prediction, _ = play(prediction, Begun(attempt=an_attempt(1), plan=sent))
        assert prediction.plan == sent
        prediction, _ = play(prediction, learned(1, FAILED), Begun(attempt=an_attempt(2), plan=moved))
        assert (prediction.plan, len(prediction.attempts)) == (sent, 2)


class TestRefusals:
    @pytest.mark.parametrize(
        "before",
        [
            [GivenUp(failure=NotSent().failure)],
            [CancelRequested()],
        ],
    )
    def test_no_intent_is_recorded_once_it_ended(self, before: list[Happening]) -> None:
        prediction, _ = play(a_prediction(), *before)
        assert reduce(prediction, Begun(attempt=an_attempt(1)), at(5)).prediction is prediction

    def test_no_intent_is_recorded_after_the_deadline(self) -> None:
        prediction = a_prediction(deadline_at=at(2))
        assert reduce(prediction, Begun(attempt=an_attempt(1)), at(2)).prediction is prediction

    def test_an_intent_is_recorded_once(self) -> None:
        prediction, _ = play(a_prediction(), Begun(attempt=an_attempt(1)))
        assert reduce(prediction, Begun(attempt=an_attempt(1)), at(5)).prediction is prediction

    def test_facts_of_an_attempt_that_was_never_begun_change_nothing(self) -> None:
        prediction = a_prediction()
        assert reduce(prediction, learned(1, succeeded()), at(1)).prediction is prediction


class TestUnknownOutcomes:
    def test_a_callback_before_the_submits_answer_wins_over_its_failure(self) -> None:
        prediction, _ = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            learned(1, queued()),
            SubmitFailed(attempt=1, failure=OutcomeUnknown().failure),
        )
        assert prediction.attempts[0].status is AttemptStatus.ACCEPTED

    @pytest.mark.parametrize("source", list(Source))
    def test_only_the_answer_to_our_own_request_names_the_job_anew(self, source: Source) -> None:
        prediction, _ = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            Learned(attempt=1, fact=queued("another's"), source=Source.CALLBACK),
            Learned(attempt=1, fact=queued("ours"), source=source),
        )
        ours = source in (Source.SUBMIT, Source.STREAM)
        assert prediction.attempts[0].handle == {"id": "ours" if ours else "another's"}

    def test_what_ended_by_another_jobs_end_stays_ended_and_ours_is_stopped(self) -> None:
        prediction, _ = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            Learned(attempt=1, fact=succeeded("another's", handle={"id": "another's"}), source=Source.CALLBACK),
            Learned(attempt=1, fact=queued("ours"), source=Source.SUBMIT),
        )
        attempt = prediction.attempts[0]
        assert (attempt.status, attempt.handle) == (AttemptStatus.SUCCEEDED, {"id": "ours"})
        assert attempt.look_at == at(3)
        assert (prediction.status, prediction.output) == (Status.SUCCEEDED, "another's")
        unheard, _ = play(prediction, CancelSent(attempt=1, confirmed=False))
        assert unheard == prediction
        stopped, effects = play(prediction, CancelSent(attempt=1, confirmed=True))
        assert stopped.attempts[0] == replace(attempt, look_at=None)
        assert (is_open(prediction), is_open(stopped), effects) == (True, False, [])
        assert play(prediction, learned(1, CANCELED))[0] == stopped

    def test_an_unknown_attempt_may_still_succeed(self) -> None:
        prediction, effects = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            SubmitFailed(attempt=1, failure=OutcomeUnknown().failure),
            Begun(attempt=an_attempt(2)),
            learned(1, succeeded("from the first")),
        )
        assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 1)
        states = [e.state for e in effects if isinstance(e, LedgerEntry) and e.attempt == 1]
        assert states == ["reserved", "maybe", "settled"]
        assert is_open(prediction)  # the second attempt is still to be stopped

    def test_an_abandoned_attempt_is_settled_when_its_end_is_learned(self) -> None:
        prediction, effects = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            SubmitFailed(attempt=1, failure=OutcomeUnknown().failure),
            GivenUp(failure=NotSent().failure),
            AttemptEnded(attempt=1, failure=OutcomeUnknown().failure),
            learned(1, succeeded("too late"), cost=COST),
        )
        assert (prediction.status, prediction.output) == (Status.FAILED, None)
        assert prediction.attempts[0].status is AttemptStatus.SUCCEEDED
        assert [e.state for e in effects if isinstance(e, LedgerEntry)][-1] == "settled"


class TestCancelAndDeadline:
    def test_without_attempts_it_is_canceled_at_once(self) -> None:
        prediction, _ = play(a_prediction(), CancelRequested())
        assert prediction.status is Status.CANCELED

    def test_with_an_attempt_under_way_it_waits_for_the_provider(self) -> None:
        prediction, _ = play(a_prediction(), Begun(attempt=an_attempt(1)), learned(1, queued()), CancelRequested())
        assert not prediction.is_terminal
        prediction, effects = play(prediction, CancelSent(attempt=1, confirmed=True))
        assert prediction.status is Status.CANCELED
        # It was queued when we last heard of it; only the provider knows whether it ran since.
        assert [e.state for e in effects if isinstance(e, LedgerEntry)] == ["maybe"]

    def test_a_success_that_lands_first_stays_a_success(self) -> None:
        prediction, _ = play(
            a_prediction(), Begun(attempt=an_attempt(1)), CancelRequested(), learned(1, succeeded("made it"))
        )
        assert (prediction.status, prediction.output) == (Status.SUCCEEDED, "made it")

    def test_an_end_that_comes_after_the_attempt_was_given_up_says_so_in_the_ledger(self) -> None:
        _, effects = play(
            a_prediction(),
            Begun(attempt=an_attempt(1)),
            SubmitFailed(attempt=1, failure=OutcomeUnknown().failure),
            AttemptEnded(attempt=1, failure=OutcomeUnknown().failure),
            learned(1, FAILED, cost=COST),
        )
        ledger = [effect for effect in effects if isinstance(effect, LedgerEntry)]
        assert [one.state for one in ledger] == ["reserved", "maybe", "maybe", "settled"]
        assert [one.given_up_at for one in ledger] == [None, None, None, at(3)]

    @pytest.mark.parametrize(
        ("ran", "cost", "state", "nanos"),
        [
            (False, None, "released", 0),
            (False, COST, "settled", 500),  # it says so itself
            (True, COST, "settled", 500),
            (True, None, "maybe", 7),
        ],
    )
    def test_what_a_canceled_job_cost_is_settled_as_far_as_it_is_told(
        self, ran: bool, cost: Cost | None, state: str, nanos: int
    ) -> None:
        _, effects = play(
            a_prediction(),
            Begun(attempt=replace(an_attempt(1), expected_nanos=7)),
            learned(1, running() if ran else queued()),
            CancelRequested(),
            CancelSent(attempt=1, confirmed=False),
            learned(1, CANCELED, cost=cost),
        )
        entry = [effect for effect in effects if isinstance(effect, LedgerEntry)][-1]
        assert (entry.state, entry.nanos) == (state, nanos)

    def test_a_cancel_after_the_success_is_too_late_even_while_files_are_collected(self) -> None:
        prediction, _ = play(
            a_prediction(file_output=True),
            Begun(attempt=an_attempt(1)),
            learned(1, succeeded("data:image/png;base64,AA==")),
            CancelRequested(),
            Collected(attempt=1, output="https://ours/out.png"),
        )
        assert prediction.status is Status.SUCCEEDED

    def test_the_deadline_speaks_the_callers_words(self) -> None:
        passed = DeadlinePassed()
        waiting = reduce(a_prediction(wants_deadline=True), passed, at(600)).prediction
        assert waiting.status is Status.ABORTED
        started, _ = play(a_prediction(wants_deadline=True), Begun(attempt=an_attempt(1)), learned(1, running()))
        assert reduce(started, passed, at(600)).prediction.status is Status.CANCELED
        unasked = reduce(a_prediction(), passed, at(600)).prediction
        assert unasked.status is Status.FAILED
        assert unasked.failure is not None
        assert unasked.failure.code == "deadline_exceeded"

    def test_a_deadline_that_has_not_come_changes_nothing(self) -> None:
        prediction = a_prediction()
        assert reduce(prediction, DeadlinePassed(), at(599)).prediction is prediction


def test_output_shown_by_a_failed_attempt_is_not_mixed_with_anothers() -> None:
    prediction, effects = play(
        a_prediction(),
        Begun(attempt=an_attempt(1)),
        learned(1, running(["once ", "upon "])),
        learned(1, FAILED),
        Begun(attempt=an_attempt(2)),
        learned(2, running(["it "])),
        learned(2, succeeded(["it ", "was"])),
    )
    assert prediction.output == ["it ", "was"]
    events = [(e.event, e.data) for e in effects if isinstance(e, StreamEvent)]
    assert ("output", "once upon ") in events
    assert ("output", "it was") in events
    assert ("output", "it ") not in events


# -- random orders ----------------------------------------------------------------------------------------------------


def universe(seed: int, reducer: Reducer) -> Prediction:
    """Two attempts, their happenings duplicated and shuffled: every rule is checked after every step."""
    rng = random.Random(seed)
    prediction = a_prediction(file_output=rng.random() < 0.3)
    happenings = [
        *rng.choices([learned(1, f) for f in (queued(), running("a"), running("ab"), succeeded("abc"), FAILED)], k=6),
        *rng.choices([learned(2, f) for f in (queued(), running("x"), succeeded("xyz"), FAILED, CANCELED)], k=6),
        Begun(attempt=an_attempt(2)),
        SubmitFailed(attempt=1, failure=rng.choice([OutcomeUnknown().failure, NotSent().failure])),
        *rng.sample([CancelRequested(), CancelSent(attempt=2, confirmed=True), DeadlinePassed()], k=rng.randint(0, 2)),
        *rng.sample([AttemptEnded(attempt=2, failure=OutcomeUnknown().failure)], k=rng.randint(0, 1)),
    ]
    rng.shuffle(happenings)
    happenings.insert(0, Begun(attempt=an_attempt(1)))
    happenings += [Collected(attempt=1, output="c"), GivenUp(failure=NotSent().failure)]
    completed = 0
    for step, happening in enumerate(happenings):
        before = prediction
        reduction = reducer(before, happening, at(step))
        prediction = reduction.prediction
        completed += sum(isinstance(e, StreamEvent) and e.event == "done" for e in reduction.effects)
        check_step(before, reduction)
        again = reducer(prediction, happening, at(step))
        assert isinstance(happening, CancelSent) or again.prediction is prediction, (
            "a happening twice changed something"
        )
    assert completed == prediction.is_terminal, "a terminal prediction says done exactly once"
    return prediction


def check_step(before: Prediction, reduction: Reduction) -> None:
    after = reduction.prediction
    if after is before:
        assert not reduction.effects, "effects without a change"
    if before.is_terminal:
        for field in ("status", "output", "error", "failure", "completed_at", "winner"):
            assert getattr(after, field) == getattr(before, field), f"terminal, and {field} changed"
    if before.status is Status.PROCESSING:
        assert after.status is not Status.STARTING, "went back to starting"
    for old, new in zip(before.attempts, after.attempts, strict=False):
        if not _came_back(before, old):
            assert new.status.rank >= old.status.rank, "an attempt's rank fell"
        if old.status.is_closed and old.status is not AttemptStatus.ABANDONED:
            assert new == old, "a closed attempt changed"
    if after.status is Status.SUCCEEDED:
        assert after.winner is not None
        assert after.attempts[after.winner - 1].status is AttemptStatus.SUCCEEDED
    if not before.is_terminal and any(a.status is AttemptStatus.SUCCEEDED for a in after.attempts):
        assert after.status is Status.SUCCEEDED, "a success did not finish the prediction"
    closed = {a.number for a in after.attempts if a.status.is_closed} - {
        a.number for a in before.attempts if a.status.is_closed or a.status is AttemptStatus.COLLECTING
    }
    told = {e.attempt for e in reduction.effects if isinstance(e, LedgerEntry) and e.state != "reserved"}
    assert closed <= told, "an attempt closed without a ledger row"
    assert reduction.is_open == is_open(after)


def _came_back(before: Prediction, attempt: Attempt) -> bool:
    """Lost sight of, and heard of while it is of use: the one way back from a closed attempt."""
    return attempt.status is AttemptStatus.ABANDONED and attempt.handle is None and not before.is_terminal


@given(st.integers(min_value=0, max_value=2**48))
@settings(max_examples=600, deadline=None)
def test_the_rules_hold_in_any_order(seed: int) -> None:
    universe(seed, reduce)


@given(st.permutations([queued(), running("a", "l"), running("ab", "lo"), succeeded("abc", logs="log")]), st.data())
@settings(max_examples=200, deadline=None)
def test_the_facts_of_one_job_give_the_same_end_in_any_order_and_number(facts: list[Fact], data: st.DataObject) -> None:
    prediction = reduce(a_prediction(), Begun(attempt=an_attempt(1)), START).prediction
    for fact in facts:
        for _ in range(data.draw(st.integers(1, 3))):
            prediction = reduce(prediction, learned(1, fact, cost=COST), at(1)).prediction
    assert (prediction.status, prediction.output, prediction.logs) == (Status.SUCCEEDED, "abc", "log")


def _terminal_is_overwritten(prediction: Prediction, happening: Happening, now: Any) -> Reduction:
    if isinstance(happening, Learned) and happening.fact.phase is Phase.SUCCEEDED and prediction.is_terminal:
        changed = replace(prediction, output=happening.fact.output)
        return Reduction(prediction=changed, is_open=is_open(changed))
    return reduce(prediction, happening, now)


def _rank_may_fall(prediction: Prediction, happening: Happening, now: Any) -> Reduction:
    if isinstance(happening, Learned) and happening.fact.phase is Phase.QUEUED and prediction.attempts:
        number = min(happening.attempt, len(prediction.attempts))
        lowered = replace(prediction.attempts[number - 1], status=AttemptStatus.ACCEPTED)
        changed = with_attempt(prediction, lowered)
        return Reduction(prediction=changed, is_open=is_open(changed))
    return reduce(prediction, happening, now)


def _ledger_is_forgotten(prediction: Prediction, happening: Happening, now: Any) -> Reduction:
    reduction = reduce(prediction, happening, now)
    return replace(reduction, effects=tuple(e for e in reduction.effects if not isinstance(e, LedgerEntry)))


def _late_failure_fails_it(prediction: Prediction, happening: Happening, now: Any) -> Reduction:
    reduction = reduce(prediction, happening, now)
    if isinstance(happening, Learned) and happening.fact.phase is Phase.FAILED and reduction.prediction.attempts:
        changed = replace(reduction.prediction, status=Status.FAILED)
        return Reduction(prediction=changed, effects=reduction.effects, is_open=is_open(changed))
    return reduction


def _cancel_beats_success(prediction: Prediction, happening: Happening, now: Any) -> Reduction:
    if isinstance(happening, CancelRequested) and prediction.status is Status.SUCCEEDED:
        changed = replace(prediction, status=Status.CANCELED)
        return Reduction(prediction=changed, is_open=is_open(changed))
    return reduce(prediction, happening, now)


@pytest.mark.parametrize(
    "planted",
    [
        _terminal_is_overwritten,
        _rank_may_fall,
        _ledger_is_forgotten,
        _late_failure_fails_it,
        _cancel_beats_success,
    ],
)
def test_a_planted_bug_is_caught(planted: Reducer) -> None:
    caught = 0
    for seed in range(400):
        try:
            universe(seed, planted)
        except AssertionError:
            caught += 1
    assert caught > 0
