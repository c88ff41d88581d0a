"""How much an answer may say beside its output: what fits a row of the store. Bounds no answer, and no output."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import Failure
from gateway.contract.fact import Fact
from providers._reading import quote

MAX_LOG_CHARACTERS = 1_000_000
MAX_MESSAGE_CHARACTERS = 2_000
MAX_HANDLE_CHARACTERS = 16_000
MAX_METRICS, MAX_METRIC_BYTES = 100, 1_000  # so many, and each so long
_LEFT_OUT = "\n(what follows is left out: the provider's log is too long)\n"


def bounded(fact: Fact) -> Fact:
    """The fact with as much of its logs, metrics and words as is kept; the very same object if it is all."""
    changes: dict[str, Any] = {}
    if fact.logs is not None and len(fact.logs) > MAX_LOG_CHARACTERS:
        # Its beginning: logs are cumulative, and what was shown once stays as it was.
        changes["logs"] = fact.logs[:MAX_LOG_CHARACTERS] + _LEFT_OUT
    if fact.metrics and not _fit(fact.metrics):
        changes["metrics"] = dict([item for item in fact.metrics.items() if _fits(*item)][:MAX_METRICS])
    if fact.failure is not None and len(fact.failure.message) > MAX_MESSAGE_CHARACTERS:
        changes["failure"] = _shortened(fact.failure)
    return replace(fact, **changes) if changes else fact


def is_too_long(handle: dict[str, str]) -> bool:
    """True for a handle that no provider has use for: it is written at every step of the attempt."""
    return sum(len(key) + len(value) for key, value in handle.items()) > MAX_HANDLE_CHARACTERS


def _fit(metrics: dict[str, Any]) -> bool:
    return len(metrics) <= MAX_METRICS and all(_fits(*item) for item in metrics.items())


def _fits(name: str, value: Any) -> bool:
    if len(name) > MAX_METRIC_BYTES:
        return False
    return isinstance(value, (int, float)) or len(msgspec.json.encode(value)) <= MAX_METRIC_BYTES


def _shortened(failure: Failure) -> Failure:
    return replace(failure, message=quote(failure.message, MAX_MESSAGE_CHARACTERS))
