"""The outbox in SQLite: which deliveries a change makes, and who is sending them. It sends nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.contract.host import host_of
from gateway.contract.prediction import Prediction, WebhookEvent
from gateway.store._change import SPACED, SPACING_MICROS, delivery_id, told_of
from gateway.store._delivery_walk import PIECE, Lanes, Place
from gateway.store._encoding import decode_history, encode_history, from_micros, to_micros
from gateway.store.protocol import AGES_SECONDS, GIVEN_BACK, Backlog, Delivery, Redelivery, Try

_MOST_COUNTED = 20_000

_COLUMNS = """
    d.id, p.id, p.owner, d.url, d.event, d.sequence, d.body, d.created_at, d.due_at, d.tries, d.is_final, d.ended,
    d.last_status, d.last_error, d.fence, d.history
"""


class Draft(msgspec.Struct, kw_only=True, frozen=True):
    """A delivery to be written; with `replaces`, only its body goes into that one, which nobody has sent."""

    event: str
    sequence: int
    due_at: int
    replaces: int | None = None


def draft(
    db: sqlite3.Connection, now: int, number: int | None, prediction: Prediction, events: list[str]
) -> list[Draft]:
    """What `events` make of the outbox. `number` is None for a prediction that is not written yet."""
    if prediction.request.webhook is None or not events:
        return []
    drafts: list[Draft] = []
    sequence = prediction.deliveries
    for event in told_of(events):
        due_at, replaces = now, None
        if number is not None and event in SPACED:
            due_at, replaces = _slot(db, now, number, event)
        drafts.append(Draft(event=event, sequence=sequence, due_at=due_at, replaces=replaces))
        sequence += replaces is None
    return drafts


def _slot(db: sqlite3.Connection, now: int, number: int, event: str) -> tuple[int, int | None]:
    last = db.execute(
        "SELECT number, slot_at, ended IS NULL AND fence = 0 FROM delivery WHERE prediction = ? AND event = ?"
        " ORDER BY sequence DESC LIMIT 1",
        (number, event),
    ).fetchone()
    if last is None:
        return now, None
    # A claimed one may have been sent already: its bytes never change again.
    return max(now, last[1] + SPACING_MICROS), last[0] if last[2] else None


def write(
    db: sqlite3.Connection, now: int, number: int, prediction: Prediction, drafts: Sequence[Draft], body: bytes
) -> None:
    url = prediction.request.webhook or ""
    for new in drafts:
        if new.replaces is not None:
            db.execute("UPDATE delivery SET body = ? WHERE number = ?", (body, new.replaces))
            continue
        is_final = new.event == WebhookEvent.COMPLETED
        if is_final:
            db.execute(
                "UPDATE delivery SET ended = 'superseded' WHERE prediction = ? AND ended IS NULL AND is_final = 0",
                (number,),
            )
        db.execute(
            "INSERT INTO delivery"
            " (id, prediction, sequence, event, url, host, body, created_at, slot_at, due_at, is_final)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                delivery_id(prediction.id, new.event, new.sequence),
                number,
                new.sequence,
                new.event,
                url,
                host_of(url),
                body,
                now,
                new.due_at,
                new.due_at,
                is_final,
            ),
        )


def claim(
    db: sqlite3.Connection,
    now: int,
    *,
    worker: str,
    limit: int,
    lease_micros: int,
    exclude_lanes: Lanes,
    place: Place[tuple[int, int]] | None,
) -> tuple[list[Delivery], Place[tuple[int, int]] | None, bool]:
    """What was claimed, where the next look goes on, and whether everything due has been looked at."""
    if place is None or not place.is_good_for(exclude_lanes):
        place = Place(at=(0, 0), excluded=exclude_lanes, passed=0, begun=now)
    most = limit + PIECE if exclude_lanes else limit
    rows = db.execute(
        "SELECT d.due_at, d.number, p.owner, d.host FROM delivery d JOIN prediction p ON p.number = d.prediction"
        " WHERE d.ended IS NULL AND d.due_at <= ? AND (d.due_at, d.number) > (?, ?)"
        " ORDER BY d.due_at, d.number LIMIT ?",
        (now, *place.at, most),
    ).fetchall()
    numbers: list[int] = []
    at, passed = place.at, place.passed
    for due_at, number, *lane in rows:
        if tuple(lane) in exclude_lanes:
            passed += 1
        else:
            numbers.append(number)
        at = due_at, number
        if len(numbers) == limit:
            break
    is_through = len(rows) < most
    place = msgspec.structs.replace(place, at=at, passed=passed)
    return _claim(db, now + lease_micros, worker, numbers), place.kept(now, is_through=is_through), is_through


def _claim(db: sqlite3.Connection, until: int, worker: str, numbers: list[int]) -> list[Delivery]:
    rows = db.execute(
        f"SELECT {_COLUMNS}, d.number FROM delivery d JOIN prediction p ON p.number = d.prediction"  # noqa: S608 - our own columns
        " WHERE d.number IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(numbers).decode(),),
    )
    found = {row[-1]: msgspec.structs.replace(_delivery(row), fence=row[14] + 1) for row in rows}
    claimed = [found[number] for number in numbers]
    db.executemany(
        "UPDATE delivery SET fence = ?, worker = ?, due_at = ? WHERE id = ?",
        [(delivery.fence, worker, until, delivery.id) for delivery in claimed],
    )
    return claimed


def release(db: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
    # One that was superseded meanwhile stays so.
    db.executemany(
        "UPDATE delivery SET fence = fence + ?, worker = NULL, due_at = ?"
        " WHERE id = ? AND fence = ? AND worker IS NOT NULL",
        [(GIVEN_BACK - 1, to_micros(one.due_at), one.id, one.fence) for one in deliveries],
    )


def finish(
    db: sqlite3.Connection,
    now: int,
    delivery: Delivery,
    *,
    ended: str | None,
    due_at: int | None,
    status: int | None,
    error: str | None,
) -> bool:
    # The fence moves on, so that a try is recorded once. One that was superseded while it was being sent stays so,
    # unless it arrived.
    found = db.execute(
        "SELECT history FROM delivery WHERE id = ? AND fence = ? AND worker IS NOT NULL", (delivery.id, delivery.fence)
    ).fetchone()
    if found is None:
        return False
    tried = Try(at=from_micros(now), status=status, error=error)
    db.execute(
        "UPDATE delivery SET tries = tries + 1, fence = fence + 1, worker = NULL, last_status = ?, last_error = ?,"
        " ended = coalesce(?, ended), due_at = coalesce(?, due_at), history = ? WHERE id = ?",
        (status, error, ended, due_at, encode_history((*decode_history(found[0]), tried)), delivery.id),
    )
    if ended is not None:
        # It was asked for once more, and its prediction's data was removed meanwhile.
        db.execute(
            "UPDATE delivery SET body = x'' WHERE id = ? AND EXISTS (SELECT 1 FROM prediction p"
            " WHERE p.number = delivery.prediction AND p.is_open = 0 AND p.ended_at IS NULL)",
            (delivery.id,),
        )
    return True


def erase(db: sqlite3.Connection, number: int) -> None:
    """What deliveries that have ended carried; one that is under way goes blank as it ends."""
    db.execute("UPDATE delivery SET body = x'' WHERE prediction = ? AND ended IS NOT NULL", (number,))


def void_claims(db: sqlite3.Connection, now: int) -> None:
    """Whoever was sending is dead: what was claimed is due now."""
    db.execute(
        "UPDATE delivery SET due_at = min(due_at, ?), worker = NULL WHERE ended IS NULL AND worker IS NOT NULL", (now,)
    )


def of_prediction(db: sqlite3.Connection, id: str) -> list[Delivery]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery d JOIN prediction p ON p.number = d.prediction"  # noqa: S608 - our own columns
        " WHERE p.id = ? ORDER BY d.sequence",
        (id,),
    )
    return [_delivery(row) for row in rows]


def next_due_at(db: sqlite3.Connection) -> int | None:
    at: int | None = db.execute("SELECT min(due_at) FROM delivery WHERE ended IS NULL").fetchone()[0]
    return at


def backlog(db: sqlite3.Connection, now: int, *, limit: int) -> list[Backlog]:
    young, middle, old = (now - int(seconds * 1_000_000) for seconds in AGES_SECONDS)
    rows = db.execute(
        # With a single min() the bare column comes from the row that has it.
        "SELECT host, count(*), sum(tries > 0), sum(created_at > ?), sum(created_at > ?), sum(created_at > ?),"
        " min(created_at) AS oldest_at, coalesce(last_error, 'HTTP ' || last_status) FROM"
        " (SELECT host, tries, created_at, last_error, last_status FROM delivery WHERE ended IS NULL"
        " ORDER BY due_at LIMIT ?)"
        " GROUP BY host ORDER BY oldest_at LIMIT ?",
        (young, middle, old, _MOST_COUNTED, limit),
    )
    return [
        Backlog(
            host=host,
            waiting=waiting,
            failing=failing,
            ages=(first, second - first, third - second, waiting - third),
            oldest_at=from_micros(oldest_at),
            last_error=last_error,
        )
        for host, waiting, failing, first, second, third, oldest_at, last_error in rows
    ]


def redeliver(db: sqlite3.Connection, now: int, id: str) -> Redelivery:
    # One that is blank has no body to bring any more.
    found = db.execute(
        "SELECT d.number, d.ended IS NULL AND d.worker IS NOT NULL FROM delivery d JOIN prediction p"
        " ON p.number = d.prediction WHERE p.id = ? AND d.is_final = 1 AND length(d.body) > 0"
        " ORDER BY d.sequence DESC LIMIT 1",
        (id,),
    ).fetchone()
    if found is None:
        return Redelivery.NONE
    number, is_sending = found
    if is_sending:
        return Redelivery.SENDING
    # The fence stays: whoever claimed it before has recorded its try.
    db.execute("UPDATE delivery SET ended = NULL, tries = 0, due_at = ?, worker = NULL WHERE number = ?", (now, number))
    return Redelivery.DUE


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(
        id=row[0],
        prediction=row[1],
        owner=row[2],
        url=row[3],
        event=row[4],
        sequence=row[5],
        body=row[6],
        created_at=from_micros(row[7]),
        due_at=from_micros(row[8]),
        tries=row[9],
        is_final=bool(row[10]),
        ended=row[11],
        last_status=row[12],
        last_error=row[13],
        fence=row[14],
        history=decode_history(row[15]),
    )
