"""Predictions, attempts and a clock for the dashboard's tests: everything has a default, and a time after START."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import SeededIds
from gateway.contract.errors import ProviderFailure, RateLimited
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction, Request, Status

START = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
BASE = "https://turnout.test"
ids = SeededIds(33)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def attempt(
    number: int = 1,
    provider: str = "north",
    *,
    begun: float = 0.1,
    running: float | None = None,
    ended: float | None = 1.0,
    failure: ProviderFailure | None = None,
    nanos: int | None = 1_000_000,
    **changes: Any,
) -> Attempt:
    """Succeeded, unless there is a failure, or no end."""
    status = AttemptStatus.SUCCEEDED if failure is None else AttemptStatus.FAILED
    if isinstance(failure, RateLimited):
        status = AttemptStatus.REJECTED
    fields: dict[str, Any] = {
        "number": number,
        "offer": f"acme/upscale@{provider}",
        "provider": provider,
        "remote": "upscale",
        "version": "a" * 64,
        "token_hash": ids.token(),
        "begun_at": after(begun),
        "running_at": after(running) if running is not None else None,
        "ended_at": after(ended) if ended is not None else None,
        "deadline_at": after(60),
        "status": status if ended is not None else AttemptStatus.RUNNING,
        "failure": failure.failure if failure is not None else None,
        "cost": Cost(nanos=nanos, basis=CostBasis.UNKNOWN if nanos is None else CostBasis.REPORTED),
        "expected_nanos": 2_000_000,
    }
    return Attempt(**(fields | changes))


def prediction(*attempts: Attempt, ended: float | None = 2.0, **changes: Any) -> Prediction:
    """Of `alice` for acme/upscale; succeeded by the last attempt, unless there is no end or the status is given."""
    request = Request(
        model=changes.pop("model", "acme/upscale"),
        version="a" * 64,
        is_pinned=False,
        input=changes.pop("input", {"scale": 2}),
        secret=changes.pop("secret", ()),
        webhook=changes.pop("webhook", None),
        wants_deadline=changes.pop("wants_deadline", False),
    )
    won = bool(attempts) and attempts[-1].status is AttemptStatus.SUCCEEDED and ended is not None
    fields: dict[str, Any] = {
        "id": ids.prediction(),
        "owner": "alice",
        "request": request,
        "created_at": START,
        "deadline_at": after(60),
        "stream_token": ids.token(),
        "status": Status.STARTING if ended is None else Status.SUCCEEDED if won else Status.FAILED,
        "completed_at": after(ended) if ended is not None else None,
        "attempts": attempts,
        "winner": attempts[-1].number if won else None,
    }
    made = fields | changes
    if made["status"] is Status.FAILED and "failure" not in made and attempts and attempts[-1].failure is not None:
        made |= {"failure": attempts[-1].failure, "error": attempts[-1].failure.message}
    return Prediction(**made)
