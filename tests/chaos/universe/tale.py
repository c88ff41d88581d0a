"""What happened to one prediction, in lines a person can read. And how to see it happen again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.contract.fact import Begun, Learned
from tests.chaos.universe.judge import INVARIANTS, Line
from tests.chaos.universe.play import Report

_MOST_LINES = 120
_LONG = 160


def tell(report: Report) -> Iterator[str]:
    """The violations of a universe, what led to each, and the command that plays it again."""
    for violation in report.violations[:3]:
        yield f"{violation.invariant} is broken in universe {report.seed} at {violation.at:.3f} s: {violation.what}"
        yield f"  ({violation.invariant}: {INVARIANTS[violation.invariant]})"
        lines = [line for line in report.story if line.prediction == violation.prediction]
        if violation.prediction:
            yield f"  prediction {violation.prediction}:"
        for line in lines[:_MOST_LINES]:
            yield f"  {line.at:9.3f}  {line.who:<12} {words(line)}"
    if len(report.violations) > 3:
        yield f"  and {len(report.violations) - 3} more"
    yield f"  again: python -m tests.chaos --universe {report.seed} --store {report.store}"


def words(line: Line) -> str:
    what: Any = line.what
    if isinstance(what, str):
        return what
    if isinstance(what, tuple):
        return " ".join(str(part) for part in what if part is not None)
    if isinstance(what, Begun):
        return f"begins attempt {what.attempt.number} at {what.attempt.provider}"
    if isinstance(what, Learned):
        fact = what.fact
        said = f": {fact.failure.message}" if fact.failure is not None else ""
        return f"learns by {what.source} that attempt {what.attempt} is {fact.phase}{said}"
    if isinstance(what, msgspec.Struct):
        parts = {name: getattr(what, name) for name in what.__struct_fields__}
        if "failure" in parts and parts["failure"] is not None:
            parts["failure"] = f"{parts['failure'].code}: {parts['failure'].message}"
        parts.pop("plan", None)
        said = ", ".join(f"{name} {part}" for name, part in parts.items() if part is not None)
        return f"{type(what).__name__} {said}"[:_LONG]
    return str(what)[:_LONG]
