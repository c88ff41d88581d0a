"""Attempts that were given up while they may be running: looked for, found, wanted again or stopped. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.fact import Learned, Phase, Sought
from gateway.contract.prediction import Prediction
from gateway.engine.end import Change, attempt_of, with_attempt


def orphans(prediction: Prediction) -> tuple[Attempt, ...]:
    """Those that somebody still has to look for. Nobody waits for them: the prediction may have ended long ago."""
    return tuple(attempt for attempt in prediction.attempts if attempt.look_at is not None)


def next_look(prediction: Prediction) -> datetime | None:
    return min((attempt.look_at for attempt in prediction.attempts if attempt.look_at is not None), default=None)


def is_wanted(prediction: Prediction, attempt: Attempt, now: datetime) -> bool:
    """What was lost sight of is still of use: nothing has succeeded, and none of its times is over."""
    if prediction.is_terminal or prediction.winner is not None or prediction.cancel_requested_at is not None:
        return False
    until = min(attempt.deadline_at, prediction.deadline_at, attempt.run_deadline_at or attempt.deadline_at)
    return attempt.handle is None and now < until


def may_come_back(prediction: Prediction) -> bool:
    """An attempt was given up, and its provider may still tell of it: whoever held the prediction must not keep it."""
    return any(attempt.status is AttemptStatus.ABANDONED for attempt in prediction.attempts)


def sought(prediction: Prediction, happening: Sought, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    if attempt is None or attempt.look_at is None:
        return prediction, ()
    return with_attempt(prediction, replace(attempt, look_at=happening.look_at, looks=attempt.looks + 1)), ()


def found(prediction: Prediction, attempt: Attempt, happening: Learned, now: datetime) -> Change:
    """It is known now where the job is, and that it has not ended: what nobody wants is to be stopped, at once."""
    handle = happening.fact.handle
    if attempt.handle is not None or handle is None:
        return prediction, ()
    runs = happening.fact.phase is Phase.RUNNING
    known = replace(
        attempt,
        handle=handle,
        accepted_at=attempt.accepted_at or now,
        running_at=attempt.running_at or (now if runs else None),
        resolved_by=attempt.resolved_by or happening.source,
        look_at=now,
        looks=0,
    )
    return with_attempt(prediction, known), ()


def revived(attempt: Attempt) -> Attempt:
    """As it was before it was given up: nobody knows what became of its submit."""
    return replace(attempt, status=AttemptStatus.UNKNOWN, ended_at=None, look_at=None, looks=0)
