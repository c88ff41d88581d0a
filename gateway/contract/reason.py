"""
Why a candidate stands where it does: a code, and what it was judged by. The sentence is made when somebody reads it.

A plan is made for every prediction, and its reasons are read for one in a thousand.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.contract.money import format_dollars

Value = str | int | float | None


class Reason(msgspec.Struct, kw_only=True, frozen=True, rename={"written": "text"}):
    """
    `code` is fixed vocabulary (`policies.keep.Code`). `written` is a sentence; where it is empty `values` make one.

    Stored as `text` and `values`: a reader that knows no values shows the code alone.
    """

    code: str
    written: str = ""
    values: tuple[Value, ...] = ()

    @property
    def text(self) -> str:
        return self.written or _SENTENCES.get(self.code, _plain)(*self.values)


# What a candidate has to show, by the word that stands first among the values of a reason for its place.
_MEASURES: dict[str, Callable[[Value], str]] = {
    "cost": lambda nanos: "cost unknown" if nanos is None else f"{format_dollars(int(nanos))} expected",
    "success": lambda share: "success unknown" if share is None else f"{share:.0%} succeed",
    "score": lambda score: f"score {score:.3f}",
    "place": lambda place: f"place {place:.0f}",
}


def _measured(measure: Value, value: Value) -> str:
    """Every other word is a quantile of the time to a result."""
    shown = _MEASURES.get(str(measure))
    if shown is not None:
        return shown(value)
    return "latency unknown" if value is None else f"{measure} {value:.3g} s"


def _first(measure: Value, own: Value, *others: Value) -> str:
    behind = f"next {_measured(measure, others[0])}" if others else "no other"
    return f"{_measured(measure, own)}, {behind}"


def _tie(count: Value) -> str:
    return f"one of {count} that are about as good, ordered by draw"


def _plain(*values: Value) -> str:
    return ", ".join(str(value) for value in values)


_SENTENCES: dict[str, Callable[..., str]] = {
    **dict.fromkeys(("cheapest", "fastest", "steadiest", "best", "ordered"), _first),
    "next": _measured,
    "tie": _tie,
}
