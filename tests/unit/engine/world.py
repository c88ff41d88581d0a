"""Made predictions, attempts and facts for the tests of the engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.contract.attempt import Attempt
from gateway.contract.fact import Fact, Phase
from gateway.contract.prediction import Prediction, Request, WebhookEvent

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_prediction(**changes: Any) -> Prediction:
    request = Request(
        model="acme/upscaler",
        version="f" * 64,
        is_pinned=False,
        input={"image": "https://example.com/a.png"},
        webhook=changes.pop("webhook", "https://example.com/hook"),
        webhook_events=changes.pop("webhook_events", tuple(WebhookEvent)),
        file_output=changes.pop("file_output", False),
        wants_deadline=changes.pop("wants_deadline", False),
    )
    fields: dict[str, Any] = {
        "id": "p" * 26,
        "owner": "acme",
        "request": request,
        "created_at": START,
        "deadline_at": at(600),
        "stream_token": "s" * 43,
    }
    return Prediction(**(fields | changes))


def an_attempt(number: int, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "number": number,
        "offer": f"acme/upscaler@p{number}",
        "provider": f"p{number}",
        "remote": "acme/upscaler",
        "version": "f" * 64,
        "token_hash": f"{number:064d}",
        "begun_at": START,
        "deadline_at": at(600),
        "expected_nanos": 1_000_000,
    }
    return Attempt(**(fields | changes))


def queued(handle: str = "job") -> Fact:
    return Fact(phase=Phase.QUEUED, handle={"id": handle})


def running(output: Any = None, logs: str | None = None) -> Fact:
    return Fact(phase=Phase.RUNNING, output=output, logs=logs)


def succeeded(output: Any = "done", **changes: Any) -> Fact:
    return Fact(phase=Phase.SUCCEEDED, output=output, **changes)
