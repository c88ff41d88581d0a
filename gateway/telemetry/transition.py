"""The observer that logs what happens to predictions. Never inputs, outputs, addresses of callers, or others' words."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure
from gateway.contract.fact import Effect
from gateway.contract.money import basis_of, format_dollars
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.phase import winner_of
from gateway.contract.prediction import Prediction, Status
from gateway.contract.trace import trace_id


class LogObserver(Observer):
    """
    One line for each prediction that ends and each failover, and one for what ops should hear of at once.

    With `transitions` also one for each step between: accepted, cancel asked for, every status of every attempt, every
    delivery. A failure is told by its code: its message may quote the provider, and the provider the prompt.
    """

    def __init__(self, logger: logging.Logger | None = None, *, transitions: bool = False) -> None:
        self._log = logger or logging.getLogger("turnout")
        self._transitions = transitions

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        if self._transitions:
            fields = _whose(prediction) | {"owner": prediction.owner, "seconds": round(seconds, 6)}
            self._say(logging.INFO, fields, "prediction %s of %s accepted", prediction.id, prediction.request.model)

    def committed(self, before: Prediction | None, after: Prediction, effects: tuple[Effect, ...]) -> None:
        if not self._transitions or not self._log.isEnabledFor(logging.INFO):
            return
        for attempt in after.attempts:
            was = before.attempts[attempt.number - 1] if before and attempt.number <= len(before.attempts) else None
            if was is None or was.status is not attempt.status:
                self._attempt_moved(after, was, attempt)
        if before is None:
            return
        if after.cancel_requested_at is not None and before.cancel_requested_at is None:
            self._say(logging.INFO, _whose(after), "prediction %s: a cancel was asked for", after.id)
        if after.status is not before.status and not after.is_terminal:
            fields = _whose(after) | {"status": after.status.value}
            self._say(logging.INFO, fields, "prediction %s: %s → %s", after.id, before.status.value, after.status.value)

    def _attempt_moved(self, prediction: Prediction, was: Attempt | None, attempt: Attempt) -> None:
        fields = _whose(prediction) | _tried(attempt) | {"status": attempt.status.value}
        if attempt.status.is_closed:
            fields |= {"cost": format_dollars(attempt.cost.nanos), "cost_basis": attempt.cost.basis.value}
        self._say(
            logging.INFO if attempt.failure is None else logging.WARNING,
            fields,
            "attempt %d of prediction %s at %s: %s%s",
            attempt.number,
            prediction.id,
            attempt.offer,
            f"{was.status.value} → {attempt.status.value}" if was is not None else attempt.status.value,
            f" ({reason_of(attempt.failure)})" if attempt.failure is not None else "",
        )

    def prediction_ended(self, prediction: Prediction) -> None:
        succeeded = prediction.status is Status.SUCCEEDED
        level = logging.INFO if succeeded or prediction.failure is None else logging.WARNING
        if not self._log.isEnabledFor(level):
            return
        fields = _facts(prediction)
        by = f" by {fields['provider']}" if "provider" in fields else ""
        why = f": {reason_of(prediction.failure)}" if prediction.failure is not None else ""
        tries = len(prediction.attempts)
        self._say(
            level,
            fields,
            "prediction %s of %s %s%s in %s after %d attempt%s, %s%s",
            prediction.id,
            prediction.request.model,
            prediction.status.value,
            by,
            f"{fields['seconds']:.3f} s" if "seconds" in fields else "unknown time",
            tries,
            "" if tries == 1 else "s",
            fields["cost"],
            why,
        )

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        reason = reason_of(failed.failure) if failed.failure else failed.status.value
        fields = _whose(prediction) | _tried(failed)
        fields["reason"] = failed.failure.code if failed.failure else failed.status.value
        self._say(logging.WARNING, fields, "prediction %s moves on from %s: %s", prediction.id, failed.offer, reason)

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        fields = {"offer": offer, "before": before, "after": after, "why": why}
        level = logging.INFO if after == "closed" else logging.WARNING
        self._say(level, fields, "breaker of %s: %s → %s (%s)", offer, before, after, why)

    def callback_received(self, provider: str, outcome: str) -> None:
        # Only with a token of ours: what anybody can send in masses is counted, and fills no log.
        if outcome == "forged":
            fields = {"provider": provider, "outcome": outcome}
            self._say(logging.WARNING, fields, "callback from %s refused: %s", provider, outcome)

    def callback_told(self, prediction: Prediction, attempt: int, outcome: str, begun_at: datetime, trace: str) -> None:
        if self._transitions:
            fields = _whose(prediction) | {"attempt": attempt, "outcome": outcome}
            self._say(
                logging.INFO, fields, "callback for attempt %d of prediction %s: %s", attempt, prediction.id, outcome
            )

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        if outcome in ("exhausted", "gone"):
            fields = {"event": event, "outcome": outcome}
            self._say(logging.WARNING, fields, "a webhook for %s was given up: %s", event, outcome)

    def delivery_made(self, prediction: Prediction, tried: DeliveryTry) -> None:
        if not self._transitions:
            return
        fields = _whose(prediction) | {
            "delivery": tried.delivery,
            "event": tried.event,
            "number": tried.number,
            "outcome": tried.outcome,
            "http_status": tried.status,
            "seconds": round(tried.seconds, 3),
        }
        level = logging.INFO if tried.outcome == "delivered" else logging.WARNING
        self._say(level, fields, "webhook for %s of prediction %s: %s", tried.event, prediction.id, tried.outcome)

    def local_backend_changed(self, state: str) -> None:
        self._say(logging.INFO, {"state": state}, "local backend: %s", state)

    def _say(self, level: int, fields: dict[str, Any], text: str, *words: object) -> None:
        self._log.log(level, text, *words, extra={"fields": fields})


def reason_of(failure: Failure) -> str:
    """The code, with the provider's HTTP status: `rate_limited, status 429`."""
    return failure.code if failure.status is None else f"{failure.code}, status {failure.status}"


