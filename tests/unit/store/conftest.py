"""SQLite stores on a file of the test's own, and connections that fail on demand."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.store import _database
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy

OpenSqlite = Callable[..., Awaitable[SqliteStore]]


class Faults:
    """What the writing connections of a test do: `before` is called with each statement they are about to run."""

    def __init__(self) -> None:
        self.before: Callable[[str], None] = lambda sql: None
        self.connections: list[sqlite3.Connection] = []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(toy.START)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "turnout.db"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    faults = Faults()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            faults.before(sql)
            return super().execute(sql, parameters)

    def connect(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=0.05, isolation_level=None, check_same_thread=False, factory=Connection)
        faults.connections.append(db)
        return db

    monkeypatch.setattr(_database, "connect", connect)
    return faults


@pytest.fixture
async def open_sqlite(path: Path, clock: ManualClock) -> AsyncIterator[OpenSqlite]:
    opened: list[SqliteStore] = []

    async def open_(path: str | Path = path, **options: Any) -> SqliteStore:
        options = {"reduce": toy.reduce, "snapshot": toy.snapshot, "clock": clock, "max_queue": 5_000} | options
        store = await SqliteStore.open(path, **options)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        await store.aclose()
