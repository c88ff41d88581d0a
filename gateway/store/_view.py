"""What SQLite's reading connections are asked: predictions, events, ledger, files. Nothing here writes."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from gateway.contract.prediction import Prediction
from gateway.store._encoding import FILE, decode_prediction, from_micros, to_micros
from gateway.store._position import Position, read_page
from gateway.store.protocol import FileRow, LedgerRow, Page, StoredEvent

_ENDLESS = 2**63 - 1

# Keysets with a bound on either side: SQLite walks the index from one to the other, however long the list is.
_PREDICTIONS = (
    "SELECT r.body, p.state FROM prediction p JOIN request r ON r.prediction = p.number"
    " WHERE p.owner = ? AND (p.created_at, p.id) > (?, ?) AND (p.created_at, p.id) < (?, ?)"
)
_PREDICTIONS_OLDER = _PREDICTIONS + " ORDER BY p.created_at DESC, p.id DESC LIMIT ?"
_PREDICTIONS_NEWER = _PREDICTIONS + " ORDER BY p.created_at, p.id LIMIT ?"
_FILES = "SELECT body FROM file WHERE owner = ? AND (created_at, id) > (?, ?) AND (created_at, id) < (?, ?)"
_FILES_OLDER = _FILES + " ORDER BY created_at DESC, id DESC LIMIT ?"
_FILES_NEWER = _FILES + " ORDER BY created_at, id LIMIT ?"


def prediction(db: sqlite3.Connection, id: str, *, owner: str | None) -> Prediction | None:
    found = db.execute(
        "SELECT r.body, p.state FROM prediction p JOIN request r ON r.prediction = p.number"
        " WHERE p.id = ? AND p.owner = coalesce(?, p.owner)",
        (id, owner),
    ).fetchone()
    return decode_prediction(*found) if found is not None else None


def page(
    db: sqlite3.Connection,
    *,
    owner: str,
    position: str | None,
    limit: int,
    created_after: datetime | None,
    created_before: datetime | None,
) -> Page:
    since = to_micros(created_after) if created_after is not None else -_ENDLESS
    until = to_micros(created_before) if created_before is not None else _ENDLESS

    def fetch(at: Position | None, most: int) -> list[Prediction]:
        sql = _PREDICTIONS_NEWER if at is not None and at.is_back else _PREDICTIONS_OLDER
        rows = db.execute(sql, (owner, *_bounds(at, since, until), most))
        return [decode_prediction(*row) for row in rows]

    entries, older, newer = read_page(fetch, lambda entry: (entry.created_at, entry.id), position, limit)
    return Page(predictions=tuple(entries), next=older, previous=newer)


def _bounds(at: Position | None, since: int, until: int) -> tuple[int, str, int, str]:
    """Both exclusive; no id is empty, so `since` itself is in and `until` itself is out."""
    low, high = (since, ""), (until, "")
    if at is not None and at.is_back:
        low = max(low, (at.at, at.id))
    elif at is not None:
        high = min(high, (at.at, at.id))
    return *low, *high


def find_attempt(db: sqlite3.Connection, token_hash: str) -> tuple[str, int] | None:
    found: tuple[str, int] | None = db.execute(
        "SELECT p.id, a.number FROM attempt a JOIN prediction p ON p.number = a.prediction WHERE a.token_hash = ?",
        (token_hash,),
    ).fetchone()
    return found


def find_stream(db: sqlite3.Connection, stream_token: str) -> str | None:
    found = db.execute("SELECT id FROM prediction WHERE stream_token = ?", (stream_token,)).fetchone()
    return found[0] if found is not None else None


def events(db: sqlite3.Connection, id: str, *, after: int, limit: int) -> list[StoredEvent]:
    rows = db.execute(
        "SELECT sequence, event, data, at FROM event WHERE prediction = (SELECT number FROM prediction WHERE id = ?)"
        " AND sequence > ? ORDER BY sequence LIMIT ?",
        (id, after, limit),
    )
    return [
        StoredEvent(sequence=sequence, event=event, data=data, at=from_micros(at)) for sequence, event, data, at in rows
    ]


def ledger(db: sqlite3.Connection, id: str) -> list[LedgerRow]:
    rows = db.execute(
        "SELECT p.id, l.attempt, p.owner, l.offer, l.provider, l.state, l.nanos, l.basis, l.at"
        " FROM ledger l JOIN prediction p ON p.number = l.prediction WHERE p.id = ? ORDER BY l.attempt",
        (id,),
    )
    return [
        LedgerRow(
            prediction=prediction,
            attempt=attempt,
            owner=owner,
            offer=offer,
            provider=provider,
            state=state,
            nanos=nanos,
            basis=basis,
            at=from_micros(at),
        )
        for prediction, attempt, owner, offer, provider, state, nanos, basis, at in rows
    ]


def file(db: sqlite3.Connection, id: str, *, owner: str | None) -> FileRow | None:
    found = db.execute("SELECT body FROM file WHERE id = ? AND owner = coalesce(?, owner)", (id, owner)).fetchone()
    return FILE.decode(found[0]) if found is not None else None


def files(
    db: sqlite3.Connection, *, owner: str, position: str | None, limit: int
) -> tuple[list[FileRow], str | None, str | None]:
    def fetch(at: Position | None, most: int) -> list[FileRow]:
        sql = _FILES_NEWER if at is not None and at.is_back else _FILES_OLDER
        rows = db.execute(sql, (owner, *_bounds(at, -_ENDLESS, _ENDLESS), most))
        return [FILE.decode(row[0]) for row in rows]

    return read_page(fetch, lambda row: (row.created_at, row.id), position, limit)


def setting(db: sqlite3.Connection, name: str) -> str | None:
    found = db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return found[0] if found is not None else None
