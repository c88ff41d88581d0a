"""Predictions with a past, for the observers, and the wire that logs leave by."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import AtCapacity, ModelFailed, ProviderFailure
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction, Request, Status
from gateway.telemetry.logs import setup
from gateway.telemetry.redaction import Redaction

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def attempt(number: int = 1, provider: str = "cheap", **changes: Any) -> Attempt:
    kept: dict[str, Any] = {
        "number": number,
        "offer": f"acme/up@{provider}",
        "provider": provider,
        "remote": "theirs/up",
        "version": "a" * 64,
        "token_hash": "b" * 64,
        "begun_at": at(number),
        "deadline_at": at(100),
    }
    return Attempt(**(kept | changes))


def won(number: int = 1, provider: str = "cheap", nanos: int | None = 2_300_000, **changes: Any) -> Attempt:
    cost = Cost(nanos=nanos, basis=CostBasis.COMPUTED if nanos is not None else CostBasis.UNKNOWN)
    kept: dict[str, Any] = {
        "status": AttemptStatus.SUCCEEDED,
        "accepted_at": at(number),
        "running_at": at(number + 0.5),
        "ended_at": at(number + 2.5),
        "cost": cost,
    }
    return attempt(number, provider, **(kept | changes))


def lost(number: int = 1, provider: str = "cheap", why: ProviderFailure | None = None, **changes: Any) -> Attempt:
    failure = (why or ModelFailed("CUDA out of memory")).failure
    status = AttemptStatus.REJECTED if isinstance(why, AtCapacity) else AttemptStatus.FAILED
    return attempt(number, provider, **({"status": status, "failure": failure, "ended_at": at(number + 1)} | changes))


def prediction(*attempts: Attempt, status: Status = Status.SUCCEEDED, trace: str = "", **changes: Any) -> Prediction:
    winner = next((a.number for a in attempts if a.status is AttemptStatus.SUCCEEDED), None)
    kept: dict[str, Any] = {
        "id": "0123456789abcdefghjkmnpqrs",
        "owner": "app",
        "request": Request(
            model="acme/up", version="a" * 64, is_pinned=False, input={"prompt": "a private wish"}, trace=trace
        ),
        "created_at": at(0),
        "deadline_at": at(100),
        "stream_token": "s" * 43,
        "status": status,
        "attempts": attempts,
        "winner": winner,
        "completed_at": at(4) if status.is_terminal else None,
        "output": "a private answer",
    }
    return Prediction(**(kept | changes))


class Wire:
    """What leaves the process."""

    def __init__(self, format: str, redaction: Redaction, level: str = "debug", *, worker: int | None = None) -> None:
        self.stream = io.StringIO()
        setup(level=level, format=format, redaction=redaction, worker=worker, stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()
