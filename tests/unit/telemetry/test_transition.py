from __future__ import annotations

import json
import logging

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import AtCapacity, ModelFailed, RateLimited
from gateway.contract.observer import DeliveryTry
from gateway.contract.prediction import Prediction, Status
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.transition import LogObserver
from tests.unit.telemetry.made import Wire, at, attempt, lost, prediction, won

TRACE = f"00-{'c' * 32}-{'d' * 16}-01"


def test_one_line_for_a_failover_and_one_for_the_end() -> None:
    wire = Wire("json", Redaction())
    failed, saved = lost(1, "cheap"), won(2, "local", is_fallback=True)
    done = prediction(failed, saved)
    observer = LogObserver()
    observer.prediction_created(done)
    observer.attempt_begun(done, failed)
    observer.attempt_ended(done, failed)
    observer.failed_over(done, failed)
    observer.attempt_ended(done, saved)
    observer.prediction_ended(done)
    moved, ended = (json.loads(line) for line in wire.lines)
    assert moved["level"] == "warning"
    assert (moved["offer"], moved["reason"]) == ("acme/up@cheap", "model_failed")
    assert ended["level"] == "info"
    assert ended["message"] == (
        f"prediction {done.id} of acme/up succeeded by local in 4.000 s after 2 attempts, ≥ $0.0023"
    )
    assert (ended["provider"], ended["fallback"], ended["seconds"]) == ("local", True, 4.0)
    assert ended["cost_basis"] == "unknown", "of a part of it"
    assert "private" not in wire.text, "inputs and outputs are nobody's business"


def test_a_failed_prediction_is_a_warning_with_its_reason() -> None:
    wire = Wire("json", Redaction())
    failure = ModelFailed("CUDA out of memory").failure
    LogObserver().prediction_ended(
        prediction(lost(1), status=Status.FAILED, error="CUDA out of memory", failure=failure)
    )
    line = json.loads(wire.text)
    assert (line["level"], line["reason"]) == ("warning", "model_failed")
    assert line["message"].endswith("after 1 attempt, cost unknown: model_failed")
    assert "CUDA" not in wire.text, "its own words may quote the prompt"


def test_what_was_only_rejected_cost_nothing() -> None:
    wire = Wire("json", Redaction())
    LogObserver().prediction_ended(prediction(lost(1, why=AtCapacity()), status=Status.FAILED))
    line = json.loads(wire.text)
    assert (line["cost"], line["cost_basis"]) == ("$0.00", "computed")


def test_what_ops_must_hear_of_is_said_and_routine_is_not() -> None:
    wire = Wire("text", Redaction())
    observer = LogObserver()
    observer.callback_received("replicate", "applied")
    observer.callback_received("", "unknown")
    observer.delivery_tried("completed", "delivered", 0.1)
    assert wire.text == ""
    observer.callback_received("replicate", "forged")
    observer.delivery_tried("completed", "exhausted", 0.1)
    observer.breaker_changed("acme/up@cheap", "closed", "open", "5 of 10 failed")
    observer.local_backend_changed("crashed")
    assert len(wire.lines) == 4


def steps() -> list[Prediction]:
    """A prediction as it was committed, one after the other."""
    begun = attempt(1)
    accepted = replace(begun, status=AttemptStatus.ACCEPTED, accepted_at=at(1))
    running = replace(accepted, status=AttemptStatus.RUNNING, running_at=at(2))
    open_ = prediction(status=Status.STARTING, trace=TRACE)
    return [
        open_,
        replace(open_, attempts=(begun,)),
        replace(open_, attempts=(accepted,)),
        replace(open_, attempts=(running,), status=Status.PROCESSING),
        replace(open_, attempts=(replace(running, logs="said something"),), status=Status.PROCESSING),
        replace(open_, attempts=(won(1),), winner=1, status=Status.SUCCEEDED, completed_at=at(4)),
    ]


def test_every_transition_is_one_line_with_the_trace_and_what_is_no_transition_is_none() -> None:
    wire = Wire("json", Redaction())
    observer = LogObserver(transitions=True)
    first, *rest = steps()
    observer.prediction_accepted(first, 0.002)
    before = first
    for after in rest:
        observer.committed(before, after, ())
        before = after
    observer.prediction_ended(before)
    lines = [json.loads(line) for line in wire.lines]
    assert {line["trace_id"] for line in lines} == {"c" * 32}
    assert {line["prediction"] for line in lines} == {first.id}
    said = [line["message"].replace(first.id, "P") for line in lines]
    assert said == [
        "prediction P of acme/up accepted",
        "attempt 1 of prediction P at acme/up@cheap: intent",
        "attempt 1 of prediction P at acme/up@cheap: intent → accepted",
        "attempt 1 of prediction P at acme/up@cheap: accepted → running",
        "prediction P: starting → processing",
        "attempt 1 of prediction P at acme/up@cheap: running → succeeded",
        "prediction P of acme/up succeeded by cheap in 4.000 s after 1 attempt, $0.0023",
    ]


def test_people_are_spared_the_steps_between() -> None:
    wire = Wire("text", Redaction())
    observer = LogObserver()
    first, *rest = steps()
    observer.prediction_accepted(first, 0.002)
    observer.committed(first, rest[0], ())
    observer.callback_told(first, 1, "applied", at(1), "")
    assert wire.text == ""


def test_a_cancel_that_was_asked_for_is_a_line() -> None:
    wire = Wire("json", Redaction())
    open_ = prediction(attempt(1), status=Status.STARTING)
    LogObserver(transitions=True).committed(open_, replace(open_, cancel_requested_at=at(1)), ())
    assert [json.loads(line)["message"] for line in wire.lines] == [f"prediction {open_.id}: a cancel was asked for"]


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_line_quotes_a_provider_whatever_it_says_of_the_prompt(format: str) -> None:
    wire = Wire(format, Redaction())
    observer = LogObserver(transitions=True)
    failure = RateLimited('too fast: your prompt was "a private wish"')
    failed = replace(lost(1, why=failure), status=AttemptStatus.REJECTED)
    done = prediction(failed, status=Status.FAILED, error=str(failure), failure=failure.failure, logs="a private wish")
    observer.committed(None, done, ())
    observer.failed_over(done, failed)
    observer.prediction_ended(done)
    tried = DeliveryTry(
        delivery="msg_1", event="completed", number=2, outcome="retry", status=500, begun_at=at(5), seconds=0.1
    )
    observer.delivery_made(done, tried)
    assert len(wire.lines) == 4
    assert "rate_limited" in wire.text
    assert "private" not in wire.text


def test_nothing_is_put_together_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    Wire("json", Redaction(), level="error")
    monkeypatch.setattr(LogObserver, "_attempt_moved", lambda *args: pytest.fail("said to nobody"))
    LogObserver(transitions=True).committed(None, prediction(won(1)), ())
    assert not logging.getLogger("turnout").isEnabledFor(logging.INFO)
