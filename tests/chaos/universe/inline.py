"""The SQLite store without its threads: what they do happens in the loop, at a moment of its own. Product code else."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreOverloaded, StoreUnavailable
from gateway.store._database import Database
from gateway.store._writer import MAX_BATCH, Work, Writer, _Operation, _settle
from gateway.store.protocol import Reduce, Snapshot
from gateway.store.sqlite import SqliteStore
from tests.chaos.universe.note import NOTE, Note


class InlineWriter(Writer):
    """
    Group commits as a point of the schedule: what was queued until then is one transaction.

    `commit_seconds()` says how far off the next commit is; below 0 it is made at once, in the caller's own step.
    `fails()` makes a commit fail as a broken disk does. It lives in the context it was made in: that process's death
    takes the queue with it.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.commit_seconds: Callable[[], float] = lambda: -1.0
        self.fails: Callable[[], bool] = lambda: False
        self.record: Callable[[Note, Any, BaseException | None], None] | None = None  # told of all, in their order
        self._waiting: list[tuple[_Operation, Note | None]] = []
        self._context = contextvars.copy_context()

    def start(self, db: sqlite3.Connection) -> None:
        self._db = db

    def submit(self, work: Work[Any]) -> asyncio.Future[Any]:
        if self._is_closing:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= self._max_queue:
            raise StoreOverloaded(f"{self._max_queue} writes are waiting already")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((_Operation(work, future), NOTE.take()))
        if len(self._waiting) == 1:
            seconds = self.commit_seconds()
            if seconds < 0:
                self._turn()
            else:
                loop.call_later(seconds, self._turn, context=self._context)
        return future

    async def aclose(self) -> None:
        self._is_closing = True
        while self._waiting:
            self._turn()
        self._fold()

    def _turn(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        if not batch:
            return
        operations = [operation for operation, _ in batch]
        is_done = not self.fails()
        try:
            if not is_done:
                raise sqlite3.OperationalError("disk I/O error")  # noqa: TRY301 - as a real one
            self._commit(operations)
        except Exception as error:
            is_done = False
            self._abandon(operations, error)
        for operation, note in batch:
            if note is not None and is_done and self.record is not None:
                self.record(note, operation.result, operation.error)
            if note is not None and operation.error is None:
                note.commit(operation.result)
        _settle(operations)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn, context=self._context)


class InlineStore(SqliteStore):
    """As `SqliteStore.open` makes it, on an `InlineWriter`."""

    def __init__(self, database: Database, *, reduce: Reduce, snapshot: Snapshot, clock: Clock, max_queue: int) -> None:
        super().__init__(database, reduce=reduce, snapshot=snapshot, clock=clock, max_queue=max_queue)
        self._writer = self.writer = InlineWriter(
            database.connect_writer, max_queue=max_queue, ended=self._predictions.cache.end
        )

    def kill(self) -> None:
        """SIGKILL of its process: what was not committed is gone, the lock and the connections go with it."""
        for db in (self._database.reader, self._list_reader, self.writer._db):
            if db is not None:
                db.close()
        self.writer._db = None
        self._database.unlock()


def new_file(folder: Path, name: str) -> Path:
    """An empty store's file: making its tables once is enough."""
    model = folder / "model.db"
    if not model.exists():
        database = Database(model)
        database.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.writer.close()
        database.reader.close()
        database.unlock()
    return Path(shutil.copyfile(model, folder / name))
