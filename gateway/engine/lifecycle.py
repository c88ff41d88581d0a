"""
The life of a prediction as a pure reducer: (state, happening, now) → (new state, effects).

Opens no socket, reads no clock, draws no random number. The rules, each held by a property test:

  a. a terminal prediction never changes: not its status, output, error nor the time it ended
  b. an intent is recorded before any byte is sent (`Begun` precedes whatever is learned of an attempt)
  c. the success of any attempt finishes the prediction, the first one wins; a late failure is only recorded
  d. a cancel is a request: it wins only if no success was committed before it
  e. state, stream events, deliveries and ledger rows of one change are returned together, to be written together
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import DeadlineExceeded, Failure
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    CancelRequested,
    CancelSent,
    Collected,
    DataRemoved,
    DeadlinePassed,
    GivenUp,
    Happening,
    Learned,
    Planned,
    Sought,
    SubmitFailed,
)
from gateway.contract.prediction import Prediction, Status
from gateway.engine.end import Change, attempt_of, conclude, finish, with_attempt
from gateway.engine.orphan import next_look, sought
from gateway.engine.removal import without_data
from gateway.engine.report import learned, submit_failed
from gateway.engine.settlement import entry_of, settlement
from gateway.store.protocol import Reduction


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """What becomes of `prediction`. The very same object comes back if `happening` says nothing new."""
    changed, effects = _REDUCERS[type(happening)](prediction, happening, now)
    if changed is prediction:
        return Reduction(prediction=prediction, is_open=is_open(prediction), due_at=_due_at(prediction))
    changed, concluded = _conclude_cancel(changed, now)
    return Reduction(prediction=changed, effects=effects + concluded, is_open=is_open(changed), due_at=_due_at(changed))


def is_open(prediction: Prediction) -> bool:
    """
    Somebody still has to do something: end the prediction, stop and settle an attempt nobody needs, look for one.

    Only the last may wait, and then nobody holds it in the meantime.
    """
    return is_busy(prediction) or next_look(prediction) is not None


def is_busy(prediction: Prediction) -> bool:
    """It is under way, or an attempt of it is."""
    return not prediction.is_terminal or any(not attempt.status.is_closed for attempt in prediction.attempts)


def _due_at(prediction: Prediction) -> datetime | None:
    return None if is_busy(prediction) else next_look(prediction)


def open_attempts(prediction: Prediction) -> tuple[Attempt, ...]:
    return tuple(attempt for attempt in prediction.attempts if not attempt.status.is_closed)


# -- what the engine decides ----------------------------------------------------------------------------------------


def _planned(prediction: Prediction, happening: Planned, now: datetime) -> Change:
    if prediction.is_terminal or happening.plan == prediction.plan:
        return prediction, ()
    return replace(prediction, plan=happening.plan), ()


def _begun(prediction: Prediction, happening: Begun, now: datetime) -> Change:
    attempt = happening.attempt
    if (
        prediction.is_terminal
        or prediction.winner is not None
        or prediction.cancel_requested_at is not None
        or attempt.number != len(prediction.attempts) + 1
        or now >= prediction.deadline_at
    ):
        return prediction, ()
    # A plan from before the first attempt says what was waited for; this one says why it went where it goes.
    plan = (prediction.plan if prediction.attempts else happening.plan) or prediction.plan or happening.plan
    changed = replace(prediction, attempts=(*prediction.attempts, attempt), plan=plan)
    return changed, (entry_of(attempt, "reserved", attempt.expected_nanos, "expected"),)


def _cancel_requested(prediction: Prediction, happening: CancelRequested, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None or prediction.cancel_requested_at is not None:
        return prediction, ()
    return replace(prediction, cancel_requested_at=now), ()


def _deadline_passed(prediction: Prediction, happening: DeadlinePassed, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None or now < prediction.deadline_at:
        return prediction, ()
    if prediction.cancel_requested_at is not None:
        return conclude(prediction, Status.CANCELED, now)
    if prediction.request.wants_deadline:
        # Replicate's words for Cancel-After: aborted before it started (not billed), canceled while it ran.
        return conclude(prediction, Status.ABORTED if prediction.started_at is None else Status.CANCELED, now)
    return conclude(prediction, Status.FAILED, now, failure=DeadlineExceeded().failure)


def _given_up(prediction: Prediction, happening: GivenUp, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None:
        return prediction, ()
    if prediction.cancel_requested_at is not None:
        return conclude(prediction, Status.CANCELED, now)
    return conclude(prediction, Status.FAILED, now, failure=happening.failure)


def _attempt_ended(prediction: Prediction, happening: AttemptEnded, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    failure = happening.failure
    if attempt is not None and attempt.look_at is not None and not failure.maybe_running:
        return with_attempt(prediction, replace(attempt, look_at=None)), ()  # its provider knows it no more
    if attempt is None or attempt.status.is_closed:
        return prediction, ()
    if attempt.status is AttemptStatus.COLLECTING:
        # It succeeded and was paid for, but its files are gone: the win is given back, so that another may take it.
        ended = replace(attempt, status=AttemptStatus.FAILED, failure=failure, ended_at=now)
        winner = None if prediction.winner == attempt.number else prediction.winner
        return replace(with_attempt(prediction, ended), winner=winner), ()
    gone = failure.maybe_running or attempt.status is AttemptStatus.UNKNOWN
    status = AttemptStatus.ABANDONED if gone else AttemptStatus.FAILED
    look_at = happening.look_at if gone else None
    ended = replace(attempt, status=status, failure=failure, ended_at=now, look_at=look_at)
    entry = entry_of(ended, "maybe", ended.expected_nanos, "expected") if gone else settlement(ended)
    return with_attempt(prediction, ended), (entry,)


def _collected(prediction: Prediction, happening: Collected, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    if attempt is None or attempt.status is not AttemptStatus.COLLECTING:
        return prediction, ()
    done = replace(attempt, status=AttemptStatus.SUCCEEDED, output=None)
    if prediction.is_terminal or prediction.winner != attempt.number:
        return with_attempt(prediction, done), ()
    return finish(prediction, done, happening.output, now)


def _cancel_sent(prediction: Prediction, happening: CancelSent, now: datetime) -> Change:
    attempt = attempt_of(prediction, happening.attempt)
    if attempt is None or attempt.status is AttemptStatus.COLLECTING:
        return prediction, ()
    given_up_at = attempt.ended_at if attempt.status is AttemptStatus.ABANDONED else None
    if attempt.status.is_closed and given_up_at is None:
        if attempt.look_at is None or not happening.confirmed:
            return prediction, ()
        return with_attempt(prediction, replace(attempt, look_at=None)), ()  # its end was another's; ours is stopped
    asked = replace(
        attempt,
        cancel_requested_at=attempt.cancel_requested_at or now,
        cancel_tries=attempt.cancel_tries + 1,
        failure=happening.failure or attempt.failure,
    )
    if not happening.confirmed:
        return with_attempt(prediction, asked), ()
    stopped = replace(
        asked, status=AttemptStatus.CANCELED, ended_at=now, look_at=None, failure=_stopped_for(happening.failure)
    )
    # What ran until it was stopped may be billed. That it was queued when we last heard of it does not say that it
    # never ran: only the provider can, by a fact.
    entry = entry_of(stopped, "maybe", stopped.expected_nanos, "expected")
    return with_attempt(prediction, stopped), (replace(entry, given_up_at=given_up_at),)


def _stopped_for(failure: Failure | None) -> Failure | None:
    """Why it was stopped, if its time was over. It runs no more."""
    return None if failure is None else replace(failure, maybe_running=False)


def _data_removed(prediction: Prediction, happening: DataRemoved, now: datetime) -> Change:
    return (prediction, ()) if is_open(prediction) or prediction.data_removed else (without_data(prediction), ())


# -- ends -----------------------------------------------------------------------------------------------------------


def _conclude_cancel(prediction: Prediction, now: datetime) -> Change:
    """A requested cancel is fulfilled once no attempt is left that could still succeed."""
    if (
        prediction.cancel_requested_at is None
        or prediction.is_terminal
        or prediction.winner is not None
        or open_attempts(prediction)
    ):
        return prediction, ()
    return conclude(prediction, Status.CANCELED, now)


_REDUCERS: dict[type, Callable[[Prediction, Any, datetime], Change]] = {
    Planned: _planned,
    Begun: _begun,
    Learned: learned,
    SubmitFailed: submit_failed,
    AttemptEnded: _attempt_ended,
    Sought: sought,
    Collected: _collected,
    CancelRequested: _cancel_requested,
    CancelSent: _cancel_sent,
    DeadlinePassed: _deadline_passed,
    GivenUp: _given_up,
    DataRemoved: _data_removed,
}
