"""Everybody's predictions by what they are, for ops: which are found, and where the next search goes on. SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.contract.errors import PredictionUnreadable
from gateway.contract.prediction import Prediction
from gateway.store._encoding import decode_brief, to_micros
from gateway.store._position import Position
from gateway.store.protocol import Page, Search

# Of the index, which holds all that is asked: some 20 ms.
MOST_LOOKED_AT = 50_000
MOST_REQUEST_BYTES = 262_144
_NEWEST = Position(at=2**63 - 1, id="")
_COLUMNS = "number, created_at, id, status, owner, model, providers, is_rescued"
_WALK = f"""
    SELECT {_COLUMNS} FROM prediction INDEXED BY prediction_searched
    WHERE (created_at, id) < (:at, :id) AND created_at >= :since ORDER BY created_at DESC, id DESC
"""  # noqa: S608 - our own columns
_SEEK = f"""
    SELECT {_COLUMNS} FROM prediction
    WHERE number IN (SELECT number FROM prediction WHERE id >= :prefix AND id < :prefix || '~')
    AND (created_at, id) < (:at, :id) AND created_at >= :since ORDER BY created_at DESC, id DESC
"""  # noqa: S608 - our own columns


def search(db: sqlite3.Connection, wanted: Search, *, position: str | None, limit: int) -> Page:
    at = Position.parse(position) if position is not None else _NEWEST
    source = _SEEK if wanted.prefix is not None else f"{_WALK} LIMIT {MOST_LOOKED_AT}"
    conditions, values = _conditions(wanted)
    values |= {"at": at.at, "id": at.id, "limit": limit + 1}
    values["since"] = to_micros(wanted.created_after) if wanted.created_after is not None else -(2**63)
    rows = db.execute(
        # The limit inside counts what is looked at, the one outside what is found.
        f"SELECT number, created_at, id, model FROM ({source}) WHERE {conditions} LIMIT :limit",  # noqa: S608 - our own words
        values,
    ).fetchall()
    looked = (_prediction(db, number, model) for number, _, _, model in rows[:limit])
    found = tuple(one for one in looked if one is not None)
    if len(rows) > limit:
        _, last_at, last_id, _ = rows[limit - 1]
        return Page(predictions=found, next=str(Position(at=last_at, id=last_id)))
    return Page(predictions=found, next=None if wanted.prefix is not None else _end_of_walk(db, values))


def _end_of_walk(db: sqlite3.Connection, values: dict[str, Any]) -> str | None:
    """The last one that was looked at, if there are more behind it."""
    found = db.execute(
        f"SELECT created_at, id FROM ({_WALK} LIMIT 2 OFFSET {MOST_LOOKED_AT - 1})",  # noqa: S608 - our own words
        {name: values[name] for name in ("at", "id", "since")},
    ).fetchall()
    return str(Position(at=found[0][0], id=found[0][1])) if len(found) == 2 else None


def _conditions(wanted: Search) -> tuple[str, dict[str, Any]]:
    conditions, values = ["1"], dict[str, Any]()
    if wanted.statuses:
        names = [f"status{index}" for index in range(len(wanted.statuses))]
        conditions.append(f"status IN ({', '.join(':' + name for name in names)})")
        values |= dict(zip(names, sorted(wanted.statuses), strict=True))
    if wanted.model is not None:
        conditions.append("model = :model")
        values["model"] = wanted.model
    if wanted.owner is not None:
        conditions.append("owner = :owner")
        values["owner"] = wanted.owner
    if wanted.provider is not None:
        conditions.append("instr(providers, :provider) > 0")
        values["provider"] = f" {wanted.provider} "
    if wanted.prefix is not None:
        values["prefix"] = wanted.prefix
    if wanted.is_rescued:
        conditions.append("is_rescued = 1")
    return " AND ".join(conditions), values


def _prediction(db: sqlite3.Connection, number: int, model: str) -> Prediction | None:
    request, state = db.execute(
        "SELECT CASE WHEN length(r.body) <= ? THEN r.body END, p.state FROM prediction p"
        " JOIN request r ON r.prediction = p.number WHERE p.number = ?",
        (MOST_REQUEST_BYTES, number),
    ).fetchone()
    try:
        return decode_brief(model, request, state)
    except PredictionUnreadable:
        return None  # a page is not refused for one that this version cannot read
