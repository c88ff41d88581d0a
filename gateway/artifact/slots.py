"""The places in a JSON value where a file is named, at any depth. Judges no string and fetches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

# The key of a level and, outwards, those around it: made for every value, spelt out only for those that are wanted.
_Path = tuple[Any, Any] | None


class Slot(NamedTuple):
    """A string that was wanted, and where it stands. `path` is like `/images/0`, `top` the outermost key."""

    text: str
    path: str
    top: Any
    container: Any
    key: Any

    def fill(self, value: Any) -> None:
        self.container[self.key] = value


def copy_with_slots(value: Any, is_wanted: Callable[[str], bool]) -> tuple[list[Any], list[Slot]]:
    """
    A copy of `value` as the one element of a list, and its slots in order: filling them changes the copy only.

    Goes by a stack of its own, not by recursion: how deep a provider nests its answer is not ours to say.
    """
    root: list[Any] = [value]
    slots: list[Slot] = []
    stack: list[tuple[Any, Any, _Path]] = [(root, 0, None)]
    while stack:
        container, key, path = stack.pop()
        found = container[key]
        if isinstance(found, str):
            if is_wanted(found):
                spelt = _spell(path)
                slots.append(Slot(found, "/" + "/".join(map(str, spelt)), spelt[0] if spelt else None, container, key))
        elif isinstance(found, dict):
            container[key] = copy = dict(found)
            stack.extend((copy, inner, (inner, path)) for inner in reversed(copy))
        elif isinstance(found, list | tuple):
            container[key] = inside = list(found)
            stack.extend((inside, place, (place, path)) for place in reversed(range(len(inside))))
    return root, slots


def _spell(path: _Path) -> list[Any]:
    keys: list[Any] = []
    while path is not None:
        key, path = path
        keys.append(key)
    return keys[::-1]
