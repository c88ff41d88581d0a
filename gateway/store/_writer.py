"""
The one thread that writes: a bounded queue, group commits, futures. It knows no table.

Everything queued goes into one transaction, and an operation that raises is undone alone; futures are completed only
after COMMIT. What fails to commit is reported as failed to everybody in it, and the connection is opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.contract.errors import StoreOverloaded, StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_BATCH = 64
_BLAMELESS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)


class _Operation:
    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """
    `connect` opens the writing connection (again, after a failure).

    `ended` is told in the writing thread, after each transaction and before anybody hears of it, whether it committed.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], *, max_queue: int, ended: Callable[[bool], None]
    ) -> None:
        self.commits = 0
        self._connect = connect
        self._ended = ended
        self._max_queue = max_queue
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="turnout-store-writer", daemon=True)

    def start(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """
        Queue `work`. Cancelling the future does not take it back: it commits, and nobody hears of it.

        Raises StoreOverloaded, StoreUnavailable (closed).
        """
        if self._is_closing:
            raise StoreUnavailable("the store is closed")
        if self._queue.qsize() >= self._max_queue:
            raise StoreOverloaded(f"{self._max_queue} writes are waiting already")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Operation(work, future))
        return future

    async def aclose(self) -> None:
        """Commit what is queued, fold the log into the file, close. Again: waits for the first."""
        if not self._is_closing:
            self._is_closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- in the writing thread -------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._take())[0] is not None:
            operations = [operation for operation in batch if operation is not None]
            try:
                self._commit(operations)
            except Exception as error:  # whatever it was: nothing was committed, and awaiters must hear of it
                self._abandon(operations, error)
            _report(operations)
            if len(operations) < len(batch):
                break
        self._fold()

    def _take(self) -> list[_Operation | None]:
        """Wait for one operation, and take what has queued up behind it: a commit in progress gathers the next one."""
        batch = [self._queue.get()]
        with contextlib.suppress(queue.Empty):
            while len(batch) < MAX_BATCH and batch[-1] is not None:
                batch.append(self._queue.get_nowait())
        return batch

    def _commit(self, operations: list[_Operation]) -> None:
        if self._db is None:
            self._db = self._connect()
        if not self._transact(self._db, operations, with_savepoints=False):
            self._db.execute("ROLLBACK")
            self._ended(False)
            self._transact(self._db, operations, with_savepoints=True)
        self.commits += 1
        self._ended(True)

    def _transact(self, db: sqlite3.Connection, operations: list[_Operation], *, with_savepoints: bool) -> bool:
        """
        Run and commit all of them, but for those that raise. False: nothing was committed, it takes savepoints.

        They are a tenth of the work of a change, and nearly all that raise do it before they write: so a batch goes
        without, and is run again from the start if one raises half-way. Operations have no effect but on `db`.
        """
        db.execute("BEGIN IMMEDIATE")
        for operation in operations:
            changes = db.total_changes
            if with_savepoints:
                db.execute("SAVEPOINT operation")
            operation.error = None
            try:
                operation.result = operation.work(db)
            except Exception as error:
                if isinstance(error, (sqlite3.Error, MemoryError)) and not isinstance(error, _BLAMELESS):
                    raise  # the disk or the file, not this operation: SQLite may have rolled everything back
                if db.total_changes != changes:
                    if not with_savepoints:
                        return False
                    db.execute("ROLLBACK TO operation")
                operation.error = error
            if with_savepoints:
                db.execute("RELEASE operation")
        db.execute("COMMIT")
        return True

    def _abandon(self, operations: list[_Operation], error: Exception) -> None:
        """
        Nothing of it was committed. A failed COMMIT is not tried again: what an fsync lost is lost silently.

        The new connection finds the log's end before the frames of the failed COMMIT, because the reading
        connections, which stay open, keep the log's index alive: they will be overwritten.
        """
        self._ended(False)
        for operation in operations:
            operation.error = StoreUnavailable(f"the store could not commit: {error}")
            operation.error.__cause__ = error
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()  # rolls back
            self._db = None
        with contextlib.suppress(sqlite3.Error):
            self._db = self._connect()

    def _fold(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _report(operations: list[_Operation]) -> None:
    """One wake-up of each event loop for the whole batch: it costs more than all else that is done for a future."""
    loops: dict[asyncio.AbstractEventLoop, list[_Operation]] = {}
    for operation in operations:
        loops.setdefault(operation.future.get_loop(), []).append(operation)
    for loop, ended in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting there
            loop.call_soon_threadsafe(_settle, ended)


def _settle(operations: list[_Operation]) -> None:
    for operation in operations:
        if operation.future.done():
            continue  # its awaiter was cancelled
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)
