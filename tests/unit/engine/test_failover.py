"""What an open prediction needs next, and who is tried next: the decisions as tables, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import InputRefused, JobTimedOut, ModelFailed, NotSent, OutcomeUnknown
from gateway.contract.prediction import Prediction, Status
from gateway.contract.reason import Reason
from gateway.contract.route import Choice, Plan
from gateway.engine.failover import Need, choose, exhausted, final_failure, next_need
from tests.unit.engine.world import a_prediction, an_attempt, at

HOLD = 20.0
REJECTED = {"status": AttemptStatus.REJECTED, "failure": NotSent("refused").failure}
FAILED = {"status": AttemptStatus.FAILED, "failure": ModelFailed("out of memory").failure}
FINAL = {"status": AttemptStatus.REJECTED, "failure": InputRefused("too large").failure}
UNKNOWN = {"status": AttemptStatus.UNKNOWN, "failure": OutcomeUnknown("cut").failure, "unknown_at": at(0)}
GIVEN_UP = {"status": AttemptStatus.ABANDONED, "failure": OutcomeUnknown("cut").failure, "unknown_at": at(0)}
TIMED_OUT = {"status": AttemptStatus.ABANDONED, "failure": JobTimedOut().failure}
RUNNING = {"status": AttemptStatus.RUNNING, "handle": {"id": "job"}}


def tried(*attempts: dict[str, Any], **changes: Any) -> Prediction:
    made = tuple(an_attempt(number, **fields) for number, fields in enumerate(attempts, 1))
    return a_prediction(attempts=made, **changes)


def a_choice(provider: str, expected_nanos: int | None = 100, **changes: Any) -> Choice:
    return Choice(
        offer=f"acme/upscaler@{provider}",
        provider=provider,
        kept=changes.pop("kept", True),
        reasons=(Reason(code="next", written="it is next"),),
        expected_nanos=expected_nanos,
        **changes,
    )


def a_plan(*choices: Choice, max_attempts: int = 4, pay_twice_up_to_nanos: int = 0, **rest: Any) -> Plan:
    named = {"max_attempts": max_attempts, "pay_twice_up_to_nanos": pay_twice_up_to_nanos} | rest
    return Plan(policy="p", choices=choices, **named)


@pytest.mark.parametrize(
    ("prediction", "now", "need"),
    [
        pytest.param(tried(), 1, Need.START, id="nothing was tried yet"),
        pytest.param(tried(RUNNING), 1, Need.WATCH, id="one is under way"),
        pytest.param(tried({}), 1, Need.WATCH, id="an intent is under way"),
        pytest.param(tried(REJECTED), 1, Need.START, id="a refusal"),
        pytest.param(tried(FAILED, RUNNING), 1, Need.WATCH, id="the second is under way"),
        pytest.param(tried(FINAL), 1, Need.GIVE_UP, id="a final failure"),
        pytest.param(tried(FINAL, UNKNOWN), 30, Need.WATCH, id="final, but one may still succeed"),
        pytest.param(tried(UNKNOWN), 19, Need.WATCH, id="unknown, and held"),
        pytest.param(tried(UNKNOWN), 20, Need.START, id="unknown, and held for long enough"),
        pytest.param(tried(UNKNOWN, RUNNING), 30, Need.WATCH, id="unknown beside a running one"),
        pytest.param(tried(RUNNING), 600, Need.EXPIRE, id="the deadline"),
        pytest.param(tried(), 600, Need.EXPIRE, id="the deadline before anything was tried"),
        pytest.param(tried(RUNNING, cancel_requested_at=at(1)), 600, Need.STOP, id="canceled beats expired"),
        pytest.param(tried(RUNNING, cancel_requested_at=at(1)), 2, Need.STOP, id="canceled while it runs"),
        pytest.param(tried(REJECTED, cancel_requested_at=at(1)), 2, Need.REST, id="canceled, nothing runs"),
        pytest.param(
            tried({"status": AttemptStatus.COLLECTING}, winner=1), 700, Need.COLLECT, id="a winner beats the deadline"
        ),
        pytest.param(
            tried({"status": AttemptStatus.COLLECTING}, winner=1, cancel_requested_at=at(1)),
            2,
            Need.COLLECT,
            id="a winner beats a cancel",
        ),
        pytest.param(tried(RUNNING, status=Status.FAILED), 2, Need.STOP, id="it ended, and something still runs"),
        pytest.param(tried(FAILED, status=Status.FAILED), 2, Need.REST, id="it ended, nothing runs"),
        pytest.param(tried(FAILED, FAILED, plan=a_plan(max_attempts=2)), 2, Need.GIVE_UP, id="no attempts are left"),
        pytest.param(tried(FAILED, UNKNOWN, plan=a_plan(max_attempts=2)), 30, Need.WATCH, id="none left, one unknown"),
    ],
)
def test_the_next_need(prediction: Prediction, now: float, need: Need) -> None:
    assert next_need(prediction, at(now), hold_seconds=HOLD).need is need


@pytest.mark.parametrize(
    ("prediction", "pays_twice"),
    [
        pytest.param(tried(REJECTED), False, id="nothing ran"),
        pytest.param(tried(FAILED), False, id="it is known to have ended"),
        pytest.param(tried(TIMED_OUT), False, id="ops gave it a time of its own, knowing what it costs"),
        pytest.param(tried(UNKNOWN), True, id="it may be running"),
        pytest.param(tried(GIVEN_UP), True, id="nobody ever said what became of it"),
        pytest.param(tried(GIVEN_UP, FAILED), True, id="nor does a later failure say it"),
    ],
)
def test_whether_another_is_paid_for_twice(prediction: Prediction, pays_twice: bool) -> None:
    step = next_need(prediction, at(30), hold_seconds=HOLD)
    assert (step.need, step.pays_twice) == (Need.START, pays_twice)


def test_one_that_cannot_be_asked_about_counts_as_unknown_that_was_held() -> None:
    prediction = tried(RUNNING)
    assert next_need(prediction, at(90), hold_seconds=HOLD).need is Need.WATCH
    step = next_need(prediction, at(90), hold_seconds=HOLD, silent=frozenset({1}))
    assert (step.need, step.pays_twice) == (Need.START, True)
    both = tried(RUNNING, RUNNING)
    assert next_need(both, at(90), hold_seconds=HOLD, silent=frozenset({1})).need is Need.WATCH


def test_the_hold_counts_from_when_it_became_unknown() -> None:
    step = next_need(tried(UNKNOWN | {"unknown_at": at(50)}), at(55), hold_seconds=HOLD)
    assert step.until == at(70)


CHEAP, DEAR, DEAREST = a_choice("p2", 100), a_choice("p3", 1_000), a_choice("p4", None)
FREE = a_choice("local", 0, is_fallback=True)


@pytest.mark.parametrize(
    ("attempts", "plan", "pays_twice", "expected"),
    [
        pytest.param([], a_plan(DEAR, CHEAP, FREE), False, [DEAR, CHEAP, FREE], id="the plan's order"),
        pytest.param([], a_plan(a_choice("p1", kept=False), CHEAP), False, [CHEAP], id="dropped ones are not tried"),
        pytest.param([FAILED, FAILED], a_plan(CHEAP, DEAR), False, [DEAR], id="one that failed is not tried again"),
        pytest.param([UNKNOWN], a_plan(CHEAP, DEAR), True, [], id="nothing is paid for twice"),
        pytest.param(
            [UNKNOWN], a_plan(CHEAP, DEAR, DEAREST, pay_twice_up_to_nanos=100), True, [CHEAP], id="up to the limit"
        ),
        pytest.param([UNKNOWN], a_plan(CHEAP, FREE), True, [FREE], id="what is free is free"),
        pytest.param(
            [UNKNOWN],
            a_plan(DEAREST, pay_twice_up_to_nanos=10**12),
            True,
            [],
            id="an unknown price is above every limit",
        ),
        pytest.param(
            [FAILED], a_plan(CHEAP, FREE, max_attempts=2), False, [FREE], id="the last attempt is the fallback's"
        ),
        pytest.param([FAILED], a_plan(CHEAP, max_attempts=2), False, [CHEAP], id="unless there is none"),
    ],
)
def test_who_is_tried(attempts: list[dict[str, Any]], plan: Plan, pays_twice: bool, expected: list[Choice]) -> None:
    assert list(choose(tried(*attempts), plan, pays_twice=pays_twice)) == expected


@pytest.mark.parametrize(
    ("attempts", "code", "said"),
    [
        pytest.param([REJECTED, FAILED], "no_candidate", ["p1: refused", "p2: out of memory"], id="all failed"),
        pytest.param([REJECTED, UNKNOWN], "outcome_unknown", ["p2: cut"], id="one never reported"),
        pytest.param([], "no_candidate", ["acme/upscaler@p9: it is next"], id="none may serve: the reasons say why"),
    ],
)
def test_what_is_said_when_nothing_is_left(attempts: list[dict[str, Any]], code: str, said: list[str]) -> None:
    failure = exhausted(tried(*attempts), a_plan(a_choice("p9", kept=False)))
    assert failure.code == code
    for words in said:
        assert words in failure.message


def test_the_newest_final_failure_is_the_one() -> None:
    first: Attempt = an_attempt(1, **FINAL)
    assert final_failure(tried(FINAL, FAILED)) == first.failure
    assert final_failure(tried(FAILED)) is None
    # One that is still open has not failed for good.
    assert final_failure(tried({"failure": InputRefused().failure})) is None
