"""The trail of what people did by hand, in SQLite. Nothing here is ever deleted."""

from __future__ import annotations

import sqlite3

import msgspec
from msgspec.structs import replace

from gateway.store._encoding import from_micros, to_micros
from gateway.store.protocol import AuditRow

_COLUMNS = "id, at, who, action, target, reason, outcome"


def put(db: sqlite3.Connection, row: AuditRow) -> AuditRow:
    if row.id:
        db.execute("UPDATE audit SET outcome = ? WHERE id = ?", (row.outcome, row.id))
        return row
    id = db.execute(
        "INSERT INTO audit (at, who, action, target, reason, outcome) VALUES (?, ?, ?, ?, ?, ?)",
        (to_micros(row.at), row.who, row.action, row.target, row.reason, row.outcome),
    ).lastrowid
    assert id is not None  # noqa: S101 - an INSERT that did not raise has a row
    return replace(row, id=id)


def keep(db: sqlite3.Connection, row: AuditRow) -> None:
    """A row of another store, under its own id."""
    db.execute(
        f"INSERT OR REPLACE INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (row.id, to_micros(row.at), row.who, row.action, row.target, row.reason, row.outcome),
    )


def following(db: sqlite3.Connection, after: int, *, limit: int) -> list[AuditRow]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - our own columns
        (after, limit),
    )
    return [_row(row) for row in rows]


def newest(db: sqlite3.Connection, *, before: int | None, limit: int) -> list[AuditRow]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE id < coalesce(?, 9223372036854775807) ORDER BY id DESC LIMIT ?",  # noqa: S608 - our own columns
        (before, limit),
    )
    return [_row(row) for row in rows]


def last(db: sqlite3.Connection, actions: frozenset[str], outcomes: frozenset[str]) -> list[AuditRow]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE id IN (SELECT max(id) FROM audit"  # noqa: S608 - our own columns
        " WHERE action IN (SELECT value FROM json_each(?)) AND outcome IN (SELECT value FROM json_each(?))"
        " GROUP BY target) ORDER BY id",
        (_list(actions), _list(outcomes)),
    )
    return [_row(row) for row in rows]


def _list(words: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(words)).decode()


def _row(row: tuple[int, int, str, str, str, str, str]) -> AuditRow:
    id, at, who, action, target, reason, outcome = row
    return AuditRow(id=id, at=from_micros(at), who=who, action=action, target=target, reason=reason, outcome=outcome)
