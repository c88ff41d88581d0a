"""Waits until something holds, and no longer than it may take. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.02  # between two looks


def until(
    holds: Callable[[], T], *, seconds: float = 10.0, or_else: str | Callable[[], str] = "it did not come to be"
) -> T:
    """What `holds` gave as soon as it was true. Raises AssertionError, with what `or_else` says, when time is over."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"within {seconds} s: {or_else if isinstance(or_else, str) else or_else()}"
        time.sleep(_LOOK_SECONDS)
    return found
