"""Logging: one handler, redacted last, text for people or JSON for machines. Never inputs, outputs or access lines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from gateway.contract.attempt import Attempt
from gateway.contract.money import format_dollars
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Status
from gateway.telemetry.redaction import Redaction

OURS = ("gateway", "providers", "policies", "local_backend", "turnout")
_ENCODER = json.JSONEncoder(ensure_ascii=True, default=str)
# These say every request, with its URL, or repeat what we say.
_SILENCED = ("uvicorn.access",)


def setup(
    *, level: str = "info", format: str = "text", redaction: Redaction, stream: TextIO | None = None
) -> logging.Handler:
    """
    Make the one handler of this process; calling it again replaces it. Others' libraries are heard from `warning` on.

    Uvicorn must be run with `log_config=None, access_log=False`, or it installs handlers of its own.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redaction) if format == "json" else TextFormatter(redaction))
    handler.set_name("turnout")
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == "turnout"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in _SILENCED:
        logging.getLogger(name).disabled = True
    return handler


class TextFormatter(logging.Formatter):
    """`12:30:01.123 INFO  gateway.engine  message`; a message stays on its line, whatever is in it."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = (
            f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname:<7} {record.name}: "
            f"{one_line(record.getMessage())}"
        )
        trace = self._trace(record)
        # Over the whole, at the very end: the last word on what leaves this process.
        return self._redaction.text(f"{line}\n{trace}" if trace else line)

    def _trace(self, record: logging.LogRecord) -> str:
        parts = []
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join("".join(c if c.isprintable() or c in "\n\t" else "?" for c in part) for part in parts)


class JsonFormatter(TextFormatter):
    """One object per line: at, level, logger, message, the fields given as `extra={"fields": {…}}`, and the trace."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= {name: value for name, value in fields.items() if name not in line}
        trace = self._trace(record)
        if trace:
            line["trace"] = trace
        said = _ENCODER.encode(line)
        if self._redaction.is_clean(said):
            return said
        # String by string: a mask in the finished text might cut an escape in two.
        return _ENCODER.encode(_redacted(line, self._redaction))


class LogObserver(Observer):
    """One line for each prediction that ends and each failover, and one for what ops should hear of at once."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("turnout")

    def prediction_ended(self, prediction: Prediction) -> None:
        succeeded = prediction.status is Status.SUCCEEDED
        level = logging.INFO if succeeded or prediction.failure is None else logging.WARNING
        if not self._log.isEnabledFor(level):
            return
        fields = _facts(prediction)
        by = f" by {fields['provider']}" if "provider" in fields else ""
        why = f": {prediction.error}" if prediction.error else ""
        tries = len(prediction.attempts)
        self._log.log(
            level,
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
            extra={"fields": fields},
        )

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        reason = failed.failure.code if failed.failure else failed.status.value
        self._log.warning(
            "prediction %s moves on from %s: %s (%s)",
            prediction.id,
            failed.offer,
            reason,
            failed.failure.message if failed.failure else "no failure told",
            extra={
                "fields": {
                    "prediction": prediction.id,
                    "model": prediction.request.model,
                    "offer": failed.offer,
                    "provider": failed.provider,
                    "attempt": failed.number,
                    "reason": reason,
                }
            },
        )

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        fields = {"offer": offer, "before": before, "after": after, "why": why}
        level = logging.INFO if after == "closed" else logging.WARNING
        self._log.log(level, "breaker of %s: %s → %s (%s)", offer, before, after, why, extra={"fields": fields})

    def callback_received(self, provider: str, outcome: str) -> None:
        # Only with a token of ours: what anybody can send in masses is counted, and fills no log.
        if outcome == "forged":
            fields = {"provider": provider, "outcome": outcome}
            self._log.warning("callback from %s refused: %s", provider, outcome, extra={"fields": fields})

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        if outcome in ("exhausted", "gone"):
            fields = {"event": event, "outcome": outcome}
            self._log.warning("a webhook for %s was given up: %s", event, outcome, extra={"fields": fields})

    def local_backend_changed(self, state: str) -> None:
        self._log.info("local backend: %s", state, extra={"fields": {"state": state}})


def one_line(text: str) -> str:
    """`text` with line breaks and control characters written out: nobody forges a line of ours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _facts(prediction: Prediction) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prediction": prediction.id,
        "owner": prediction.owner,
        "model": prediction.request.model,
        "status": prediction.status.value,
        "attempts": len(prediction.attempts),
    }
    if prediction.completed_at is not None:
        fields["seconds"] = round((prediction.completed_at - prediction.created_at).total_seconds(), 3)
    winner = next((a for a in prediction.attempts if a.number == prediction.winner), None)
    if winner is not None:
        fields |= {"provider": winner.provider, "offer": winner.offer, "fallback": winner.is_fallback}
    if prediction.failure is not None:
        fields["reason"] = prediction.failure.code
    if prediction.plan is not None:
        fields["policy"] = prediction.plan.policy
    fields["cost"] = _cost(prediction)
    return fields


def _cost(prediction: Prediction) -> str:
    """What all attempts together cost; "≥" if some cost is unknown."""
    known = [attempt.cost.nanos for attempt in prediction.attempts if attempt.cost.nanos is not None]
    unknown = sum(1 for a in prediction.attempts if a.cost.nanos is None and a.status.value != "rejected")
    if not known:
        return "cost unknown" if unknown else format_dollars(0)
    return ("≥ " if unknown else "") + format_dollars(sum(known))


def _redacted(value: Any, redaction: Redaction) -> Any:
    if isinstance(value, str):
        return redaction.text(value)
    if isinstance(value, dict):
        return {redaction.text(str(name)): _redacted(item, redaction) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, redaction) for item in value]
    return value if isinstance(value, (int, float, bool)) or value is None else redaction.text(str(value))
