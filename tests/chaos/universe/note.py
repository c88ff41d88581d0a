"""A slip that travels with one call of the store, so that the judge hears of its commit as it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any


class Note:
    """Who called which verb with what. `commit` tells the judge, once."""

    __slots__ = ("args", "is_told", "named", "process", "tell", "verb")

    def __init__(
        self,
        process: str,
        verb: str,
        args: Sequence[Any],
        named: Mapping[str, Any],
        tell: Callable[[Note, Any], None],
    ) -> None:
        self.process = process
        self.verb = verb
        self.args = args
        self.named = named
        self.tell = tell
        self.is_told = False

    def commit(self, result: Any) -> None:
        if not self.is_told:
            self.is_told = True
            self.tell(self, result)


class _Slot:
    """Between a call and the writer's queue nobody else runs: one place is enough."""

    def __init__(self) -> None:
        self._note: Note | None = None

    def put(self, note: Note) -> None:
        self._note = note

    def take(self) -> Note | None:
        note, self._note = self._note, None
        return note


NOTE = _Slot()
# For a store that makes a task of each write: which call it belongs to.
CURRENT: ContextVar[Note] = ContextVar("note")
