"""What the writing thread remembers of predictions: their rows as they were last committed. It runs no SQL."""

from __future__ import annotations

import msgspec

from gateway.contract.prediction import Prediction
from gateway.store._encoding import Foreign

CACHE_BYTES = 16 * 1024 * 1024


class Row(msgspec.Struct, frozen=True):
    """A prediction as its row has it; `due_at` in microseconds, 0 is at once."""

    number: int
    prediction: Prediction
    is_open: bool
    due_at: int
    worker: str | None
    fence: int
    request_bytes: int
    state_bytes: int
    foreign: Foreign | None = None  # if a newer version wrote its state


class Cache:
    """
    Open predictions as they were last committed, so that a change needs no SELECT and no decoding.

    Written in the writing thread; what a transaction puts here is seen by others once it is committed, and forgotten,
    with all the rest, if it is not. Bounded by the encoded size.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._committed: dict[str, Row] = {}
        self._pending: dict[str, Row] = {}
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def committed(self, id: str) -> Prediction | None:
        """From any thread."""
        row = self._committed.get(id)
        return row.prediction if row is not None else None

    def find(self, id: str) -> Row | None:
        return self._pending.get(id) or self._committed.get(id)

    def put(self, row: Row) -> None:
        """The last act of an operation: nothing that can fail may follow it."""
        self._pending[row.prediction.id] = row

    def end(self, is_committed: bool) -> None:
        if not is_committed:
            self._committed = {}
            self._bytes = 0
        else:
            for id, row in self._pending.items():
                before = self._committed.pop(id, None)
                self._bytes -= _size(before) if before is not None else 0
                if row.is_open:
                    self._committed[id] = row
                    self._bytes += _size(row)
            while self._bytes > self._limit_bytes:
                self._bytes -= _size(self._committed.pop(next(iter(self._committed))))
        self._pending = {}


def _size(row: Row) -> int:
    return row.request_bytes + row.state_bytes
