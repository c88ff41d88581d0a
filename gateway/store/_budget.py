"""What budgets have come to, and what is reserved of them, in SQLite. It knows no policy and no prediction."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from gateway.contract.budget import Refusal, Reservation, Reserved, Spending
from gateway.contract.errors import NotFound
from gateway.store._encoding import from_micros, to_micros

_SPENDING = "counter, ends_at, limit_nanos, settled, reserved, open"
_RESERVED = "id, nanos, counters, at, is_open, fence, revision"


def reserve(db: sqlite3.Connection, now: int, reservation: Reservation) -> Refusal | None:
    kept = _kept(db, reservation.id)
    if kept is not None and (kept.fence > reservation.fence or (not kept.is_open and kept.nanos > 0)):
        return None
    held = kept if kept is not None and kept.is_open else None
    nanos = reservation.nanos
    for hold in reservation.holds:
        already = held.nanos if held is not None and hold.counter in held.counters else 0
        if hold.is_soft or nanos <= already:
            continue
        settled, reserved = _sums(db, hold.counter)
        if settled + reserved - already + nanos > hold.limit_nanos:
            return Refusal(hold=hold, settled_nanos=settled, reserved_nanos=reserved - already)
    if held is not None:
        _add(db, held.counters, settled=0, reserved=-held.nanos, opened=-1)
    db.executemany(
        f"INSERT INTO spending ({_SPENDING}) VALUES (?, ?, ?, 0, ?, 1) ON CONFLICT (counter) DO UPDATE SET"  # noqa: S608 - our own columns
        " ends_at = excluded.ends_at, limit_nanos = excluded.limit_nanos, reserved = reserved + excluded.reserved,"
        " open = open + 1",
        [(hold.counter, to_micros(hold.ends_at), hold.limit_nanos, nanos) for hold in reservation.holds],
    )
    put_reservation(
        db,
        Reserved(
            id=reservation.id,
            nanos=nanos,
            counters=tuple(hold.counter for hold in reservation.holds),
            at=from_micros(now),
            is_open=True,
            fence=reservation.fence,
            revision=kept.revision if kept is not None else 0,
        ),
    )
    return None


def settle(
    db: sqlite3.Connection, now: int, id: str, nanos: int | None, *, revision: int, reserved_at: datetime | None
) -> None:
    kept = _kept(db, id)
    if kept is None or revision < kept.revision or (reserved_at is not None and kept.at != reserved_at):
        return
    came_to = kept.nanos if nanos is None else nanos
    if kept.is_open:
        _add(db, kept.counters, settled=came_to, reserved=-kept.nanos, opened=-1)
    else:
        _add(db, kept.counters, settled=came_to - kept.nanos, reserved=0, opened=0)
    at = now if kept.is_open else to_micros(kept.at)
    db.execute(
        "UPDATE reservation SET nanos = ?, at = ?, is_open = 0, revision = ? WHERE id = ?",
        (came_to, at, revision, id),
    )


def open_before(
    db: sqlite3.Connection, before: datetime, *, position: str | None, limit: int
) -> tuple[list[Reserved], str | None]:
    """Raises NotFound for a position that is none of ours."""
    at, id = _read_position(position)
    rows = db.execute(
        f"SELECT {_RESERVED} FROM reservation WHERE is_open = 1 AND at < ? AND (at, id) > (?, ?)"  # noqa: S608 - our own columns
        " ORDER BY at, id LIMIT ?",
        (to_micros(before), at, id, limit),
    )
    found = [_reserved(row) for row in rows]
    return found, f"{to_micros(found[-1].at)} {found[-1].id}" if len(found) == limit else None


def ending_after(db: sqlite3.Connection, at: int, *, limit: int) -> list[Spending]:
    rows = db.execute(
        f"SELECT {_SPENDING} FROM spending WHERE ends_at > ? ORDER BY ends_at, counter LIMIT ?",  # noqa: S608 - our own columns
        (at, limit),
    )
    return [_spending(row) for row in rows]


def forget(db: sqlite3.Connection, before: int, *, limit: int) -> int:
    windows = db.execute(
        "DELETE FROM spending WHERE counter IN"
        " (SELECT counter FROM spending WHERE ends_at < ? AND open = 0 ORDER BY ends_at LIMIT ?)",
        (before, limit),
    ).rowcount
    settled = db.execute(
        "DELETE FROM reservation WHERE id IN"
        " (SELECT id FROM reservation WHERE is_open = 0 AND at < ? ORDER BY at LIMIT ?)",
        (before, limit),
    ).rowcount
    return windows + settled


def spending_after(db: sqlite3.Connection, counter: str, *, limit: int) -> list[Spending]:
    rows = db.execute(
        f"SELECT {_SPENDING} FROM spending WHERE counter > ? ORDER BY counter LIMIT ?",  # noqa: S608 - our own columns
        (counter, limit),
    )
    return [_spending(row) for row in rows]


def reservations_after(db: sqlite3.Connection, id: str, *, limit: int) -> list[Reserved]:
    rows = db.execute(
        f"SELECT {_RESERVED} FROM reservation WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - our own columns
        (id, limit),
    )
    return [_reserved(row) for row in rows]


def put_spending(db: sqlite3.Connection, row: Spending) -> None:
    db.execute(
        f"INSERT OR REPLACE INTO spending ({_SPENDING}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (row.counter, to_micros(row.ends_at), row.limit_nanos, row.settled_nanos, row.reserved_nanos, row.open),
    )


def put_reservation(db: sqlite3.Connection, row: Reserved) -> None:
    db.execute(
        f"INSERT OR REPLACE INTO reservation ({_RESERVED}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (row.id, row.nanos, " ".join(row.counters), to_micros(row.at), row.is_open, row.fence, row.revision),
    )


def _add(db: sqlite3.Connection, counters: tuple[str, ...], *, settled: int, reserved: int, opened: int) -> None:
    """To those that are still kept."""
    db.executemany(
        "UPDATE spending SET settled = settled + ?, reserved = reserved + ?, open = open + ? WHERE counter = ?",
        [(settled, reserved, opened, counter) for counter in counters],
    )


def _kept(db: sqlite3.Connection, id: str) -> Reserved | None:
    row = db.execute(f"SELECT {_RESERVED} FROM reservation WHERE id = ?", (id,)).fetchone()  # noqa: S608 - our own columns
    return _reserved(row) if row is not None else None


def _sums(db: sqlite3.Connection, counter: str) -> tuple[int, int]:
    row = db.execute("SELECT settled, reserved FROM spending WHERE counter = ?", (counter,)).fetchone()
    return row if row is not None else (0, 0)


def _read_position(position: str | None) -> tuple[int, str]:
    if position is None:
        return -1, ""
    at, _, id = position.partition(" ")
    if not at.isdecimal():
        raise NotFound("no such position")
    return int(at), id


def _reserved(row: tuple[str, int, str, int, int, int, int]) -> Reserved:
    id, nanos, counters, at, is_open, fence, revision = row
    return Reserved(
        id=id,
        nanos=nanos,
        counters=tuple(counters.split()),
        at=from_micros(at),
        is_open=bool(is_open),
        fence=fence,
        revision=revision,
    )


def _spending(row: tuple[str, int, int, int, int, int]) -> Spending:
    counter, ends_at, limit_nanos, settled, reserved, open_ = row
    return Spending(
        counter=counter,
        ends_at=from_micros(ends_at),
        limit_nanos=limit_nanos,
        settled_nanos=settled,
        reserved_nanos=reserved,
        open=open_,
    )
