"""What messages about somebody's text need: to show it on one line, to guess what was meant. Writes no message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import date


def printable(text: str) -> str:
    """`text` on one line, without control characters, not longer than 80."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:81])
    return shown if len(shown) <= 80 else shown[:79] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def read_date(text: str) -> date:
    """The first day of "2026-08-21", "2026-08" or "2026". Raises ValueError."""
    if re.fullmatch(r"\d{4}(-\d{2}){0,2}", text) is None:
        raise ValueError(f'"{text}" is no date')
    try:
        return date.fromisoformat(text + "-01" * (2 - text.count("-")))
    except ValueError:
        raise ValueError(f'"{text}" is no date') from None
