"""How a prediction's hash looks, and what this process remembers of it. Every use of that is checked by a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.prediction import Prediction
from gateway.store._encoding import CONTRACT_VERSION, Foreign, decode_prediction, encode_state, foreign_of, providers_of

CACHE_BYTES = 16 * 1024 * 1024
FIELDS = ("request", "state", "deliveries", "open", "due", "worker", "fence", "key", "hash")


class Row(msgspec.Struct, frozen=True):
    """A prediction as it was at its revision; `due_at` in microseconds, 0 is at once."""

    prediction: Prediction
    is_open: bool
    due_at: int
    request_size: int  # bytes
    state_size: int
    foreign: Foreign | None = None  # if a newer version wrote its state


class Kept(msgspec.Struct, frozen=True):
    """The rest of the hash, which changes without the revision."""

    row: Row
    worker: str
    fence: int
    key: str  # the idempotency key it was created under; empty: none
    body_hash: str


def decode(values: Sequence[Any]) -> Kept:
    """Of FIELDS. Raises PredictionUnreadable."""
    request, state, deliveries, is_open, due, worker, fence, key, body_hash = values
    prediction = with_deliveries(decode_prediction(request, state), deliveries)
    row = Row(prediction, is_open == b"1", int(due), len(request), len(state), foreign_of(state))
    return Kept(row, worker.decode(), int(fence), (key or b"").decode(), (body_hash or b"").decode())


def with_deliveries(prediction: Prediction, deliveries: bytes | int | None) -> Prediction:
    """How many there are is known where they are counted: one may be folded into another."""
    count = int(deliveries or 0)
    return prediction if count == prediction.deliveries else replace(prediction, deliveries=count)


def encode(prediction: Prediction, foreign: Foreign | None = None) -> bytes:
    return encode_state(prediction, foreign)


def version_of(foreign: Foreign | None) -> int:
    return CONTRACT_VERSION if foreign is None else foreign.version


def searched(prediction: Prediction, created: str) -> str:
    """See lua/wanted.lua. `created` has sixteen digits."""
    rescued = "1" if prediction.is_rescued else "0"
    words = (prediction.status.value, prediction.owner, prediction.request.model, providers_of(prediction))
    return created + rescued + "\n".join(word.replace("\n", " ") for word in words)


class Cache:
    """Open predictions as they were last seen, the least lately used forgotten first. Bounded by the encoded size."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._rows: dict[str, Row] = {}
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def find(self, id: str) -> Row | None:
        return self._rows.get(id)

    def put(self, row: Row) -> None:
        """Unless a later revision is known: answers may overtake each other."""
        id = row.prediction.id
        before = self._rows.get(id)
        if before is not None and before.prediction.revision > row.prediction.revision:
            return
        self.drop(id)
        if not row.is_open:
            return
        self._rows[id] = row
        self._bytes += _size(row)
        while self._bytes > self._limit_bytes:
            self.drop(next(iter(self._rows)))

    def drop(self, id: str) -> None:
        before = self._rows.pop(id, None)
        if before is not None:
            self._bytes -= _size(before)


def _size(row: Row) -> int:
    return row.request_size + row.state_size
