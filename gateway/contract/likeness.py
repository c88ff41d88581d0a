"""A stand-in for a JSON value by which it is looked up among thousands. What is found is still to be compared."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

_DEEPEST = 6  # levels that it tells apart


def likeness(value: Any, *, depth: int = 0) -> Hashable:
    """Equal values have the same one (1 and 1.0 too); those that differ mostly another."""
    if isinstance(value, dict):
        if depth == _DEEPEST:
            return len(value)
        return frozenset((key, likeness(item, depth=depth + 1)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return len(value) if depth == _DEEPEST else tuple(likeness(item, depth=depth + 1) for item in value)
    return value  # type: ignore[no-any-return]
