"""What Redis keeps beside the predictions: files, settings, the trail of what people did. There is little of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace

from gateway.store._encoding import FILE, to_micros
from gateway.store._redis_key import digits
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import load
from gateway.store.protocol import AuditRow, FileRow

PUT_FILE = load("put_file")
DELETE_FILE = load("delete_file")
KEEP = load("keep")
SWAP = load("swap")
PUT_AUDIT = load("put_audit")

_CHUNK = 500
_AUDIT = msgspec.msgpack.Decoder(AuditRow)


class Files:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys

    async def put(self, row: FileRow, *, is_moved: bool = False) -> None:
        if is_moved and (kept := await self.get(row.id, owner=None)) is not None:
            await self.delete(row.id, owner=kept.owner)
        shard = self._keys.shard(row.id)
        listed, expires = digits(to_micros(row.created_at)) + row.id, digits(to_micros(row.expires_at)) + row.id
        keys = [shard.file(row.id), shard.owned_files(row.owner), shard.files]
        await self._seat.run(PUT_FILE, keys, [row.owner, FILE.encode(row), listed, expires])

    async def get(self, id: str, *, owner: str | None) -> FileRow | None:
        [body] = await self._seat.read(("HGET", self._keys.shard(id).file(id), "body"))
        row = FILE.decode(body) if body is not None else None
        return row if row is not None and (owner is None or owner == row.owner) else None

    async def delete(self, id: str, *, owner: str, is_late: bool = False) -> FileRow | None:
        shard = self._keys.shard(id)
        keys = [shard.file(id), shard.owned_files(owner), shard.files]
        body = await self._seat.run(DELETE_FILE, keys, [owner, "1" if is_late else "0"])
        return FILE.decode(body) if body is not None else None

    async def expire(self, *, limit: int) -> list[FileRow]:
        now = digits(to_micros(self._seat.now()))
        found = await self._seat.read(
            *(("ZRANGEBYLEX", shard.files, "-", f"[{now}~", "LIMIT", 0, limit) for shard in self._keys.shards)
        )
        entries = sorted(entry.decode() for some in found for entry in some)
        expired: list[FileRow] = []
        for entry in entries[:limit]:
            row = await self.get(entry[16:], owner=None)
            if row is not None and (gone := await self.delete(row.id, owner=row.owner, is_late=True)) is not None:
                expired.append(gone)
        return expired

    async def all(self) -> AsyncIterator[FileRow]:
        for shard in self._keys.shards:
            after = "-"
            while True:
                [entries] = await self._seat.read(("ZRANGEBYLEX", shard.files, after, "+", "LIMIT", 0, _CHUNK))
                if not entries:
                    break
                after = f"({entries[-1].decode()}"
                for entry in entries:
                    row = await self.get(entry[16:].decode(), owner=None)
                    if row is not None:
                        yield row


class Settings:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._key = seat.keys.first.settings

    async def keep(self, name: str, default: str) -> str:
        [known] = await self._seat.read(("HGET", self._key, name))
        if known is None:
            known = await self._seat.run(KEEP, [self._key], [name, default])
        kept: bytes = known
        return kept.decode()

    async def swap(self, name: str, value: str) -> str | None:
        before = await self._seat.run(SWAP, [self._key], [name, value])
        return before.decode() if before is not None else None

    async def all(self) -> list[tuple[str, str]]:
        """There are few."""
        [names] = await self._seat.read(("HKEYS", self._key))
        values = await self._seat.read(*(("HGET", self._key, name) for name in sorted(names)))
        return [(name.decode(), value.decode()) for name, value in zip(sorted(names), values, strict=True)]


class Audit:
    """Ids are numbers without a gap, so that a hash holds the trail."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._key = seat.keys.first.audit
        self._number = seat.keys.first.audit_number

    async def put(self, row: AuditRow) -> AuditRow:
        kept = row
        if row.id:
            [body] = await self._seat.read(("HGET", self._key, row.id))
            if body is None:
                return row
            kept = replace(_AUDIT.decode(body), outcome=row.outcome)
        id: int = await self._seat.run(
            PUT_AUDIT, [self._key, self._number], [msgspec.msgpack.encode(kept), row.id, "0"]
        )
        return replace(row, id=id)

    async def keep(self, row: AuditRow) -> None:
        """A row of another store, under its own id."""
        await self._seat.run(PUT_AUDIT, [self._key, self._number], [msgspec.msgpack.encode(row), row.id, "1"])

    async def newest(self, *, before: int | None, limit: int) -> list[AuditRow]:
        found: list[AuditRow] = []
        async for row in self._back_from(before, min(limit, _CHUNK)):
            if len(found) >= limit:
                break
            found.append(row)
        return found

    async def last(self, actions: frozenset[str], outcomes: frozenset[str]) -> list[AuditRow]:
        found: dict[str, AuditRow] = {}
        if actions and outcomes:
            async for row in self._back_from(None, _CHUNK):
                if row.action in actions and row.outcome in outcomes:
                    found.setdefault(row.target, row)
        return sorted(found.values(), key=lambda row: row.id)

    async def all(self) -> AsyncIterator[AuditRow]:
        """Oldest first."""
        first, last = 1, await self._last_id()
        while first <= last:
            for row in await self._rows(range(first, min(first + _CHUNK, last + 1))):
                yield row
            first += _CHUNK

    async def _last_id(self) -> int:
        [number] = await self._seat.read(("GET", self._number))
        return int(number or 0)

    async def _back_from(self, before: int | None, chunk: int) -> AsyncIterator[AuditRow]:
        last = await self._last_id()
        if before is not None:
            last = min(last, before - 1)
        while last > 0:
            for row in await self._rows(range(last, max(last - chunk, 0), -1)):
                yield row
            last -= chunk

    async def _rows(self, ids: range) -> list[AuditRow]:
        if not ids:
            return []
        [bodies] = await self._seat.read(("HMGET", self._key, *ids))
        return [replace(_AUDIT.decode(body), id=id) for id, body in zip(ids, bodies, strict=True) if body is not None]
