"""
A store's records as one file, to move them to another store. It knows neither where the file lies, nor which stores.

JSON Lines: a header, a record a line, and an end with their number and the SHA-256 of all that stands before it, so
that a file that was cut, or changed, is never taken for a whole one. Inputs, outputs and signing keys stand in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import ConfigurationError, refuse
from gateway.store._encoding import CONTRACT_VERSION
from gateway.store.protocol import (
    Delivery,
    KeptAudit,
    KeptFile,
    KeptReservation,
    KeptSpending,
    Record,
    Setting,
    Store,
    Whole,
)

FORMAT = 2
_MOST_LINE_BYTES = 1 << 30
_HEADER_BYTES = 4_096
# What goes into a store at once.
_MOST_RECORDS = 100
_MOST_BYTES = 4 * 1024 * 1024


class Header(msgspec.Struct, kw_only=True, frozen=True, tag="turnout-store"):
    format: int
    contract: int  # the version of what its predictions say
    made_by: str
    at: datetime


class Counts(msgspec.Struct, kw_only=True, frozen=True):
    predictions: int = 0
    deliveries: int = 0
    settings: int = 0
    files: int = 0
    audits: int = 0
    budgets: int = 0  # windows of them, and reservations

    def and_(self, record: Record) -> Counts:
        match record:
            case Whole():
                deliveries = self.deliveries + len(record.deliveries)
                return replace(self, predictions=self.predictions + 1, deliveries=deliveries)
            case Setting():
                return replace(self, settings=self.settings + 1)
            case KeptFile():
                return replace(self, files=self.files + 1)
            case KeptAudit():
                return replace(self, audits=self.audits + 1)
            case KeptSpending() | KeptReservation():
                return replace(self, budgets=self.budgets + 1)

    def __str__(self) -> str:
        return (
            f"{self.predictions} predictions with {self.deliveries} deliveries, {self.files} files,"
            f" {self.settings} settings, {self.audits} audit rows,"
            f" {self.budgets} rows of budgets"
        )


class End(msgspec.Struct, kw_only=True, frozen=True, tag="end"):
    counts: Counts
    sha256: str


Line = Header | Whole | Setting | KeptFile | KeptAudit | KeptSpending | KeptReservation | End
Progress = Callable[[Counts], None]

_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


async def write(store: Store, out: BinaryIO, *, made_by: str, at: datetime, progress: Progress) -> Counts:
    """All that `store` holds. `out` is whole only when this returns. Raises OSError, and what the store raises."""
    digest = hashlib.sha256()
    counts = Counts()

    def put(line: Line) -> None:
        text = _encode(line) + b"\n"
        digest.update(text)
        out.write(text)

    put(Header(format=FORMAT, contract=CONTRACT_VERSION, made_by=made_by, at=at))
    async for record in store.dump():
        put(record)
        counts = counts.and_(record)
        progress(counts)
    out.write(_encode(End(counts=counts, sha256=digest.hexdigest())) + b"\n")
    return counts


def examine(source: BinaryIO, *, place: str) -> End:
    """Read it through, line by line, and give its end. Raises ConfigurationError if it is not whole and sound."""
    source.seek(0)
    digest = hashlib.sha256()
    counts = Counts()
    for number, text, line in _lines(source, place):
        if isinstance(line, End):
            if line.sha256 != digest.hexdigest() or line.counts != counts:
                raise _broken(place, "it is not as it was written: its checksum does not fit")
            if source.read(1):
                raise _broken(place, f"something stands behind its end in line {number}")
            return line
        digest.update(text)
        if not isinstance(line, Header):
            counts = counts.and_(line)
    raise _broken(place, f"it was cut off after {counts.predictions} predictions: its end is missing")


def records(source: BinaryIO, *, place: str) -> Iterator[tuple[Record, int]]:
    """What stands in a file that was examined, each with its size in bytes."""
    source.seek(0)
    digest = hashlib.sha256()
    for _, text, line in _lines(source, place):
        if isinstance(line, End):
            if line.sha256 != digest.hexdigest():
                raise _broken(place, "it has changed while it was read")
            return
        digest.update(text)
        if not isinstance(line, Header):
            yield line, len(text)
    raise _broken(place, "it has changed while it was read")


def _lines(source: BinaryIO, place: str) -> Iterator[tuple[int, bytes, Line]]:
    """The first one is a header that we understand, and the only one."""
    number = 0
    while text := source.readline(_HEADER_BYTES if number == 0 else _MOST_LINE_BYTES):
        number += 1
        if number == 1:
            _check_header(text, place)
        if not text.endswith(b"\n"):
            raise _broken(place, f"it was cut off in line {number}")
        try:
            line = _decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _broken(place, f"line {number} cannot be read: {error}") from error
        if isinstance(line, Header) is not (number == 1):
            raise _broken(place, f"line {number} stands where it does not belong")
        yield number, text, line


def _check_header(text: bytes, place: str) -> None:
    try:
        header = msgspec.json.decode(text, type=Header)
    except msgspec.DecodeError:
        raise _broken(place, "it is no export of a store") from None
    if header.format > FORMAT or header.contract > CONTRACT_VERSION:
        raise refuse(
            f"a newer Turnout wrote it ({header.made_by})",
            place=place,
            remedy="import it with that one, or a later one",
        )


async def fill(store: Store, source: BinaryIO, *, place: str, progress: Progress) -> Counts:
    """
    Write a file that was examined into `store`, which is empty, or holds some of the very same predictions.

    What breaks off is taken up by doing it again. Raises ConfigurationError, and what the store raises.
    """
    await _compare(store, source, place=place)
    counts, batch, size = Counts(), list[Record](), 0
    for record, size_bytes in records(source, place=place):
        if batch and (len(batch) >= _MOST_RECORDS or size + size_bytes > _MOST_BYTES):
            await store.load(batch)
            progress(counts)
            batch, size = [], 0
        batch.append(record)
        size += size_bytes
        counts = counts.and_(record)
    if batch:
        await store.load(batch)
    progress(counts)
    return counts


async def _compare(store: Store, source: BinaryIO, *, place: str) -> None:
    """That nothing in `store` would be lost: what it holds is in the file, word for word."""
    kept = 0
    async for record in store.dump():
        kept += isinstance(record, Whole)
    if not kept:
        return
    same = 0
    for record, _ in records(source, place=place):
        if isinstance(record, Whole):
            same += await _is_there(store, record, place)
    if same != kept:
        raise _occupied(place, f"{kept - same} predictions that do not stand in the file")


async def _is_there(store: Store, whole: Whole, place: str) -> bool:
    id = whole.prediction.id
    found = await store.get(id)
    if found is None:
        return False
    if found != whole.prediction or _comparable(await store.deliveries(id)) != _comparable(whole.deliveries):
        raise _occupied(place, f"another state of prediction {id}: somebody has gone on with it")
    return True


def _comparable(deliveries: tuple[Delivery, ...] | list[Delivery]) -> list[Delivery]:
    """A fence counts within its store."""
    return [replace(delivery, fence=0) for delivery in deliveries]


def _occupied(place: str, what: str) -> ConfigurationError:
    return refuse(
        f"nothing was imported: the store holds {what}", place=place, remedy="import into an empty store in [store] url"
    )


def _broken(place: str, problem: str) -> ConfigurationError:
    return refuse(problem, place=place, remedy="export the store again")
