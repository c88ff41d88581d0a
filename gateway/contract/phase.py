"""Where the time and the money of a prediction went, and in which state it is. Pure: reads what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import DeadlineExceeded
from gateway.contract.money import REPORTED_AS, CostBasis
from gateway.contract.prediction import Prediction, Status

_COLD_START = ("cold_start_time", "cold_start_seconds", "setup_time", "boot_time")  # seconds, where a provider tells


class Spans(NamedTuple):
    """Seconds of one attempt. They add up to the time from our submit until its end."""

    queue: float
    cold_start: float
    run: float


def attempt_spans(attempt: Attempt) -> Spans | None:
    """
    None for an attempt that gave no result: its time is lost, and says nothing of how long a job takes.

    The provider's own run time is believed as far as it fits: what is left was queue, or a cold start if it says so.
    """
    if attempt.ended_at is None or attempt.status not in (AttemptStatus.SUCCEEDED, AttemptStatus.COLLECTING):
        return None
    total = _seconds(attempt.begun_at, attempt.ended_at)
    told = _number(attempt.metrics.get("predict_time"))
    run = _seconds(attempt.running_at or attempt.begun_at, attempt.ended_at) if told is None else told
    run = min(run, total)
    cold = next((number for name in _COLD_START if (number := _number(attempt.metrics.get(name))) is not None), 0.0)
    cold_start = min(cold, total - run)
    return Spans(total - run - cold_start, cold_start, run)


class Shares(NamedTuple):
    """Seconds of one prediction that has ended. With the spans of the attempt that won they add up to its duration."""

    lost: float  # attempts of which nothing came, while the winner was not yet under way
    collect: float | None  # from the winner's end until its files were in our keeping; None if there were none to copy
    overhead: float  # no attempt was under way and no file was copied


def shares_of(prediction: Prediction) -> Shares | None:
    """None while it is open."""
    end, covered = prediction.completed_at, prediction.created_at
    if end is None:
        return None
    winner = winner_of(prediction)
    attempts = prediction.attempts
    lost = ours = 0.0
    for attempt in attempts if len(attempts) < 2 else sorted(attempts, key=lambda attempt: attempt.begun_at):
        begun, until = attempt.begun_at, min(attempt.ended_at or end, end)
        if begun > covered:
            ours += (begun - covered).total_seconds()
        if attempt is not winner:
            useless_until = until if winner is None else min(until, winner.begun_at)
            lost += _seconds(max(begun, covered), useless_until)
        covered = max(covered, until)
    if winner is None:  # after the winner's end there is only the collecting
        return Shares(lost, None, ours + _seconds(covered, end))
    return Shares(lost, _seconds(winner.ended_at or end, end) or None, ours)


def winner_of(prediction: Prediction) -> Attempt | None:
    if prediction.winner is not None:
        for attempt in prediction.attempts:
            if attempt.number == prediction.winner:
                return attempt
    return None


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


class Drift(NamedTuple):
    """Nano-dollars of one attempt: what it was thought to cost, and what it did."""

    expected: int
    billed: int
    is_most: bool  # what was expected is the most that it could cost: tokens are as many as were allowed


def drift_of(attempt: Attempt) -> Drift | None:
    """
    None where the bill says nothing of the estimate: there is no result, or one of them is unknown, or it was reckoned
    from the same input as the estimate was, because its provider tells neither money nor units.
    """
    if attempt.status not in (AttemptStatus.SUCCEEDED, AttemptStatus.COLLECTING) or attempt.expected_nanos is None:
        return None
    told = {unit for unit, names in REPORTED_AS.items() if any(name in attempt.metrics for name in names)}
    if attempt.cost.nanos is None or (attempt.cost.basis is not CostBasis.REPORTED and not told):
        return None
    return Drift(attempt.expected_nanos, attempt.cost.nanos, "output_tokens" in told)


def current_of(prediction: Prediction) -> Attempt | None:
    """The attempt that is furthest on, of those that are under way or whose files are copied."""
    current = None
    for attempt in under_way(prediction, collecting=True):
        current = attempt if current is None or attempt.status.rank >= current.status.rank else current
    return current


def under_way(prediction: Prediction, *, collecting: bool = False) -> Iterator[Attempt]:
    """Attempts that are not over at their provider; with `collecting` those whose files are copied as well."""
    for attempt in prediction.attempts:
        # Closed, said without a look-up by an enumeration's slow hash: there may be ten thousand.
        if attempt.ended_at is None or (collecting and attempt.status is AttemptStatus.COLLECTING):
            yield attempt


def backlog_of(predictions: Iterable[Prediction], now: datetime) -> Mapping[str, tuple[int, float]]:
    """How many there are in each state, and for how many seconds the oldest has been in it."""
    found: dict[str, tuple[int, float]] = dict.fromkeys(("queued", "running", "collecting", "stopping"), (0, 0.0))
    for prediction in predictions:
        state, since = _state(prediction)
        count, age = found[state]
        found[state] = (count + 1, max(age, (now - since).total_seconds()))
    return found


def reserved_nanos(predictions: Iterable[Prediction]) -> Mapping[str, int]:
    """
    What the attempts under way are expected to cost, by provider; unknown ones count nothing.

    As in the ledger: one of which nobody knows whether it runs is `maybe`, and no longer reserved.
    """
    found: dict[str, int] = {}
    for prediction in predictions:
        for attempt in under_way(prediction):
            if attempt.status is not AttemptStatus.UNKNOWN:
                found[attempt.provider] = found.get(attempt.provider, 0) + (attempt.expected_nanos or 0)
    return found


def _state(prediction: Prediction) -> tuple[str, datetime]:
    if prediction.is_terminal:
        return "stopping", prediction.completed_at or prediction.created_at
    current = current_of(prediction)
    if current is not None and current.status is AttemptStatus.COLLECTING:
        return "collecting", current.ended_at or prediction.created_at
    if current is not None and current.status is AttemptStatus.RUNNING:
        return "running", current.running_at or current.begun_at
    # After an attempt that failed it waits again, and from then on.
    return "queued", max((a.ended_at for a in prediction.attempts if a.ended_at), default=prediction.created_at)


def _seconds(begin: datetime, end: datetime) -> float:
    # Begin may be the provider's clock and end ours.
    return max(0.0, (end - begin).total_seconds())


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < inf else None
