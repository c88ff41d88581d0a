"""What the caller gets to see of a prediction: on the way, and its end. Pure; the only place that ends one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure
from gateway.contract.fact import Effect, Notify, StreamEvent
from gateway.contract.prediction import Prediction, Status, WebhookEvent
from gateway.engine.event import any_text, as_json, output_events

Change = tuple[Prediction, tuple[Effect, ...]]


def show(prediction: Prediction, attempt: Attempt, now: datetime) -> Change:
    """Let the caller see that it runs, and what it has said so far."""
    effects: tuple[Effect, ...] = ()
    if attempt.status is AttemptStatus.RUNNING and prediction.status is Status.STARTING:
        prediction = replace(prediction, status=Status.PROCESSING, started_at=now)
        effects += notify(prediction, WebhookEvent.START)
    if attempt.output is not None and _may_show(prediction, attempt):
        events = output_events(prediction.output, attempt.output)
        if events:
            prediction = replace(prediction, output=attempt.output, shown=attempt.number)
            effects += events + notify(prediction, WebhookEvent.OUTPUT)
    prediction, logs = show_logs(prediction)
    return prediction, effects + logs


def _may_show(prediction: Prediction, attempt: Attempt) -> bool:
    # Files are shown once they are in our keeping. Output that was shown is never taken back in favour of the
    # unfinished output of another attempt: clients hold on to its prefix.
    return not prediction.request.file_output and prediction.shown in (None, attempt.number)


def show_logs(prediction: Prediction) -> Change:
    logs = "".join(attempt.logs for attempt in prediction.attempts)
    if logs == prediction.logs or len(logs) <= len(prediction.logs):
        return prediction, ()
    new = logs[len(prediction.logs) :] if logs.startswith(prediction.logs) else logs
    prediction = replace(prediction, logs=logs)
    return prediction, (StreamEvent(event="logs", data=new), *notify(prediction, WebhookEvent.LOGS))


def finish(prediction: Prediction, attempt: Attempt, output: Any, now: datetime) -> Change:
    """The winner's output is the prediction's: it has succeeded."""
    attempt = replace(attempt, output=None)  # once is enough
    prediction = replace(with_attempt(prediction, attempt), winner=attempt.number)
    effects: tuple[Effect, ...] = ()
    prediction, logs = show_logs(prediction)
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
    prediction, ended = conclude(prediction, Status.SUCCEEDED, now)
    return prediction, effects + ended


def conclude(prediction: Prediction, status: Status, now: datetime, *, failure: Failure | None = None) -> Change:
    """Make it terminal: the only place that does."""
    metrics = prediction.metrics | {"total_time": max(0.0, (now - prediction.created_at).total_seconds())}
    error = failure.message if failure is not None else None
    prediction = replace(prediction, status=status, error=error, failure=failure, completed_at=now, metrics=metrics)
    effects: tuple[Effect, ...] = ()
    if failure is not None:
        effects += (StreamEvent(event="error", data=as_json({"detail": error})),)
    reason = {Status.SUCCEEDED: None, Status.FAILED: "error"}.get(status, "canceled")
    effects += (StreamEvent(event="done", data=as_json({"reason": reason} if reason else {})),)
    return prediction, effects + notify(prediction, WebhookEvent.COMPLETED)


def must_collect(prediction: Prediction, output: Any) -> bool:
    """Whether `output` holds files that have to come into our keeping first."""
    if output is None:
        return False
    if prediction.request.file_output:
        return any_text(output, lambda text: text.startswith(("data:", "http://", "https://")))
    return any_text(output, lambda text: text.startswith("data:") and ";base64," in text[:256])


def notify(prediction: Prediction, event: WebhookEvent) -> tuple[Effect, ...]:
    if prediction.request.webhook is None or event not in prediction.request.webhook_events:
        return ()
    return (Notify(event=event),)


def attempt_of(prediction: Prediction, number: int) -> Attempt | None:
    return prediction.attempts[number - 1] if 0 < number <= len(prediction.attempts) else None


def with_attempt(prediction: Prediction, attempt: Attempt) -> Prediction:
    attempts = list(prediction.attempts)
    attempts[attempt.number - 1] = attempt
    return replace(prediction, attempts=tuple(attempts))
