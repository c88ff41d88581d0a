"""What a SQLite store holds, record by record: read out to be moved, and written as it came. Not how a file looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import PredictionUnreadable
from gateway.contract.host import host_of
from gateway.store import _audit, _budget, _delivery, _view
from gateway.store._encoding import (
    FILE,
    decode_prediction,
    encode_history,
    encode_request,
    encode_state,
    from_micros,
    is_foreign,
    providers_of,
    to_micros,
)
from gateway.store.protocol import (
    Delivery,
    IdempotencyRow,
    KeptAudit,
    KeptFile,
    KeptReservation,
    KeptSpending,
    Record,
    Setting,
    Whole,
)

# Of one look: what is held in memory, and how long a list of callers waits behind it.
MOST_RECORDS = 100
MOST_BYTES = 4 * 1024 * 1024
_OWN = "store."  # settings of this file, which say nothing of another one


class Place(msgspec.Struct, frozen=True):
    """Where a dump goes on: in which table, after which key."""

    table: int = 0
    after: str | int = ""


def read(db: sqlite3.Connection, place: Place) -> tuple[list[Record], Place | None]:
    """Some records, each whole as of one moment, and where to go on; None at the end."""
    db.execute("BEGIN")
    try:
        records, after = _TABLES[place.table](db, place.after)
    finally:
        db.execute("COMMIT")
    if after is not None:
        return records, Place(place.table, after)
    following = place.table + 1
    if following == len(_TABLES):
        return records, None
    return records, Place(following, _FIRST[following])


def _settings(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    rows = db.execute(
        "SELECT name, value FROM setting WHERE name > ? AND substr(name, 1, ?) <> ? ORDER BY name LIMIT ?",
        (after, len(_OWN), _OWN, MOST_RECORDS),
    ).fetchall()
    return [Setting(name=name, value=value) for name, value in rows], rows[-1][0] if rows else None


def _predictions(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    rows = db.execute(
        "SELECT p.number, p.id, length(p.state) + length(r.body) FROM prediction p JOIN request r"
        " ON r.prediction = p.number WHERE p.number > ? ORDER BY p.number LIMIT ?",
        (after, MOST_RECORDS),
    ).fetchall()
    records: list[Record] = []
    last, size = None, 0
    for number, id, bytes_ in rows:
        if records and size + bytes_ > MOST_BYTES:
            break
        records.append(_whole(db, number, id))
        last, size = number, size + bytes_
    return records, last


def _whole(db: sqlite3.Connection, number: int, id: str) -> Whole:
    request, state, is_open, due_at = db.execute(
        "SELECT r.body, p.state, p.is_open, p.due_at FROM prediction p JOIN request r ON r.prediction = p.number"
        " WHERE p.number = ?",
        (number,),
    ).fetchone()
    if is_foreign(state):
        raise PredictionUnreadable(
            f"a newer Turnout wrote prediction {id}, and keeps more of it than this one knows: move it with that one"
        )
    kept = db.execute("SELECT key, body_hash, expires_at FROM idempotency WHERE prediction = ?", (number,))
    return Whole(
        prediction=decode_prediction(request, state),
        is_open=bool(is_open),
        due_at=from_micros(due_at) if due_at else None,
        events=tuple(_view.events(db, id, after=-1, limit=-1)),
        ledger=tuple(_view.ledger(db, id)),
        deliveries=tuple(_delivery.of_prediction(db, id)),
        idempotency=tuple(
            IdempotencyRow(key=key, body_hash=body_hash, expires_at=from_micros(at)) for key, body_hash, at in kept
        ),
    )


def _files(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    rows = db.execute("SELECT id, body FROM file WHERE id > ? ORDER BY id LIMIT ?", (after, MOST_RECORDS)).fetchall()
    return [KeptFile(row=FILE.decode(body)) for _, body in rows], rows[-1][0] if rows else None


def _audits(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    assert isinstance(after, int)  # noqa: S101 - see _FIRST
    rows = _audit.following(db, after, limit=MOST_RECORDS)
    return [KeptAudit(row=row) for row in rows], rows[-1].id if rows else None


def _spending(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    rows = _budget.spending_after(db, str(after), limit=MOST_RECORDS)
    return [KeptSpending(row=row) for row in rows], rows[-1].counter if rows else None


def _reservations(db: sqlite3.Connection, after: str | int) -> tuple[list[Record], str | int | None]:
    rows = _budget.reservations_after(db, str(after), limit=MOST_RECORDS)
    return [KeptReservation(row=row) for row in rows], rows[-1].id if rows else None


_TABLES: tuple[Callable[[sqlite3.Connection, str | int], tuple[list[Record], str | int | None]], ...] = (
    _settings,
    _predictions,
    _files,
    _audits,
    _spending,
    _reservations,
)
_FIRST: tuple[str | int, ...] = ("", 0, "", 0, "", "")


def write(db: sqlite3.Connection, record: Record) -> None:
    """Keep it as it is, in place of what has its id."""
    match record:
        case Whole():
            _write_whole(db, record)
        case Setting(name=name, value=value):
            if not name.startswith(_OWN):
                db.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))
        case KeptFile(row=row):
            db.execute(
                "INSERT OR REPLACE INTO file (id, owner, created_at, expires_at, body) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.owner, to_micros(row.created_at), to_micros(row.expires_at), FILE.encode(row)),
            )
        case KeptAudit(row=row):
            _audit.keep(db, row)
        case KeptSpending(row=row):
            _budget.put_spending(db, row)
        case KeptReservation(row=row):
            _budget.put_reservation(db, replace(row, fence=0))  # leases are counted anew here


def _write_whole(db: sqlite3.Connection, whole: Whole) -> None:
    prediction = whole.prediction
    # Who held it before loses it, and what its row is numbered stays.
    number = db.execute(
        "INSERT INTO prediction (id, stream_token, owner, created_at, status, is_open, due_at, worker, state, model,"
        " providers, is_rescued, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET stream_token = excluded.stream_token, owner = excluded.owner,"
        " created_at = excluded.created_at, status = excluded.status, is_open = excluded.is_open,"
        " due_at = excluded.due_at, worker = NULL, state = excluded.state, model = excluded.model,"
        " providers = excluded.providers, is_rescued = excluded.is_rescued, ended_at = excluded.ended_at"
        " RETURNING number",
        (
            prediction.id,
            prediction.stream_token,
            prediction.owner,
            to_micros(prediction.created_at),
            prediction.status,
            whole.is_open,
            to_micros(whole.due_at) if whole.due_at is not None else 0,
            encode_state(prediction),
            prediction.request.model,
            providers_of(prediction),
            prediction.is_rescued,
            _view.ended_at(prediction, is_open=whole.is_open, now=to_micros(prediction.created_at)),
        ),
    ).fetchone()[0]
    for table in ("request", "attempt", "event", "ledger", "idempotency", "delivery"):
        db.execute(f"DELETE FROM {table} WHERE prediction = ?", (number,))  # noqa: S608 - our own tables
    db.execute("INSERT INTO request (prediction, body) VALUES (?, ?)", (number, encode_request(prediction.request)))
    db.executemany(
        "INSERT INTO attempt (token_hash, prediction, number) VALUES (?, ?, ?)",
        [(attempt.token_hash, number, attempt.number) for attempt in prediction.attempts],
    )
    db.executemany(
        "INSERT INTO event (prediction, sequence, event, data, at) VALUES (?, ?, ?, ?, ?)",
        [(number, one.sequence, one.event, one.data, to_micros(one.at)) for one in whole.events],
    )
    db.executemany(
        "INSERT INTO ledger (prediction, attempt, offer, provider, state, nanos, basis, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (number, one.attempt, one.offer, one.provider, one.state, one.nanos, one.basis, to_micros(one.at))
            for one in whole.ledger
        ],
    )
    db.executemany(
        "INSERT OR REPLACE INTO idempotency (owner, key, body_hash, prediction, expires_at) VALUES (?, ?, ?, ?, ?)",
        [(prediction.owner, one.key, one.body_hash, number, to_micros(one.expires_at)) for one in whole.idempotency],
    )
    for delivery in whole.deliveries:
        _write_delivery(db, number, delivery)


def _write_delivery(db: sqlite3.Connection, number: int, delivery: Delivery) -> None:
    due_at = to_micros(delivery.due_at)
    db.execute(
        "INSERT INTO delivery (id, prediction, sequence, event, url, host, body, created_at, slot_at, due_at, tries,"
        " is_final, ended, last_status, last_error, fence, history)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            delivery.id,
            number,
            delivery.sequence,
            delivery.event,
            delivery.url,
            host_of(delivery.url),
            delivery.body,
            to_micros(delivery.created_at),
            # Of one that was tried it is not known any more; it only spaces the next of its kind by half a second.
            to_micros(delivery.created_at) if delivery.fence else due_at,
            due_at,
            delivery.tries,
            delivery.is_final,
            delivery.ended,
            delivery.last_status,
            delivery.last_error,
            delivery.fence,
            encode_history(delivery.history) if delivery.history else None,
        ),
    )
