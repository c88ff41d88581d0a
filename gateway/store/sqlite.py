"""
The store in one SQLite file, for one process: every verb of the protocol, and which thread carries it.

Writes go to the one writer. Point reads run where they are called: in WAL mode they wait for nobody, and a look-up by
key costs less (some 10 µs) than the way to another thread and back. Lists decode a whole page, and have a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.contract.budget import Refusal, Reservation, Reserved, Spending
from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError, StoreUnavailable
from gateway.contract.fact import Effect, Happening
from gateway.contract.prediction import Prediction
from gateway.store import _audit, _budget, _delivery, _moving, _search, _view
from gateway.store._database import Database
from gateway.store._delivery_walk import MOST_PIECES, Place
from gateway.store._encoding import FILE, from_micros, to_micros
from gateway.store._prediction import Predictions
from gateway.store._writer import Writer
from gateway.store.protocol import (
    Applied,
    AuditRow,
    Backlog,
    CreateResult,
    Delivery,
    FileRow,
    Heard,
    Held,
    Lease,
    LedgerRow,
    Page,
    Record,
    Redelivery,
    Reduce,
    Search,
    Snapshot,
    StoredEvent,
    Whole,
)

T = TypeVar("T")


class SqliteStore:
    """`await SqliteStore.open(path, …)`, and `await store.aclose()` at the end. See `protocol.Store` for the verbs."""

    def __init__(self, database: Database, *, reduce: Reduce, snapshot: Snapshot, clock: Clock, max_queue: int) -> None:
        self._clock = clock
        self._database = database
        self._predictions = Predictions(reduce=reduce, snapshot=snapshot)
        self._writer = Writer(database.connect_writer, max_queue=max_queue, ended=self._predictions.cache.end)
        self._list_reader = database.connect_reader()
        self._list_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turnout-store-list")
        self._place: Place[tuple[int, int]] | None = None  # of claims that leave lanes out
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, path: str | Path, *, reduce: Reduce, snapshot: Snapshot, clock: Clock, max_queue: int = 1_000
    ) -> SqliteStore:
        """
        Open or make the file at `path`, and its folder. `max_queue`: writes that may wait for their commit.

        Raises ConfigurationError: not writable, not ours, from a newer version, or open in another process.
        """
        database = await asyncio.to_thread(Database, Path(path))
        store = cls(database, reduce=reduce, snapshot=snapshot, clock=clock, max_queue=max_queue)
        store._writer.start(database.writer)
        # Nobody else can have it open: whoever held something is dead.
        try:
            await store._writer.submit(store._void_leases)
        except BaseException:
            await store.aclose()
            raise
        return store

    @property
    def commits(self) -> int:
        """Transactions committed since it was opened."""
        return self._writer.commits

    # -- predictions -------------------------------------------------------------------------------------------

    async def create(
        self,
        prediction: Prediction,
        *,
        idempotency_key: str | None = None,
        body_hash: str = "",
        worker: str | None = None,
        effects: Sequence[Effect] = (),
    ) -> CreateResult:
        return await self._writer.submit(
            lambda db: self._predictions.create(
                db,
                self._clock.now(),
                prediction,
                idempotency_key=idempotency_key,
                body_hash=body_hash,
                worker=worker,
                effects=effects,
            )
        )

    async def apply(self, id: str, happening: Happening, *, lease: Lease | None = None) -> Applied:
        return await self._writer.submit(
            lambda db: self._predictions.apply(db, self._clock.now(), id, happening, lease=lease)
        )

    async def get(self, id: str, *, owner: str | None = None) -> Prediction | None:
        known = self._predictions.cache.committed(id)
        if known is not None:
            return known if owner is None or owner == known.owner else None
        return self._read(lambda db: _view.prediction(db, id, owner=owner))

    async def list_predictions(
        self,
        *,
        owner: str,
        position: str | None = None,
        limit: int = 100,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page:
        return await self._list(
            lambda db: _view.page(
                db,
                owner=owner,
                position=position,
                limit=limit,
                created_after=created_after,
                created_before=created_before,
            )
        )

    async def search_predictions(self, search: Search, *, position: str | None = None, limit: int = 100) -> Page:
        return await self._list(lambda db: _search.search(db, search, position=position, limit=limit))

    async def find_attempt(self, token_hash: str) -> tuple[str, int] | None:
        return self._read(lambda db: _view.find_attempt(db, token_hash))

    async def find_stream(self, stream_token: str) -> str | None:
        return self._read(lambda db: _view.find_stream(db, stream_token))

    async def events(self, id: str, *, after: int = -1, limit: int = 1000) -> list[StoredEvent]:
        return self._read(lambda db: _view.events(db, id, after=after, limit=limit))

    async def ledger(self, id: str) -> list[LedgerRow]:
        return self._read(lambda db: _view.ledger(db, id))

    async def maybes(self, *, created_after: datetime | None = None, limit: int = 1_000) -> list[str]:
        return await self._list(lambda db: _view.maybes(db, created_after=created_after, limit=limit))

    # -- leases ------------------------------------------------------------------------------------------------

    async def beat(self, worker: str, *, lease_seconds: float) -> None:
        await self._writer.submit(lambda db: self._predictions.beat(db, self._clock.now(), worker, lease_seconds))

    async def claim_due(self, worker: str, *, limit: int) -> list[Held]:
        return await self._writer.submit(
            lambda db: self._predictions.claim_due(db, self._clock.now(), worker, limit=limit)
        )

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        await self._writer.submit(lambda db: self._predictions.release(db, worker, ids))

    def _void_leases(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM worker")
        db.execute("UPDATE prediction SET worker = NULL WHERE is_open = 1 AND worker IS NOT NULL")
        _delivery.void_claims(db, to_micros(self._clock.now()))

    # -- outbox ------------------------------------------------------------------------------------------------

    async def claim_deliveries(
        self, worker: str, *, limit: int, lease_seconds: float, exclude_lanes: frozenset[tuple[str, str]] = frozenset()
    ) -> list[Delivery]:
        lease_micros = timedelta(seconds=lease_seconds) // timedelta(microseconds=1)
        claimed: list[Delivery] = []
        place = after = self._place
        is_through = False

        def look(db: sqlite3.Connection) -> list[Delivery]:
            nonlocal after, is_through  # run once more, it comes to the same
            found, after, is_through = _delivery.claim(
                db,
                to_micros(self._clock.now()),
                worker=worker,
                limit=limit - len(claimed),
                lease_micros=lease_micros,
                exclude_lanes=exclude_lanes,
                place=place,
            )
            return found

        for _ in range(MOST_PIECES):
            try:
                # Each piece is a transaction of its own: other writes go between them.
                claimed += await self._writer.submit(look)
            except StoreError:
                # What was claimed already is not to wait for the end of its claim.
                if not claimed:
                    raise
                break
            place = after
            if is_through or len(claimed) >= limit:
                break
        if exclude_lanes:
            self._place = place
        return claimed

    async def release_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        self._place = None  # they may lie before it
        await self._writer.submit(lambda db: _delivery.release(db, deliveries))

    async def finish_delivery(
        self,
        delivery: Delivery,
        *,
        ended: str | None,
        due_at: datetime | None = None,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        due = to_micros(due_at) if due_at is not None else None
        return await self._writer.submit(
            lambda db: _delivery.finish(
                db, to_micros(self._clock.now()), delivery, ended=ended, due_at=due, status=status, error=error
            )
        )

    async def deliveries(self, id: str) -> list[Delivery]:
        return self._read(lambda db: _delivery.of_prediction(db, id))

    async def next_delivery_at(self) -> datetime | None:
        at = self._read(_delivery.next_due_at)
        return from_micros(at) if at is not None else None

    async def backlog(self, *, limit: int = 100) -> list[Backlog]:
        return await self._list(lambda db: _delivery.backlog(db, to_micros(self._clock.now()), limit=limit))

    async def redeliver(self, id: str) -> Redelivery:
        return await self._writer.submit(lambda db: _delivery.redeliver(db, to_micros(self._clock.now()), id))

    # -- replicas: there is nobody else -------------------------------------------------------------------------

    async def follow(self, worker: str, heard: Heard) -> None:
        await asyncio.Event().wait()

    def watch(self, id: str) -> None: ...

    def unwatch(self, id: str) -> None: ...

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        return []

    # -- budgets -----------------------------------------------------------------------------------------------

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        return await self._writer.submit(lambda db: _budget.reserve(db, to_micros(self._clock.now()), reservation))

    async def settle(self, id: str, nanos: int | None, *, revision: int, reserved_at: datetime | None = None) -> None:
        await self._writer.submit(
            lambda db: _budget.settle(
                db, to_micros(self._clock.now()), id, nanos, revision=revision, reserved_at=reserved_at
            )
        )

    async def reservations(
        self, *, before: datetime, position: str | None = None, limit: int = 500
    ) -> tuple[list[Reserved], str | None]:
        return await self._list(lambda db: _budget.open_before(db, before, position=position, limit=limit))

    async def spending(self, *, ends_after: datetime, limit: int = 1_000) -> list[Spending]:
        return await self._list(lambda db: _budget.ending_after(db, to_micros(ends_after), limit=limit))

    async def forget_spending(self, *, before: datetime, limit: int = 1_000) -> int:
        return await self._writer.submit(lambda db: _budget.forget(db, to_micros(before), limit=limit))

    # -- files -------------------------------------------------------------------------------------------------

    async def put_file(self, row: FileRow) -> None:
        values = (row.id, row.owner, to_micros(row.created_at), to_micros(row.expires_at), FILE.encode(row))

        def put(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO file (id, owner, created_at, expires_at, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET created_at = excluded.created_at, expires_at = excluded.expires_at,"
                " body = excluded.body WHERE owner = excluded.owner",
                values,
            )

        await self._writer.submit(put)

    async def get_file(self, id: str, *, owner: str | None) -> FileRow | None:
        return self._read(lambda db: _view.file(db, id, owner=owner))

    async def list_files(
        self, *, owner: str, position: str | None = None, limit: int = 100
    ) -> tuple[list[FileRow], str | None, str | None]:
        return await self._list(lambda db: _view.files(db, owner=owner, position=position, limit=limit))

    async def delete_file(self, id: str, *, owner: str) -> FileRow | None:
        def delete(db: sqlite3.Connection) -> FileRow | None:
            row = _view.file(db, id, owner=owner)
            if row is not None:
                db.execute("DELETE FROM file WHERE id = ?", (id,))
            return row

        return await self._writer.submit(delete)

    async def expire_files(self, *, limit: int = 100) -> list[FileRow]:
        def expire(db: sqlite3.Connection) -> list[FileRow]:
            rows = _view.expired_files(db, to_micros(self._clock.now()), limit=limit)
            db.executemany("DELETE FROM file WHERE id = ?", [(row.id,) for row in rows])
            return rows

        return await self._writer.submit(expire)

    # -- retention ---------------------------------------------------------------------------------------------

    async def aged(self, *, before: datetime, limit: int = 100) -> list[str]:
        return await self._list(lambda db: _view.aged(db, before=before, limit=limit))

    # -- moving ------------------------------------------------------------------------------------------------

    async def dump(self) -> AsyncIterator[Record]:
        place: _moving.Place | None = _moving.Place()
        while place is not None:
            records, place = await self._list(partial(_moving.read, place=place))
            for record in records:
                yield record

    async def load(self, records: Sequence[Record]) -> None:
        def write(db: sqlite3.Connection) -> None:
            for record in records:
                _moving.write(db, record)
                if isinstance(record, Whole):
                    self._predictions.forget(db, record.prediction.id)

        await self._writer.submit(write)

    # -- what people did -----------------------------------------------------------------------------------------

    async def put_audit(self, row: AuditRow) -> AuditRow:
        return await self._writer.submit(lambda db: _audit.put(db, row))

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        return await self._list(lambda db: _audit.newest(db, before=before, limit=limit))

    async def last_audit(self, actions: frozenset[str], *, outcomes: frozenset[str]) -> list[AuditRow]:
        return await self._list(lambda db: _audit.last(db, actions, outcomes))

    # -- itself ------------------------------------------------------------------------------------------------

    async def setting(self, name: str, default: str) -> str:
        known = self._read(lambda db: _view.setting(db, name))
        if known is not None:
            return known

        def keep(db: sqlite3.Connection) -> str:
            db.execute("INSERT OR IGNORE INTO setting (name, value) VALUES (?, ?)", (name, default))
            return _view.setting(db, name) or ""

        return await self._writer.submit(keep)

    async def swap_setting(self, name: str, value: str) -> str | None:
        def swap(db: sqlite3.Connection) -> str | None:
            before = _view.setting(db, name)
            if before != value:
                db.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))
            return before

        return await self._writer.submit(swap)

    async def check(self) -> None:
        now = self._clock.now().isoformat()

        def write(db: sqlite3.Connection) -> None:
            # A transaction that writes nothing would not touch the disk.
            db.execute("INSERT OR REPLACE INTO setting (name, value) VALUES ('store.checked_at', ?)", (now,))

        await self._writer.submit(write)

    async def aclose(self) -> None:
        """Commit what is queued, then close; a second call waits for the first. Nothing is lost without it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.to_thread(self._list_thread.shutdown)
        await self._writer.aclose()
        self._predictions.cache.end(False)
        self._list_reader.close()
        self._database.reader.close()
        self._database.unlock()

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        return _look(self._database.reader, look)

    async def _list(self, look: Callable[[sqlite3.Connection], T]) -> T:
        if self._closing is not None:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._list_thread, _look, self._list_reader, look)


def _look(db: sqlite3.Connection, look: Callable[[sqlite3.Connection], T]) -> T:
    try:
        return look(db)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store cannot be read: {error}") from error
