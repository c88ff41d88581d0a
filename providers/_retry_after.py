"""When a provider wants us back, in all the ways providers say it. Not what we do about it."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from gateway.contract.provider import HttpResponse

MAX_SECONDS = 86_400.0  # whoever says more is not to be planned with
_SEARCHED_CHARACTERS = 4_000

_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_STEP = re.compile(rf"({_NUMBER}) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])")
_IN_TEXT = re.compile(
    rf"(?:resets? in|again in|again after|retry in|retry after|wait)\s{{0,4}}(?:for )?[~≈]?\s{{0,4}}"
    rf"((?:{_NUMBER} ?[a-z]{{1,12}}[ ,]{{0,2}}){{1,4}})",
    re.IGNORECASE,
)
_UNIT_SECONDS = {"ms": 0.001, "mi": 60.0, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86_400.0}


def read_retry_after(response: HttpResponse) -> float | None:
    """
    Seconds from the answer on, within [0, MAX_SECONDS]; None if it says nothing that can be understood.

    In order: `retry-after-ms`, `retry-after` (seconds, or a date measured against the answer's own `date`), a body's
    `retry_after`, `estimated_time` or google.rpc.RetryInfo, the reset of an exhausted `x-ratelimit-*` bucket, and words
    such as "resets in ~30s".
    """
    headers = response.headers
    found = _number(headers.get("retry-after-ms"), scale=0.001)
    if found is None:
        found = _retry_after(headers.get("retry-after"), headers.get("date"))
    if found is None and response.status >= 400:
        found = _from_body(response.body)
    if found is None and response.status == 429:
        found = _from_buckets(response)
    if found is None and response.status >= 400:
        found = _from_text(response.body)
    return None if found is None else min(max(found, 0.0), MAX_SECONDS)


def read_duration(text: str) -> float | None:
    """`1s`, `6m0s`, `1h30m`, `450ms`, `2 minutes`, `12` → seconds; None for anything else."""
    text = text.strip().lower()
    if (plain := _number(text)) is not None:
        return plain
    total, end = 0.0, 0
    for step in _STEP.finditer(text):
        if text[end : step.start()].strip(" ,"):
            return None
        total += float(step[1]) * _unit_seconds(step[2])
        end = step.end()
    return total if end and not text[end:].strip(" ,.") else None


def _unit_seconds(unit: str) -> float:
    return _UNIT_SECONDS["ms"] if unit in ("ms", "millisecond", "milliseconds") else _UNIT_SECONDS[unit[0]]


def _number(value: Any, *, scale: float = 1.0) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str) and not re.fullmatch(rf"\s*-?{_NUMBER}\s*", value, re.ASCII):
        return None
    if not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value) * scale
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _retry_after(value: str | None, date: str | None) -> float | None:
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        # Without the answer's own date there is no "now" to measure from: an adapter has no clock.
        until, now = parsedate_to_datetime(value), parsedate_to_datetime(date or "")
        return (until.replace(tzinfo=until.tzinfo or UTC) - now.replace(tzinfo=now.tzinfo or UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):
        return read_duration(value)


def _from_body(body: bytes) -> float | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if isinstance(value, list) and value:  # Google's errors, where a stream was asked for
        value = value[0]
    for holder in (value, value.get("error") if isinstance(value, dict) else None):
        if isinstance(holder, dict):
            found = next((holder[key] for key in ("retry_after", "estimated_time") if key in holder), None)
            found = _retry_info(holder) if found is None else found
            seconds = read_duration(found) if isinstance(found, str) else _number(found)
            if seconds is not None:
                return seconds
    return None


def _retry_info(error: dict[str, Any]) -> Any:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith("google.rpc.RetryInfo"):
            return detail.get("retryDelay")
    return None


def _from_buckets(response: HttpResponse) -> float | None:
    """OpenAI's buckets: only one that is empty holds us up, and its reset is a duration such as `6m0s`."""
    waits = [
        read_duration(response.headers.get(f"x-ratelimit-reset-{bucket}", ""))
        for bucket in ("requests", "tokens")
        if response.headers.get(f"x-ratelimit-remaining-{bucket}", "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _from_text(body: bytes) -> float | None:
    found = _IN_TEXT.search(body[:_SEARCHED_CHARACTERS].decode("utf-8", "replace"))
    if found is None:
        return None
    steps = _STEP.findall(found[1].lower())
    return sum(float(amount) * _unit_seconds(unit) for amount, unit in steps) if steps else None
