"""A small world for the store's suite: a clock to turn by hand, a reducer of few rules, and values to feed it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.attempt import Attempt
from gateway.contract.clock import SeededIds, hash_token
from gateway.contract.errors import Failure, ModelFailed
from gateway.contract.fact import (
    Begun,
    CancelRequested,
    CancelSent,
    DeadlinePassed,
    Effect,
    Fact,
    GivenUp,
    Happening,
    Learned,
    LedgerEntry,
    Notify,
    Phase,
    Source,
    StreamEvent,
)
from gateway.contract.prediction import Prediction, Request, Status
from gateway.store.protocol import Lease, Reduction

START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
BROKEN = ModelFailed("this one cannot be shown").failure
NOTHING = CancelSent(attempt=9, confirmed=False)  # a happening that changes nothing


ids = SeededIds(20)


def lease(worker: str, fence: int = 1) -> Lease:
    return Lease(worker=worker, fence=fence)


def prediction(**changes: Any) -> Prediction:
    """A new prediction of owner `alice`, with a webhook if `webhook` is given."""
    request = Request(
        model="acme/upscale",
        version="a" * 64,
        is_pinned=False,
        input=changes.pop("input", {"scale": 2}),
        webhook=changes.pop("webhook", None),
    )
    defaults: dict[str, Any] = {
        "id": ids.prediction(),
        "owner": "alice",
        "request": request,
        "created_at": START,
        "deadline_at": START + timedelta(hours=1),
        "stream_token": ids.token(),
    }
    return Prediction(**(defaults | changes))


def begun(token: str, number: int = 1) -> Begun:
    return Begun(
        attempt=Attempt(
            number=number,
            offer="acme/upscale@north",
            provider="north",
            remote="upscale",
            version="a" * 64,
            token_hash=hash_token(token),
            begun_at=START,
            deadline_at=START + timedelta(minutes=5),
        )
    )


def said(output: Any) -> Learned:
    return Learned(attempt=1, fact=Fact(phase=Phase.RUNNING, output=output), source=Source.STREAM)


def succeeded(output: Any = "done") -> Learned:
    return Learned(attempt=1, fact=Fact(phase=Phase.SUCCEEDED, output=output), source=Source.CALLBACK)


def given_up(failure: Failure = BROKEN) -> GivenUp:
    return GivenUp(failure=failure)


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """
    Few rules, enough to make every kind of effect: an attempt reserves money, output is streamed and notified, an end
    is notified and settled; a cancel puts the prediction off for a minute; a deadline leaves work for somebody.
    """
    if prediction.is_terminal:
        return Reduction(prediction=prediction, is_open=False)
    if isinstance(happening, Begun):
        attempts = (*prediction.attempts, happening.attempt)
        return Reduction(
            prediction=replace(prediction, attempts=attempts), effects=(_money(happening.attempt.number, "reserved"),)
        )
    if isinstance(happening, Learned) and happening.fact.output != prediction.output:
        return _learned(prediction, happening, now)
    if isinstance(happening, CancelRequested) and prediction.cancel_requested_at is None:
        return Reduction(prediction=replace(prediction, cancel_requested_at=now), due_at=now + timedelta(seconds=60))
    if isinstance(happening, DeadlinePassed):
        aborted = replace(prediction, status=Status.ABORTED, completed_at=now)
        return Reduction(prediction=aborted, effects=(Notify(event="completed"),), is_open=True)
    if isinstance(happening, GivenUp):
        return Reduction(
            prediction=replace(prediction, error=happening.failure.message),
            effects=(StreamEvent(event="error", data="{}"), _money(1, "maybe"), Notify(event="output")),
        )
    return Reduction(prediction=prediction)


def _learned(prediction: Prediction, happening: Learned, now: datetime) -> Reduction:
    output = happening.fact.output
    effects: tuple[Effect, ...] = (StreamEvent(event="output", data=str(output)), Notify(event="output"))
    if not happening.fact.phase.is_end:
        return Reduction(prediction=replace(prediction, output=output, status=Status.PROCESSING), effects=effects)
    ended = replace(prediction, output=output, status=Status.SUCCEEDED, completed_at=now)
    effects += (StreamEvent(event="done", data="{}"), Notify(event="completed"), _money(1, "settled", 2_000_000))
    return Reduction(prediction=ended, effects=effects, is_open=False)


def _money(attempt: int, state: str, nanos: int | None = None) -> LedgerEntry:
    return LedgerEntry(
        attempt=attempt, offer="acme/upscale@north", provider="north", state=state, nanos=nanos, basis="computed"
    )


def snapshot(prediction: Prediction) -> bytes:
    """Refuses a prediction that ended in `BROKEN`: the last thing that can go wrong in a change."""
    if prediction.error == BROKEN.message:
        raise ValueError("no body can be made of it")
    return msgspec.json.encode(
        {"id": prediction.id, "status": prediction.status, "output": prediction.output, "revision": prediction.revision}
    )
