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
from gateway.contract.errors import DeadlineExceeded, Failure, JobCanceled, ModelFailed
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    CancelRequested,
    CancelSent,
    Collected,
    DeadlinePassed,
    Effect,
    Fact,
    GivenUp,
    Happening,
    Learned,
    LedgerEntry,
    Notify,
    Phase,
    Planned,
    StreamEvent,
    SubmitFailed,
)
from gateway.contract.money import NOTHING_SPENT, UNKNOWN_COST, Cost
from gateway.contract.prediction import Prediction, Status, WebhookEvent
from gateway.engine.event import any_text, as_json, is_longer, output_events
from gateway.store.protocol import Reduction

_PHASE_STATUS = {
    Phase.QUEUED: AttemptStatus.ACCEPTED,
    Phase.RUNNING: AttemptStatus.RUNNING,
    Phase.SUCCEEDED: AttemptStatus.SUCCEEDED,
    Phase.FAILED: AttemptStatus.FAILED,
    Phase.CANCELED: AttemptStatus.CANCELED,
}

Change = tuple[Prediction, tuple[Effect, ...]]


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """What becomes of `prediction`. The very same object comes back if `happening` says nothing new."""
    changed, effects = _REDUCERS[type(happening)](prediction, happening, now)
    if changed is prediction:
        return Reduction(prediction=prediction, is_open=is_open(prediction))
    changed, concluded = _conclude_cancel(changed, now)
    return Reduction(prediction=changed, effects=effects + concluded, is_open=is_open(changed))


def is_open(prediction: Prediction) -> bool:
    """Somebody still has to do something: end the prediction, or stop and settle an attempt nobody needs."""
    return not prediction.is_terminal or any(not attempt.status.is_closed for attempt in prediction.attempts)


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
    changed = replace(prediction, attempts=(*prediction.attempts, attempt), plan=prediction.plan or happening.plan)
    return changed, (_ledger(attempt, "reserved", attempt.expected_nanos, "expected"),)


