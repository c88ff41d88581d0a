"""W3C trace context of a prediction: read from callers, derived for what we do. Draws no span, and keeps nothing."""

from __future__ import annotations

import hashlib
import re

from gateway.contract.prediction import Prediction

SAMPLED = 0x01
# https://www.w3.org/TR/trace-context/#traceparent-header: a later version may carry more after a dash.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def read_traceparent(text: str | None) -> str:
    """A caller's `traceparent` as version 00, or "" if there is none that can be understood: it is then ignored."""
    found = _TRACEPARENT.fullmatch(text.strip()) if text is not None and len(text) <= 512 else None
    if found is None or (found[1] == "00" and found[5]):
        return ""
    return f"00-{found[2]}-{found[3]}-{found[4]}"


def traceparent(trace_id: str, span_id: str, flags: int) -> str:
    return f"00-{trace_id}-{span_id}-{flags:02x}"


def given(prediction: Prediction, number: int) -> str:
    """What attempt `number` is told by a gateway that draws no spans: the caller's own context, if it gave one."""
    return prediction.request.trace


def trace_id(prediction: Prediction) -> str:
    """32 hex: the caller's trace, else one that is always the same for this prediction."""
    given = prediction.request.trace
    return given[3:35] if given else _derived(16, "trace", prediction.id)


def parent_id(prediction: Prediction) -> str:
    """16 hex: the caller's span under which the prediction runs; "" if the caller named none."""
    return prediction.request.trace[36:52]


def flags(prediction: Prediction) -> int:
    """The caller's trace flags; 0 if there are none."""
    return int(prediction.request.trace[53:55] or "0", 16)


def prediction_span_id(prediction: Prediction) -> str:
    """16 hex, as those below: derived, so that a context which was passed on can be drawn after a crash."""
    return _derived(8, "prediction", prediction.id)


def attempt_span_id(prediction: Prediction, number: int) -> str:
    return _derived(8, "attempt", prediction.id, str(number))


def delivery_span_id(delivery: str, number: int) -> str:
    """Of one try, counted from 1."""
    return _derived(8, "delivery", delivery, str(number))


def _derived(size_bytes: int, *parts: str) -> str:
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()[:size_bytes]
    return (digest if any(digest) else b"\x01" * size_bytes).hex()  # all zeros is no id
