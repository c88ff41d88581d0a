"""Lengths of time as ops write them: "30s", "5m", "1h30m". Knows no clock."""

from __future__ import annotations

import functools
import re

_PARTS = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
MOST_SECONDS = 86_400.0


@functools.lru_cache(maxsize=1024)
def seconds_of(text: str) -> float:
    """`"1h30m"` → 5400.0. Raises ValueError for what is no length, none at all, or more than a day."""
    found = _PARTS.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise ValueError(f'{text!r} is no length of time such as "30s"')
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    seconds = hours * 3600 + minutes * 60 + rest
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"{text!r} is not between nothing and a day")
    return seconds