def _cancel_requested(prediction: Prediction, happening: CancelRequested, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None or prediction.cancel_requested_at is not None:
        return prediction, ()
    return replace(prediction, cancel_requested_at=now), ()


def _deadline_passed(prediction: Prediction, happening: DeadlinePassed, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None or now < prediction.deadline_at:
        return prediction, ()
    if prediction.cancel_requested_at is not None:
        return _end(prediction, Status.CANCELED, now)
    if prediction.request.wants_deadline:
        # Replicate's words for Cancel-After: aborted before it started (not billed), canceled while it ran.
        return _end(prediction, Status.ABORTED if prediction.started_at is None else Status.CANCELED, now)
    return _end(prediction, Status.FAILED, now, failure=DeadlineExceeded().failure)


def _given_up(prediction: Prediction, happening: GivenUp, now: datetime) -> Change:
    if prediction.is_terminal or prediction.winner is not None:
        return prediction, ()
    if prediction.cancel_requested_at is not None:
        return _end(prediction, Status.CANCELED, now)
    return _end(prediction, Status.FAILED, now, failure=happening.failure)


def _attempt_ended(prediction: Prediction, happening: AttemptEnded, now: datetime) -> Change:
    attempt = _attempt(prediction, happening.attempt)
    if attempt is None or attempt.status.is_closed:
        return prediction, ()
    failure = happening.failure
    if attempt.status is AttemptStatus.COLLECTING:
        # It succeeded and was paid for, but its files are gone: the win is given back, so that another may take it.
        ended = replace(attempt, status=AttemptStatus.FAILED, failure=failure, ended_at=now)
        winner = None if prediction.winner == attempt.number else prediction.winner
        return replace(_with(prediction, ended), winner=winner), ()
    gone = failure.maybe_running or attempt.status is AttemptStatus.UNKNOWN
    status = AttemptStatus.ABANDONED if gone else AttemptStatus.FAILED
    ended = replace(attempt, status=status, failure=failure, ended_at=now)
    entry = _ledger(ended, "maybe", ended.expected_nanos, "expected") if gone else _settlement(ended)
    return _with(prediction, ended), (entry,)


# -- what providers tell --------------------------------------------------------------------------------------------


def _submit_failed(prediction: Prediction, happening: SubmitFailed, now: datetime) -> Change:
    attempt = _attempt(prediction, happening.attempt)
    # A callback that came before the submit's answer has told more than this failure can.
    if attempt is None or attempt.status is not AttemptStatus.INTENT:
        return prediction, ()
    if happening.failure.maybe_running:
        unknown = replace(attempt, status=AttemptStatus.UNKNOWN, unknown_at=now, failure=happening.failure)
        return _with(prediction, unknown), (_ledger(unknown, "maybe", unknown.expected_nanos, "expected"),)
    rejected = replace(
        attempt, status=AttemptStatus.REJECTED, failure=happening.failure, ended_at=now, cost=NOTHING_SPENT
    )
    return _with(prediction, rejected), (_ledger(rejected, "released", 0, "refused"),)


def _learned(prediction: Prediction, happening: Learned, now: datetime) -> Change:
    attempt = _attempt(prediction, happening.attempt)
    if attempt is None:
        return prediction, ()
    fact = happening.fact
    if attempt.status is AttemptStatus.ABANDONED:
        # We gave it up without knowing its end; the provider may still tell it, once.
        return _ended_by_provider(prediction, attempt, happening, now) if fact.phase.is_end else (prediction, ())
    if attempt.status.is_closed or attempt.status is AttemptStatus.COLLECTING:
        return prediction, ()
    if fact.phase.is_end:
        return _ended_by_provider(prediction, attempt, happening, now)
    return _progressed(prediction, attempt, fact, now)


def _progressed(prediction: Prediction, attempt: Attempt, fact: Fact, now: datetime) -> Change:
    status = max(_PHASE_STATUS[fact.phase], attempt.status, key=lambda status: status.rank)
    moved = replace(
        attempt,
        status=status,
        handle=attempt.handle or fact.handle,
        accepted_at=attempt.accepted_at or now,
        running_at=attempt.running_at or (now if status is AttemptStatus.RUNNING else None),
        output=fact.output if is_longer(fact.output, attempt.output) else attempt.output,
        logs=fact.logs if fact.logs is not None and len(fact.logs) > len(attempt.logs) else attempt.logs,
        metrics=attempt.metrics | fact.metrics if fact.metrics else attempt.metrics,
        failure=None if attempt.status is AttemptStatus.UNKNOWN else attempt.failure,
    )
    if moved == attempt:
        return prediction, ()
    changed = _with(prediction, moved)
    effects: tuple[Effect, ...] = ()
    if attempt.status in (AttemptStatus.INTENT, AttemptStatus.UNKNOWN):
        effects += (_ledger(moved, "reserved", moved.expected_nanos, "expected"),)
    if prediction.is_terminal:
        return changed, effects
    changed, shown = _show(changed, moved, now)
    return changed, effects + shown


def _show(prediction: Prediction, attempt: Attempt, now: datetime) -> Change:
    """Let the caller see that it runs, and what it has said so far."""
    effects: tuple[Effect, ...] = ()
    if attempt.status is AttemptStatus.RUNNING and prediction.status is Status.STARTING:
        prediction = replace(prediction, status=Status.PROCESSING, started_at=now)
        effects += _notify(prediction, WebhookEvent.START)
    if attempt.output is not None and _may_show(prediction, attempt):
        events = output_events(prediction.output, attempt.output)
        if events:
            prediction = replace(prediction, output=attempt.output, shown=attempt.number)
            effects += events + _notify(prediction, WebhookEvent.OUTPUT)
    prediction, logs = _show_logs(prediction)
    return prediction, effects + logs


def _may_show(prediction: Prediction, attempt: Attempt) -> bool:
    # Files are shown once they are in our keeping. Output that was shown is never taken back in favour of the
    # unfinished output of another attempt: clients hold on to its prefix.
    return not prediction.request.file_output and prediction.shown in (None, attempt.number)


def _show_logs(prediction: Prediction) -> Change:
    logs = "".join(attempt.logs for attempt in prediction.attempts)
    if logs == prediction.logs or len(logs) <= len(prediction.logs):
        return prediction, ()
    new = logs[len(prediction.logs) :] if logs.startswith(prediction.logs) else logs
    prediction = replace(prediction, logs=logs)
    return prediction, (StreamEvent(event="logs", data=new), *_notify(prediction, WebhookEvent.LOGS))


def _ended_by_provider(prediction: Prediction, attempt: Attempt, happening: Learned, now: datetime) -> Change:
    fact = happening.fact
    ended = replace(
        attempt,
        status=_end_status(attempt, fact),
        handle=attempt.handle or fact.handle,
        accepted_at=attempt.accepted_at or now,
        running_at=attempt.running_at or fact.started_at,
        ended_at=now,
        output=None if fact.phase is not Phase.SUCCEEDED else fact.output,
        logs=fact.logs if fact.logs is not None and len(fact.logs) >= len(attempt.logs) else attempt.logs,
        metrics=attempt.metrics | fact.metrics,
        failure=_end_failure(attempt, fact),
        cost=happening.cost or fact.cost or UNKNOWN_COST,
    )
    given_up_at = attempt.ended_at if attempt.status is AttemptStatus.ABANDONED else None
    effects: tuple[Effect, ...] = (replace(_settlement(ended), given_up_at=given_up_at),)
    wins = ended.status is AttemptStatus.SUCCEEDED and not prediction.is_terminal and prediction.winner is None
    if not wins:
        kept = replace(ended, output=None)  # a loser's output is nobody's
        changed = _with(prediction, kept)
        if not prediction.is_terminal:
            changed, logs = _show_logs(changed)
            effects += logs
        return changed, effects
    if must_collect(prediction, ended.output):
        collecting = replace(ended, status=AttemptStatus.COLLECTING)
        return replace(_with(prediction, collecting), winner=attempt.number), effects
    changed, finish = _finish(prediction, ended, ended.output, now)
    return changed, effects + finish


def _end_status(attempt: Attempt, fact: Fact) -> AttemptStatus:
    if fact.phase is Phase.CANCELED and attempt.cancel_requested_at is None:
        return AttemptStatus.FAILED  # canceled by somebody else's hand: for us it failed
    return _PHASE_STATUS[fact.phase]


def _end_failure(attempt: Attempt, fact: Fact) -> Failure | None:
    if fact.phase is Phase.SUCCEEDED:
        return None
    if fact.failure is not None:
        return fact.failure
    if fact.phase is Phase.CANCELED:
        return None if attempt.cancel_requested_at is not None else JobCanceled().failure
    return ModelFailed().failure


def _collected(prediction: Prediction, happening: Collected, now: datetime) -> Change:
    attempt = _attempt(prediction, happening.attempt)
    if attempt is None or attempt.status is not AttemptStatus.COLLECTING:
        return prediction, ()
    done = replace(attempt, status=AttemptStatus.SUCCEEDED, output=None)
    if prediction.is_terminal or prediction.winner != attempt.number:
        return _with(prediction, done), ()
    return _finish(prediction, done, happening.output, now)


def _cancel_sent(prediction: Prediction, happening: CancelSent, now: datetime) -> Change:
    attempt = _attempt(prediction, happening.attempt)
    if attempt is None or attempt.status.is_closed or attempt.status is AttemptStatus.COLLECTING:
        return prediction, ()
    asked = replace(
        attempt, cancel_requested_at=attempt.cancel_requested_at or now, cancel_tries=attempt.cancel_tries + 1
    )
    if not happening.confirmed:
        return _with(prediction, asked), ()
    # A call that was broken off before it was answered may have run from its first byte.
    may_have_run = asked.running_at is not None or asked.accepted_at is None
    stopped = replace(asked, status=AttemptStatus.CANCELED, ended_at=now, failure=None)
    # What ran until it was stopped may be billed; what never started is not.
    entry = (
        _ledger(stopped, "maybe", stopped.expected_nanos, "expected")
        if may_have_run
        else _ledger(stopped, "released", 0, "canceled before it ran")
    )
    return _with(prediction, stopped), (entry,)


# -- ends -----------------------------------------------------------------------------------------------------------


def _finish(prediction: Prediction, attempt: Attempt, output: Any, now: datetime) -> Change:
    """The winner's output is the prediction's: it has succeeded."""
    attempt = replace(attempt, output=None)  # once is enough
    prediction = replace(_with(prediction, attempt), winner=attempt.number)
    effects: tuple[Effect, ...] = ()
    prediction, logs = _show_logs(prediction)
    effects += logs
    if prediction.shown is not None and prediction.shown != attempt.number:
        note = "output starts again: the provider that had begun it failed\n"
        effects += (StreamEvent(event="logs", data=note),)
        prediction = replace(prediction, output=None)
    effects += output_events(prediction.output, output)
    metrics = dict(attempt.metrics)
    if "predict_time" not in metrics and attempt.running_at is not None and attempt.ended_at is not None:
        metrics["predict_time"] = max(0.0, (attempt.ended_at - attempt.running_at).total_seconds())
    prediction = replace(
        prediction, output=output, metrics=metrics, started_at=prediction.started_at or attempt.begun_at
    )
    prediction, end = _end(prediction, Status.SUCCEEDED, now)
    return prediction, effects + end


def _end(prediction: Prediction, status: Status, now: datetime, *, failure: Failure | None = None) -> Change:
    """Make it terminal: the only place that does."""
    metrics = prediction.metrics | {"total_time": max(0.0, (now - prediction.created_at).total_seconds())}
    error = failure.message if failure is not None else None
    prediction = replace(prediction, status=status, error=error, failure=failure, completed_at=now, metrics=metrics)
    effects: tuple[Effect, ...] = ()
    if failure is not None:
        effects += (StreamEvent(event="error", data=as_json({"detail": error})),)
    reason = {Status.SUCCEEDED: None, Status.FAILED: "error"}.get(status, "canceled")
    effects += (StreamEvent(event="done", data=as_json({"reason": reason} if reason else {})),)
    return prediction, effects + _notify(prediction, WebhookEvent.COMPLETED)


def _conclude_cancel(prediction: Prediction, now: datetime) -> Change:
    """A requested cancel is fulfilled once no attempt is left that could still succeed."""
    if (
        prediction.cancel_requested_at is None
        or prediction.is_terminal
        or prediction.winner is not None
        or open_attempts(prediction)
    ):
        return prediction, ()
    return _end(prediction, Status.CANCELED, now)


def must_collect(prediction: Prediction, output: Any) -> bool:
    """Whether `output` holds files that have to come into our keeping first."""
    if output is None:
        return False
    if prediction.request.file_output:
        return any_text(output, lambda text: text.startswith(("data:", "http://", "https://")))
    return any_text(output, lambda text: text.startswith("data:") and ";base64," in text[:256])


# -- small pieces ---------------------------------------------------------------------------------------------------


def _attempt(prediction: Prediction, number: int) -> Attempt | None:
    return prediction.attempts[number - 1] if 0 < number <= len(prediction.attempts) else None


def _with(prediction: Prediction, attempt: Attempt) -> Prediction:
    attempts = list(prediction.attempts)
    attempts[attempt.number - 1] = attempt
    return replace(prediction, attempts=tuple(attempts))


def _notify(prediction: Prediction, event: WebhookEvent) -> tuple[Effect, ...]:
    if prediction.request.webhook is None or event not in prediction.request.webhook_events:
        return ()
    return (Notify(event=event),)


def _ledger(attempt: Attempt, state: str, nanos: int | None, basis: str) -> LedgerEntry:
    return LedgerEntry(
        attempt=attempt.number, offer=attempt.offer, provider=attempt.provider, state=state, nanos=nanos, basis=basis
    )


def _settlement(attempt: Attempt) -> LedgerEntry:
    cost: Cost = attempt.cost
    if attempt.status is AttemptStatus.CANCELED and attempt.running_at is None and not cost.nanos:
        return _ledger(attempt, "released", 0, "canceled before it ran")
    if attempt.status is AttemptStatus.CANCELED and cost.nanos is None:
        # As where a cancel is confirmed without a word of the end: what ran may be billed.
        return _ledger(attempt, "maybe", attempt.expected_nanos, "expected")
    return _ledger(attempt, "settled", cost.nanos, cost.basis)


_REDUCERS: dict[type, Callable[[Prediction, Any, datetime], Change]] = {
    Planned: _planned,
    Begun: _begun,
    Learned: _learned,
    SubmitFailed: _submit_failed,
    AttemptEnded: _attempt_ended,
    Collected: _collected,
    CancelRequested: _cancel_requested,
    CancelSent: _cancel_sent,
    DeadlinePassed: _deadline_passed,
    GivenUp: _given_up,
}
