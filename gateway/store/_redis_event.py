"""The stream events and the money rows of a prediction in Redis: how a change brings them, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateway.contract.fact import LedgerEntry
from gateway.store._change import Sorted
from gateway.store._encoding import from_micros, to_micros
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument
from gateway.store.protocol import LedgerRow, StoredEvent


class EventRow(msgspec.Struct, frozen=True, array_like=True):
    """As it lies there. What a later version says more stands at the end, and is left out."""

    sequence: int
    event: str
    data: str
    at: int


class MoneyRow(msgspec.Struct, frozen=True, array_like=True):
    """Likewise."""

    attempt: int
    offer: str
    provider: str
    state: str
    nanos: int | None
    basis: str
    at: int


_EVENT = msgspec.msgpack.Decoder(EventRow)
_LEDGER = msgspec.msgpack.Decoder(MoneyRow)


class Rows:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys

    async def events(self, id: str, *, after: int, limit: int) -> list[StoredEvent]:
        shard, first = self._keys.shard(id), max(after, -1) + 1
        listed = shard.events(id)
        if limit == 0:
            return []
        last = -1 if limit < 0 else first + limit - 1
        found, is_erased = await self._seat.read(
            ("LRANGE", listed, first, last), ("HGET", shard.prediction(id), "erased")
        )
        if is_erased:
            # What is left does not stand where it stood before.
            [found] = await self._seat.read(("LRANGE", listed, 0, -1))
        events = [_EVENT.decode(memoryview(event)[1:]) for event in found]
        return [
            StoredEvent(sequence=row.sequence, event=row.event, data=row.data, at=from_micros(row.at))
            for row in events
            if row.sequence > after
        ]

    async def ledger(self, id: str) -> list[LedgerRow]:
        shard = self._keys.shard(id)
        owner, rows = await self._seat.read(("HGET", shard.prediction(id), "owner"), ("HVALS", shard.ledger(id)))
        return [
            LedgerRow(
                prediction=id,
                attempt=row.attempt,
                owner=owner.decode(),
                offer=row.offer,
                provider=row.provider,
                state=row.state,
                nanos=row.nanos,
                basis=row.basis,
                at=from_micros(row.at),
            )
            for row in sorted((_LEDGER.decode(memoryview(body)[1:]) for body in rows), key=lambda row: row.attempt)
        ]


def of_change(sorted_: Sorted, first_event: int, now: int) -> list[Argument]:
    """As lua/change.lua takes them."""
    events = enumerate(sorted_.events, first_event)
    return _arguments(
        [_event(sequence, event.event, event.data, now) for sequence, event in events],
        [(entry.attempt, _ledger(entry, now)) for entry in sorted_.ledger],
    )


def of_whole(events: Sequence[StoredEvent], ledger: Sequence[LedgerRow]) -> list[Argument]:
    """The same of another store's rows, as they were there."""
    return _arguments(
        [_event(one.sequence, one.event, one.data, to_micros(one.at)) for one in events],
        [(row.attempt, _ledger(row, to_micros(row.at))) for row in ledger],
    )


def _arguments(events: list[bytes], ledger: Iterable[tuple[int, bytes]]) -> list[Argument]:
    rows = list(ledger)
    found: list[Argument] = [len(events), *events, len(rows)]
    for row in rows:
        found += row
    return found


def _event(sequence: int, event: str, data: str, at: int) -> bytes:
    return (b"d" if event == "done" else b"-") + msgspec.msgpack.encode(EventRow(sequence, event, data, at))


def _ledger(entry: LedgerEntry | LedgerRow, at: int) -> bytes:
    flag = b"m" if entry.state == "maybe" else b"-"
    row = MoneyRow(entry.attempt, entry.offer, entry.provider, entry.state, entry.nanos, entry.basis, at)
    return flag + msgspec.msgpack.encode(row)
