"""Request headers that ask for something: Prefer, Cancel-After, ETags, Range and the like, and ours. Only reads."""

from __future__ import annotations

import re

from gateway.api.refusal import invalid

LEAST_CANCEL_SECONDS = 5.0
MOST_CANCEL_SECONDS = 86_400.0
MOST_LABELS = 16

_NUMBER = re.compile(r"\d{1,12}", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_LABEL_VALUE = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?", re.ASCII)
_IDEMPOTENCY_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)
_POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


def prefer_seconds(header: str | None, *, most_seconds: float) -> float | None:
    """
    How long to hold the answer; None: not at all. More than `most_seconds` is clamped, as npm's client asks for any n.

    A preference that cannot be understood is ignored, as RFC 7240 says.
    """
    if not header:
        return None
    for preference in header.split(","):
        name, equals, value = preference.strip().partition("=")
        if name.strip().lower() != "wait":
            continue
        value = value.strip().strip('"')
        if not equals or not value:
            return most_seconds or None
        if _NUMBER.fullmatch(value) is None:
            return None
        seconds = min(float(value), most_seconds)
        return seconds or None
    return None


def preference_applied(header: str | None, seconds: float) -> str:
    """`wait`, or `wait=n` if a number was asked for: the one that was held to."""
    return f"wait={seconds:g}" if header is not None and "=" in header else "wait"


def cancel_after_seconds(header: str | None) -> float | None:
    """`30`, `30s`, `5m`, `1h30m45s`; from 5 seconds to 24 hours. Raises InputInvalid."""
    if header is None:
        return None
    text = header.strip().lower()
    if text.isascii() and text.isdigit() and len(text) <= 6:
        seconds = float(text)
    else:
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            raise invalid("format", "Cancel-After", 'Must be a duration such as "30", "30s", "5m" or "1h30m45s"')
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = float(hours * 3600 + minutes * 60 + rest)
    if seconds < LEAST_CANCEL_SECONDS:
        raise invalid("number_gte", "Cancel-After", "Must be greater than or equal to 5 seconds")
    if seconds > MOST_CANCEL_SECONDS:
        raise invalid("number_lte", "Cancel-After", "Must be less than or equal to 24 hours")
    return seconds


def idempotency_key(header: str | None) -> str | None:
    """1 to 255 printable ASCII characters. Raises InputInvalid."""
    if header is None:
        return None
    if _IDEMPOTENCY_KEY.fullmatch(header) is None:
        raise invalid("format", "Idempotency-Key", "Must be 1 to 255 printable ASCII characters")
    return header


def labels(header: str | None) -> dict[str, str]:
    """`team=search,tier=gold`: at most 16. Raises InputInvalid."""
    found: dict[str, str] = {}
    for pair in (header or "").split(","):
        if not pair.strip():
            continue
        key, _, value = (part.strip() for part in pair.partition("="))
        if _LABEL_KEY.fullmatch(key) is None or _LABEL_VALUE.fullmatch(value) is None:
            raise invalid("format", "Turnout-Labels", "Must be pairs such as team=search,tier=gold")
        found[key] = value
    if len(found) > MOST_LABELS:
        raise invalid("format", "Turnout-Labels", f"Must have at most {MOST_LABELS} labels")
    return found


def policy(header: str | None) -> str | None:
    """The name of a policy. Raises InputInvalid."""
    if header is None:
        return None
    if _POLICY.fullmatch(header.strip()) is None:
        raise invalid("format", "Turnout-Policy", "Must be the name of a policy")
    return header.strip()


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """
    First and last byte (inclusive) of a single range; None: send the whole.

    Raises ValueError for a range outside of the file (416). Several ranges, or another unit, get the whole file.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        length = min(int(last), size_bytes)
        if length == 0:
            raise ValueError("an empty range")
        return size_bytes - length, size_bytes - 1
    begin = int(first)
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    if last and int(last) < begin:
        return None  # not a range at all
    if begin >= size_bytes:
        raise ValueError("a range beyond the end")
    return begin, end


def names_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match names `etag`, which comes with its quotes."""
    if not header:
        return False
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in header.split(","))