def _whose(prediction: Prediction) -> dict[str, Any]:
    return {"prediction": prediction.id, "trace_id": trace_id(prediction), "model": prediction.request.model}


def _tried(attempt: Attempt) -> dict[str, Any]:
    fields: dict[str, Any] = {"attempt": attempt.number, "offer": attempt.offer, "provider": attempt.provider}
    if attempt.failure is not None:
        fields["reason"] = attempt.failure.code
    return fields


def _facts(prediction: Prediction) -> dict[str, Any]:
    fields = _whose(prediction) | {
        "owner": prediction.owner,
        "status": prediction.status.value,
        "attempts": len(prediction.attempts),
    }
    if prediction.completed_at is not None:
        fields["seconds"] = round((prediction.completed_at - prediction.created_at).total_seconds(), 3)
    winner = winner_of(prediction)
    if winner is not None:
        fields |= {"provider": winner.provider, "offer": winner.offer, "fallback": winner.is_fallback}
    if prediction.failure is not None:
        fields["reason"] = prediction.failure.code
    if prediction.plan is not None:
        fields["policy"] = prediction.plan.policy
    spent = [attempt.cost for attempt in prediction.attempts if attempt.status is not AttemptStatus.REJECTED]
    return fields | {"cost": _cost(prediction), "cost_basis": basis_of(spent).value}


def _cost(prediction: Prediction) -> str:
    """What all attempts together cost; "≥" if some cost is unknown."""
    known = [attempt.cost.nanos for attempt in prediction.attempts if attempt.cost.nanos is not None]
    unknown = sum(1 for a in prediction.attempts if a.cost.nanos is None and a.status.value != "rejected")
    if not known:
        return "cost unknown" if unknown else format_dollars(0)
    return ("≥ " if unknown else "") + format_dollars(sum(known))
