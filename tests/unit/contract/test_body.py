"""Replicate's JSON of a prediction: its fields, its nulls, and what of routing is told beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.body import prediction_body, prediction_bytes, timestamp
from gateway.contract.errors import ModelFailed, RateLimited
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction, Request, Status, WebhookEvent
from gateway.contract.reason import Reason
from gateway.contract.route import Choice, Plan

AT = datetime(2025, 6, 2, 15, 53, 20, 761000, tzinfo=UTC)
URL = "https://turnout.example"


def made(*, request: dict[str, Any] | None = None, **changes: Any) -> Prediction:
    asked = {"model": "acme/writer", "version": "a" * 64, "is_pinned": False, "input": {"prompt": "x"}} | (
        request or {}
    )
    return Prediction(
        **{
            "id": "x0fmfzfcf5rma0cq65c825tcbm",
            "owner": "alice",
            "request": Request(**asked),
            "created_at": AT,
            "deadline_at": AT + timedelta(hours=1),
            "stream_token": "s" * 43,
        }
        | changes
    )


def shown(prediction: Prediction, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(prediction_bytes(prediction, public_url=URL, **options))
    return found


def attempt(number: int, status: AttemptStatus, **changes: Any) -> Attempt:
    return Attempt(
        **{
            "number": number,
            "offer": f"acme/writer@p{number}",
            "provider": f"p{number}",
            "remote": "r",
            "version": "a" * 64,
            "token_hash": "h",
            "begun_at": AT,
            "deadline_at": AT,
            "status": status,
            "ended_at": AT + timedelta(seconds=1.2345),
        }
        | changes
    )


def test_a_new_prediction_has_the_keys_of_the_recorded_one_and_no_more() -> None:
    # Keys and nulls of a create that was answered in June 2025; ours adds `source`, which later ones have.
    assert shown(made()) == {
        "id": "x0fmfzfcf5rma0cq65c825tcbm",
        "model": "acme/writer",
        "version": "a" * 64,
        "input": {"prompt": "x"},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "starting",
        "created_at": "2025-06-02T15:53:20.761Z",
        "urls": {
            "cancel": f"{URL}/v1/predictions/x0fmfzfcf5rma0cq65c825tcbm/cancel",
            "get": f"{URL}/v1/predictions/x0fmfzfcf5rma0cq65c825tcbm",
            "stream": f"{URL}/stream/{'s' * 43}",
            "web": f"{URL}/v1/predictions/x0fmfzfcf5rma0cq65c825tcbm",
        },
    }


def test_a_finished_one_has_its_times_and_metrics() -> None:
    body = shown(
        made(
            status=Status.SUCCEEDED,
            output=["a"],
            logs="l",
            started_at=AT + timedelta(seconds=1),
            completed_at=AT + timedelta(seconds=3),
            metrics={"predict_time": 2.0, "total_time": 3.0},
        )
    )
    assert (body["started_at"], body["completed_at"]) == ("2025-06-02T15:53:21.761Z", "2025-06-02T15:53:23.761Z")
    assert body["metrics"] == {"predict_time": 2.0, "total_time": 3.0}


def test_shown_as_created_nothing_of_what_came_later_is_told() -> None:
    late = made(
        status=Status.FAILED,
        output=["a"],
        logs="l",
        error="e",
        started_at=AT,
        completed_at=AT,
        metrics={"predict_time": 2.0},
        attempts=(attempt(1, AttemptStatus.FAILED),),
        plan=Plan(policy="p", choices=(), max_attempts=1, pay_twice_up_to_nanos=0),
    )
    assert shown(late, as_created=True) == shown(made())


@pytest.mark.parametrize("output", [None, "", [], {}, 0, False, ["a", None], "text"])
def test_output_is_always_there_whatever_it_is(output: Any) -> None:
    body = shown(made(output=output, status=Status.SUCCEEDED))
    assert body["output"] == output
    assert type(body["output"]) is type(output)


def test_what_was_not_asked_for_is_absent_and_what_was_is_echoed() -> None:
    assert not {"webhook", "webhook_events_filter", "deadline", "routing", "metrics"} & set(shown(made()))
    asked = {"webhook": "https://a.example", "webhook_events": (WebhookEvent.START,), "wants_deadline": True}
    body = shown(made(request=asked))
    assert (body["webhook"], body["webhook_events_filter"]) == ("https://a.example", ["start"])
    assert body["deadline"] == "2025-06-02T16:53:20.761Z"


def test_aborted_is_canceled_for_who_asked_for_no_deadline() -> None:
    assert shown(made(status=Status.ABORTED))["status"] == "canceled"
    assert shown(made(status=Status.ABORTED, request={"wants_deadline": True}))["status"] == "aborted"


def test_secret_fields_are_never_shown() -> None:
    prediction = made(request={"input": {"prompt": "x", "key": "hunter2"}, "secret": ("key",)})
    assert shown(prediction)["input"] == {"prompt": "x", "key": "[REDACTED]"}
    assert prediction.request.input["key"] == "hunter2"


def test_routing_tells_attempts_reasons_and_the_one_that_served() -> None:
    failed = attempt(1, AttemptStatus.REJECTED, failure=RateLimited("slow down", status=429).failure)
    won = attempt(
        2,
        AttemptStatus.SUCCEEDED,
        is_fallback=True,
        cost=Cost(nanos=725_000, basis=CostBasis.COMPUTED),
        version="b" * 64,
    )
    plan = Plan(
        policy="cheapest",
        choices=(
            Choice(
                offer="acme/writer@p1", provider="p1", kept=True, reasons=(Reason(code="price", written="cheapest"),)
            ),
            Choice(
                offer="acme/writer@p3", provider="p3", kept=False, reasons=(Reason(code="region", written="not in eu"),)
            ),
        ),
        max_attempts=3,
        pay_twice_up_to_nanos=0,
    )
    routing = shown(made(status=Status.SUCCEEDED, attempts=(failed, won), winner=2, plan=plan))["routing"]
    assert routing == {
        "provider": "p2",
        "version": "b" * 64,
        "policy": "cheapest",
        "fallback": True,
        "cost": {"amount": "0.000725", "basis": "computed", "currency": "USD"},
        "attempts": [
            {
                "number": 1,
                "provider": "p1",
                "offer": "acme/writer@p1",
                "status": "rejected",
                "started_at": "2025-06-02T15:53:20.761Z",
                "ended_at": "2025-06-02T15:53:21.995Z",
                "seconds": 1.234,
                "cost": {"amount": None, "basis": "unknown", "currency": "USD"},
                "code": "rate_limited",
                "message": "slow down",
            },
            {
                "number": 2,
                "provider": "p2",
                "offer": "acme/writer@p2",
                "status": "succeeded",
                "fallback": True,
                "started_at": "2025-06-02T15:53:20.761Z",
                "ended_at": "2025-06-02T15:53:21.995Z",
                "seconds": 1.234,
                "cost": {"amount": "0.000725", "basis": "computed", "currency": "USD"},
            },
        ],
        "reasons": [
            {"offer": "acme/writer@p1", "provider": "p1", "kept": True, "code": "price", "text": "cheapest"},
            {"offer": "acme/writer@p3", "provider": "p3", "kept": False, "code": "region", "text": "not in eu"},
        ],
    }


REPORTED = Cost(nanos=1_000_000_000, basis=CostBasis.REPORTED)
COMPUTED = Cost(nanos=1, basis=CostBasis.COMPUTED)


@pytest.mark.parametrize(
    ("attempts", "cost"),
    [
        ((), {"amount": "0", "basis": "computed", "currency": "USD"}),
        ((attempt(1, AttemptStatus.REJECTED),), {"amount": "0", "basis": "computed", "currency": "USD"}),
        (
            (attempt(1, AttemptStatus.SUCCEEDED, cost=REPORTED),),
            {"amount": "1", "basis": "reported", "currency": "USD"},
        ),
        (
            (attempt(1, AttemptStatus.FAILED, cost=COMPUTED), attempt(2, AttemptStatus.SUCCEEDED, cost=REPORTED)),
            {"amount": "1.000000001", "basis": "computed", "currency": "USD"},
        ),
        (
            (attempt(1, AttemptStatus.ABANDONED), attempt(2, AttemptStatus.SUCCEEDED, cost=REPORTED)),
            {"amount": None, "basis": "unknown", "currency": "USD", "at_least": "1"},
        ),
        (
            (attempt(1, AttemptStatus.FAILED, failure=ModelFailed().failure),),
            {"amount": None, "basis": "unknown", "currency": "USD"},
        ),
    ],
)
def test_the_cost_of_all_attempts_is_their_sum_and_unknown_if_any_is(
    attempts: tuple[Attempt, ...], cost: dict[str, Any]
) -> None:
    plan = Plan(policy="p", choices=(), max_attempts=1, pay_twice_up_to_nanos=0)
    assert shown(made(status=Status.SUCCEEDED, attempts=attempts, plan=plan))["routing"]["cost"] == cost


def test_no_cost_is_told_before_the_end() -> None:
    running = made(
        status=Status.PROCESSING, attempts=(attempt(1, AttemptStatus.RUNNING, ended_at=None, cost=REPORTED),)
    )
    assert "cost" not in shown(running)["routing"]


def test_timestamps_have_three_decimals_and_a_z() -> None:
    assert timestamp(datetime(2025, 1, 2, tzinfo=UTC)) == "2025-01-02T00:00:00.000Z"
    assert timestamp(datetime(2025, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)) == "2025-01-02T03:04:05.999Z"


def test_the_same_encoder_makes_struct_and_bytes() -> None:
    body = prediction_body(made(), public_url=URL)
    assert msgspec.json.encode(body) == prediction_bytes(made(), public_url=URL)


def test_with_a_page_web_names_it_and_nothing_else_changes() -> None:
    plain, paged = shown(made()), shown(made(), has_page=True)
    assert paged["urls"].pop("web") == f"{URL}/dashboard#/predictions/{plain['id']}"
    assert plain["urls"].pop("web") == plain["urls"]["get"]
    assert paged == plain
