"""What a stated value must be: one of some words, or a number within bounds. Knows no names of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# What is beyond it is a mistake or an attack, and says nothing of what will be made.
_MAX_AMOUNT = 1e9
_SIGNS = {"at_least": "≥", "below": "<"}


class Condition(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Either `words`, of which one must be it, or bounds: from `at_least` on, up to and without `below`."""

    words: tuple[str | bool | float, ...] = ()
    at_least: float | None = None
    below: float | None = None

    @property
    def text(self) -> str:
        """`720p or 768p`, `≥ 1.5 < 4`."""
        if self.words:
            return " or ".join(map(_text, self.words))
        bounds = ((sign, getattr(self, name)) for name, sign in _SIGNS.items())
        return " ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def holds(self, value: Any) -> bool | None:
        """None where it cannot be told: nothing is stated, or something of another sort ("auto" seconds)."""
        if self.words:
            if type(value) is str and value in self.words:
                return True
            told: bool | None = False
            for word in self.words:
                is_it = _is(value, word)
                if is_it:
                    return True
                if is_it is None:
                    told = None
            return told
        number = number_of(value)
        if number is None:
            return None
        return not (
            (self.at_least is not None and number < self.at_least) or (self.below is not None and number >= self.below)
        )


def read_condition(said: Any) -> Condition:
    """`"1080p"`, `true`, `5`, a list of such, or `{at_least = 1.5}`. Raises ValueError."""
    if isinstance(said, Mapping):
        for name, bound in said.items():
            if name not in _SIGNS or isinstance(bound, bool) or not isinstance(bound, (int, float)):
                raise ValueError(f"{name} = {bound!r} is no bound; write a number for one of {', '.join(_SIGNS)}")
        if not said:
            raise ValueError(f"it is empty; write a number for one of {', '.join(_SIGNS)}")
        return Condition(**said)
    words = said if isinstance(said, (list, tuple)) else (said,)
    if not words or not all(isinstance(word, (str, bool, int, float)) and word != "" for word in words):
        raise ValueError("it is none of text, a number, true, false, a list of these, or a bound as { at_least = 2 }")
    return Condition(words=tuple(words))


def number_of(value: Any) -> float | None:
    """An amount that makes sense; text such as "5" or "5s" counts."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= _MAX_AMOUNT else None


def _is(value: Any, word: str | bool | float) -> bool | None:
    if isinstance(word, bool):
        said = _text(value) if isinstance(value, (str, bool)) else ""
        return said == _text(word) if said in ("true", "false") else None
    if isinstance(word, str):
        said = _text(value) if isinstance(value, (str, bool, int, float)) else ""
        return said.strip().casefold() == word.strip().casefold() if said else None
    number = number_of(value)
    return None if number is None else number == word


def _text(value: str | bool | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"
