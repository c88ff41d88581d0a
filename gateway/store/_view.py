"""What SQLite's reading connections are asked: predictions, events, ledger, files. Nothing here writes."""

from __future__ import annotations

import itertools
import sqlite3
from datetime import datetime

from gateway.contract.errors import PredictionUnreadable
from gateway.contract.prediction import Prediction
from gateway.store._encoding import FILE, decode_prediction, from_micros, is_foreign, to_micros
from gateway.store._position import Position, read_page
from gateway.store.protocol import FileRow, LedgerRow, Page, StoredEvent

_ENDLESS = 2**63 - 1

# Keysets with a bound on either side: SQLite walks the index from one to the other, however long the list is.
_PREDICTIONS = (
    "SELECT p.created_at, p.id, r.body, p.state FROM prediction p JOIN request r ON r.prediction = p.number"
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

    def fetch(at: Position | None, most: int) -> list[tuple[int, str, bytes, bytes]]:
        sql = _PREDICTIONS_NEWER if at is not None and at.is_back else _PREDICTIONS_OLDER
        return db.execute(sql, (owner, *_bounds(at, since, until), most)).fetchall()

    entries, older, newer = read_page(fetch, lambda entry: (from_micros(entry[0]), entry[1]), position, limit)
    readable = (_readable(request, state) for _, _, request, state in entries)
    return Page(predictions=tuple(one for one in readable if one is not None), next=older, previous=newer)


def _readable(request: bytes, state: bytes) -> Prediction | None:
    """A list must not fail for one that this version cannot read: it is left out."""
    try:
        return decode_prediction(request, state)
    except PredictionUnreadable:
        return None


def _bounds(at: Position | None, since: int, until: int) -> tuple[int, str, int, str]:
    """Both exclusive; no id is empty, so `since` itself is in and `until` itself is out."""
    low, high = (since, ""), (until, "")
    if at is not None and at.is_back:
        low = max(low, (at.at, at.id))
    elif at is not None:
        high = min(high, (at.at, at.id))
    return *low, *high


def ended_at(prediction: Prediction, *, is_open: bool, now: int) -> int | None:
    """What its row says of its age: nothing while it is open, or once there is nothing left to remove."""
    if is_open or prediction.data_removed:
        return None
    return to_micros(prediction.completed_at) if prediction.completed_at is not None else now


def maybes(db: sqlite3.Connection, *, created_after: datetime | None, limit: int) -> list[str]:
    rows = db.execute(
        "SELECT id FROM prediction WHERE number IN (SELECT prediction FROM ledger WHERE state = 'maybe')"
        " AND created_at >= ? ORDER BY created_at DESC, id DESC LIMIT ?",
        (to_micros(created_after) if created_after is not None else -_ENDLESS, limit),
    )
    return [id for (id,) in rows]


def aged(db: sqlite3.Connection, *, before: datetime, limit: int) -> list[str]:
    rows = db.execute(
        "SELECT id, state FROM prediction WHERE ended_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM delivery d WHERE d.prediction = prediction.number AND d.ended IS NULL)"
        " ORDER BY ended_at, number",
        (to_micros(before),),
    )
    # What a newer version wrote is for that one to erase: who knows where it keeps the data.
    own = (id for id, state in rows if not is_foreign(state))
    return list(itertools.islice(own, limit))


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


def expired_files(db: sqlite3.Connection, now: int, *, limit: int) -> list[FileRow]:
    rows = db.execute("SELECT body FROM file WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?", (now, limit))
    return [FILE.decode(body) for (body,) in rows]


def setting(db: sqlite3.Connection, name: str) -> str | None:
    found = db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return found[0] if found is not None else None
