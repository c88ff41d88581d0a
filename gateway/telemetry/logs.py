"""Logging: one handler, redacted last, text for people or JSON for machines. What is said is others' business."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from gateway.telemetry.redaction import Redaction

OURS = ("gateway", "providers", "policies", "local_backend", "turnout")
_ENCODER = json.JSONEncoder(ensure_ascii=True, default=str)
# These say every request, with its URL, or repeat what we say.
_SILENCED = ("uvicorn.access",)


def setup(
    *,
    level: str = "info",
    format: str = "text",
    redaction: Redaction,
    worker: int | None = None,
    stream: TextIO | None = None,
) -> logging.Handler:
    """
    Make the one handler of this process; calling it again replaces it. Others' libraries are heard from `warning` on.

    `worker` is the number of one of several that write to one place: each line tells it. Uvicorn must be run with
    `log_config=None, access_log=False`, or it installs handlers of its own.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = JsonFormatter if format == "json" else TextFormatter
    handler.setFormatter(formatter(redaction, worker))
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
    """`2026-01-31T12:30:01.123Z INFO    worker 2 gateway.engine: message`; it stays on its line, whatever is in it."""

    def __init__(self, redaction: Redaction, worker: int | None = None) -> None:
        super().__init__()
        self._redaction = redaction
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        who = record.name if self._worker is None else f"worker {self._worker} {record.name}"
        line = (
            f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname:<7} {who}: "
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
    """
    One object per line: at, level, logger, message, worker if there are several, the fields given as
    `extra={"fields": {…}}`, and the trace.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker is not None:
            line["worker"] = self._worker
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


def one_line(text: str) -> str:
    """`text` with line breaks and control characters written out: nobody forges a line of ours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _redacted(value: Any, redaction: Redaction) -> Any:
    if isinstance(value, str):
        return redaction.text(value)
    if isinstance(value, dict):
        return {redaction.text(str(name)): _redacted(item, redaction) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, redaction) for item in value]
    return value if isinstance(value, (int, float, bool)) or value is None else redaction.text(str(value))
