"""Where the time and the money of a prediction went, and in which state it is. Pure: reads what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import DeadlineExceeded
from gateway.contract.prediction import Prediction, Status

_COLD_START = "cold_start_time"  # seconds, in an attempt's metrics, where a provider tells


class Spans(NamedTuple):
    """Seconds of one attempt. They add up to the time from our submit until its end."""

    queue: float
    cold_start: float
    run: float


def attempt_spans(attempt: Attempt) -> Spans | None:
    """
    None for an attempt of which nothing ran, or nobody knows.

    The provider's own run time is believed as far as it fits: what is left was queue, or a cold start if it says so.
    """
    if attempt.ended_at is None or attempt.status in (AttemptStatus.REJECTED, AttemptStatus.ABANDONED):
        return None
    total = _seconds(attempt.begun_at, attempt.ended_at)
    told = _number(attempt.metrics.get("predict_time"))
    run = _seconds(attempt.running_at or attempt.begun_at, attempt.ended_at) if told is None else told
    run = min(run, total)
    cold_start = min(_number(attempt.metrics.get(_COLD_START)) or 0.0, total - run)
    return Spans(total - run - cold_start, cold_start, run)


def collect_seconds(prediction: Prediction) -> float | None:
    """From the provider's end until the files were in our keeping; None if there were none to copy."""
    winner = winner_of(prediction)
    if winner is None or winner.ended_at is None or prediction.completed_at is None:
        return None
    return _seconds(winner.ended_at, prediction.completed_at) or None


def overhead_seconds(prediction: Prediction) -> float | None:
    """The time in which no attempt was under way and no file was copied. None while it is open."""
    end = prediction.completed_at
    if end is None:
        return None
    covered = prediction.created_at
    ours = 0.0
    for attempt in sorted(prediction.attempts, key=lambda attempt: attempt.begun_at):
        ours += max(0.0, (attempt.begun_at - covered).total_seconds())
        covered = max(covered, min(attempt.ended_at or end, end))
    if winner_of(prediction) is None:  # after the winner's end there is only the collecting
        ours += max(0.0, (end - covered).total_seconds())
    return ours


def winner_of(prediction: Prediction) -> Attempt | None:
    return next((attempt for attempt in prediction.attempts if attempt.number == prediction.winner), None)


def is_late(prediction: Prediction) -> bool:
    """Its deadline ended it: neither a result, nor a failure, nor a caller did."""
    if prediction.status is Status.FAILED:
        return prediction.failure is not None and prediction.failure.code == DeadlineExceeded.code
    return prediction.status in (Status.ABORTED, Status.CANCELED) and prediction.cancel_requested_at is None


def waste_of(prediction: Prediction, attempt: Attempt) -> str | None:
    """Why the money of a closed attempt bought nothing; None if it did, or may yet."""
    if attempt.number == prediction.winner:
        return None
    if attempt.status is AttemptStatus.FAILED:
        return "failed"
    if attempt.status in (AttemptStatus.SUCCEEDED, AttemptStatus.CANCELED):
        return "canceled" if prediction.winner is None else "loser"
    return None


def backlog_of(predictions: Iterable[Prediction], now: datetime) -> Mapping[str, tuple[int, float]]:
    """How many there are in each state, and for how many seconds the oldest has been in it."""
    found: dict[str, tuple[int, float]] = dict.fromkeys(("queued", "running", "collecting", "stopping"), (0, 0.0))
    for prediction in predictions:
        state, since = _state(prediction)
        count, age = found[state]
        found[state] = (count + 1, max(age, (now - since).total_seconds()))
    return found


def reserved_nanos(predictions: Iterable[Prediction]) -> Mapping[str, int]:
    """What the attempts under way are expected to cost, by provider; unknown ones count nothing."""
    found: dict[str, int] = {}
    for prediction in predictions:
        for attempt in prediction.attempts:
            if not attempt.status.is_closed and attempt.status is not AttemptStatus.COLLECTING:
                found[attempt.provider] = found.get(attempt.provider, 0) + (attempt.expected_nanos or 0)
    return found


def _state(prediction: Prediction) -> tuple[str, datetime]:
    if prediction.is_terminal:
        return "stopping", prediction.completed_at or prediction.created_at
    winner = winner_of(prediction)
    if winner is not None:
        return "collecting", winner.ended_at or prediction.created_at
    if prediction.status is Status.PROCESSING:
        return "running", prediction.started_at or prediction.created_at
    return "queued", prediction.created_at


def _seconds(begin: datetime, end: datetime) -> float:
    # Begin may be the provider's clock and end ours.
    return max(0.0, (end - begin).total_seconds())


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None
