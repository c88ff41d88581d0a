"""What happens to predictions inside the writer's transactions: created, changed, held. Who reads them is `_view`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import LeaseLost, PredictionUnreadable
from gateway.contract.fact import Effect, Happening, LedgerEntry, Notify, StreamEvent
from gateway.contract.prediction import Prediction
from gateway.store import _delivery, _view
from gateway.store._cache import Cache, Row
from gateway.store._change import IDEMPOTENCY_LIFETIME
from gateway.store._encoding import (
    decode_prediction,
    encode_request,
    encode_state,
    foreign_of,
    providers_of,
    to_micros,
)
from gateway.store.protocol import Applied, Created, CreateResult, Held, Lease, Reduce, Snapshot

log = logging.getLogger("turnout.store")


class Predictions:
    """The writing half. Each method is one operation of the writer."""

    def __init__(self, *, reduce: Reduce, snapshot: Snapshot) -> None:
        self.cache = Cache()
        self._reduce = reduce
        self._snapshot = snapshot
        # Due, and nothing this version can go on with: not looked at again before a newer one has opened the file.
        self._unreadable: set[str] = set()

    def create(
        self,
        db: sqlite3.Connection,
        now: datetime,
        prediction: Prediction,
        *,
        idempotency_key: str | None,
        body_hash: str,
        worker: str | None,
        effects: Sequence[Effect],
    ) -> CreateResult:
        if idempotency_key is not None:
            first = self._first(db, now, prediction.owner, idempotency_key, body_hash)
            if first is not None:
                return first
        change = _Change(db, to_micros(now), None, prediction, effects)
        prediction = change.prediction
        request, state = encode_request(prediction.request), encode_state(prediction)
        is_open = not prediction.is_terminal
        fence = 0 if worker is None else 1
        try:
            number = db.execute(
                "INSERT INTO prediction (id, stream_token, owner, created_at, status, is_open, due_at, worker, fence,"
                " state, model, providers, is_rescued, ended_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                (
                    prediction.id,
                    prediction.stream_token,
                    prediction.owner,
                    to_micros(prediction.created_at),
                    prediction.status,
                    is_open,
                    worker,
                    fence,
                    state,
                    prediction.request.model,
                    providers_of(prediction),
                    prediction.is_rescued,
                    _view.ended_at(prediction, is_open=is_open, now=to_micros(now)),
                ),
            ).lastrowid
        except sqlite3.IntegrityError:
            return self._repeated(db, prediction)
        assert number is not None  # noqa: S101 - an INSERT that did not raise has a row
        db.execute("INSERT INTO request (prediction, body) VALUES (?, ?)", (number, request))
        if idempotency_key is not None:
            db.execute(
                "INSERT OR REPLACE INTO idempotency (owner, key, body_hash, prediction, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (prediction.owner, idempotency_key, body_hash, number, to_micros(now + IDEMPOTENCY_LIFETIME)),
            )
        change.write(number, known_attempts=0, snapshot=self._snapshot)
        self.cache.put(Row(number, prediction, is_open, 0, worker, fence, len(request), len(state)))
        lease = None if worker is None else Lease(worker=worker, fence=fence)
        return CreateResult(outcome=Created.CREATED, prediction=prediction, lease=lease)

    def apply(
        self, db: sqlite3.Connection, now: datetime, id: str, happening: Happening, *, lease: Lease | None
    ) -> Applied:
        row = self._find_for(db, id, lease)
        if row is None:
            raise KeyError(id)
        if lease is not None and (row.worker, row.fence) != (lease.worker, lease.fence):
            raise LeaseLost(f"{lease.worker} does not hold prediction {id}")
        before = row.prediction
        reduction = self._reduce(before, happening, now)
        if reduction.prediction is before:
            return Applied(prediction=before, changed=False)
        change = _Change(
            db,
            to_micros(now),
            row.number,
            replace(reduction.prediction, revision=before.revision + 1),
            reduction.effects,
        )
        state = encode_state(change.prediction, row.foreign)
        is_erased = change.prediction.data_removed and not before.data_removed
        after = Row(
            row.number,
            change.prediction,
            reduction.is_open,
            0 if reduction.due_at is None else to_micros(reduction.due_at),
            row.worker,
            row.fence,
            _erase(db, row, change.prediction) if is_erased else row.request_bytes,
            len(state),
            foreign_of(state) if row.foreign is not None else None,
        )
        _update(db, row, after, state, to_micros(now))
        change.write(row.number, known_attempts=len(before.attempts), snapshot=self._snapshot)
        self.cache.put(after)
        return Applied(prediction=change.prediction, changed=True, effects=reduction.effects)

    def forget(self, db: sqlite3.Connection, id: str) -> None:
        """Its row was written by somebody else: what is remembered of it holds no more."""
        row = self._read(db, id)
        if row is not None:
            self.cache.put(row)

    # -- leases ------------------------------------------------------------------------------------------------

    def beat(self, db: sqlite3.Connection, now: datetime, worker: str, lease_seconds: float) -> None:
        db.execute(
            "INSERT OR REPLACE INTO worker (name, lease_until) VALUES (?, ?)",
            (worker, to_micros(now + timedelta(seconds=lease_seconds))),
        )
        # A worker's pulse is also what sweeps.
        db.execute("DELETE FROM idempotency WHERE expires_at <= ?", (to_micros(now),))

    def claim_due(self, db: sqlite3.Connection, now: datetime, worker: str, *, limit: int) -> list[Held]:
        # Whoever asks is alive: what it holds it keeps, and is not handed to it twice.
        for name in _dead_holders(db, to_micros(now), worker):
            self.release(db, name, None)
        claimed: list[Row] = []
        while len(claimed) < limit and (due := self._due(db, to_micros(now), limit - len(claimed))):
            for row in due:
                held = replace(row, worker=worker, fence=row.fence + 1)
                db.execute(
                    "UPDATE prediction SET worker = ?, fence = ? WHERE number = ?", (worker, held.fence, row.number)
                )
                self.cache.put(held)
                claimed.append(held)
        return [Held(prediction=row.prediction, lease=Lease(worker=worker, fence=row.fence)) for row in claimed]

    def _due(self, db: sqlite3.Connection, now: int, limit: int) -> list[Row]:
        """Some that are due and free; none, if there are none. Those that cannot be read are left where they are."""
        while True:
            found = db.execute(
                "SELECT id FROM prediction WHERE is_open = 1 AND worker IS NULL AND due_at <= ?"
                " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT ?",
                (now, msgspec.json.encode(sorted(self._unreadable)).decode(), limit),
            ).fetchall()
            rows: list[Row] = []
            for (id,) in found:
                try:
                    row = self._find(db, id)
                except PredictionUnreadable as error:
                    log.warning("prediction %s is left as it is: %s", id, error)
                    self._unreadable.add(id)
                else:
                    rows += [row] if row is not None else []
            if rows or not found:
                return rows

    def release(self, db: sqlite3.Connection, worker: str, ids: Sequence[str] | None) -> None:
        """By the rows' columns alone: what cannot be read can be let go of."""
        if ids is None:
            found = db.execute("SELECT id FROM prediction WHERE is_open = 1 AND worker = ?", (worker,))
            ids = [id for (id,) in found.fetchall()]
        db.executemany("UPDATE prediction SET worker = NULL WHERE id = ? AND worker = ?", [(id, worker) for id in ids])
        for id in ids:
            row = self.cache.find(id)
            if row is not None and row.worker == worker:
                self.cache.put(replace(row, worker=None))

    # -- finding -----------------------------------------------------------------------------------------------

    def _find_for(self, db: sqlite3.Connection, id: str, lease: Lease | None) -> Row | None:
        try:
            return self._find(db, id)
        except PredictionUnreadable as error:
            if lease is None:
                raise
            # A newer version has changed it under its holder, who can only let go.
            raise LeaseLost(f"{lease.worker} cannot go on with prediction {id}: {error}") from error

    def _find(self, db: sqlite3.Connection, id: str) -> Row | None:
        return self.cache.find(id) or self._read(db, id)

    def _read(self, db: sqlite3.Connection, id: str) -> Row | None:
        found = db.execute(
            "SELECT p.number, r.body, p.state, p.is_open, p.due_at, p.worker, p.fence FROM prediction p"
            " JOIN request r ON r.prediction = p.number WHERE p.id = ?",
            (id,),
        ).fetchone()
        if found is None:
            return None
        number, request, state, is_open, due_at, worker, fence = found
        prediction, foreign = decode_prediction(request, state), foreign_of(state)
        return Row(number, prediction, bool(is_open), due_at, worker, fence, len(request), len(state), foreign)

    def _first(
        self, db: sqlite3.Connection, now: datetime, owner: str, key: str, body_hash: str
    ) -> CreateResult | None:
        found = db.execute(
            "SELECT p.id, i.body_hash FROM idempotency i JOIN prediction p ON p.number = i.prediction"
            " WHERE i.owner = ? AND i.key = ? AND i.expires_at > ?",
            (owner, key, to_micros(now)),
        ).fetchone()
        if found is None:
            return None
        row = self._find(db, found[0])
        assert row is not None  # noqa: S101 - it was joined a line ago
        outcome = Created.SAME if found[1] == body_hash else Created.CONFLICT
        return CreateResult(outcome=outcome, prediction=row.prediction)

    def _repeated(self, db: sqlite3.Connection, prediction: Prediction) -> CreateResult:
        """The id is taken. The same prediction once more, after a commit nobody heard of, is no error."""
        first = self._find(db, prediction.id)
        if first is None or (first.prediction.owner, first.prediction.request) != (
            prediction.owner,
            prediction.request,
        ):
            raise ValueError(f"the id or the stream token of prediction {prediction.id} is taken by another one")
        return CreateResult(outcome=Created.SAME, prediction=first.prediction)


def _erase(db: sqlite3.Connection, row: Row, prediction: Prediction) -> int:
    """Whatever lies beside the state of what was put in and what came out. The bytes of what is left of the request."""
    if row.foreign is not None:
        raise PredictionUnreadable(
            f"a newer Turnout wrote prediction {prediction.id}: what it keeps of the data is for that one to erase"
        )
    request = encode_request(prediction.request)
    db.execute("UPDATE request SET body = ? WHERE prediction = ?", (request, row.number))
    db.execute("DELETE FROM event WHERE prediction = ? AND event <> 'done'", (row.number,))
    _delivery.erase(db, row.number)
    return len(request)


def _update(db: sqlite3.Connection, before: Row, after: Row, state: bytes, now: int) -> None:
    """SQLite rewrites the indexes of every column that is named: most changes are of none of them."""
    prediction, earlier = after.prediction, before.prediction
    names: tuple[str, ...] = ()
    values: list[str | int | bytes | None] = [state]
    if (after.is_open, after.due_at, prediction.data_removed) != (before.is_open, before.due_at, earlier.data_removed):
        names += _DUE
        values += (after.is_open, after.due_at, _view.ended_at(prediction, is_open=after.is_open, now=now))
    # Of what is searched by, nothing else changes: the model never, the rescue with the status.
    if prediction.status is not earlier.status or len(prediction.attempts) != len(earlier.attempts):
        names += _SEARCHED
        values += (prediction.status, providers_of(prediction), prediction.is_rescued)
    db.execute(_UPDATES[names], (*values, after.number))


_DUE = ("is_open", "due_at", "ended_at")
_SEARCHED = ("status", "providers", "is_rescued")
_UPDATES: dict[tuple[str, ...], str] = {
    names: f"UPDATE prediction SET {', '.join(f'{name} = ?' for name in ('state', *names))} WHERE number = ?"  # noqa: S608 - our own names
    for names in ((), _DUE, _SEARCHED, (*_DUE, *_SEARCHED))
}


def _dead_holders(db: sqlite3.Connection, now: int, worker: str) -> list[str]:
    """Others that hold something and whose lease is over. One step in the index for each, however much it holds."""
    found = db.execute(
        "WITH RECURSIVE holder (name) AS ("
        "  SELECT min(worker) FROM prediction WHERE is_open = 1 AND worker IS NOT NULL"
        "  UNION ALL"
        "  SELECT (SELECT min(worker) FROM prediction WHERE is_open = 1 AND worker > holder.name)"
        "  FROM holder WHERE holder.name IS NOT NULL"
        ") SELECT name FROM holder WHERE name IS NOT NULL"
        " AND name <> ? AND NOT EXISTS (SELECT 1 FROM worker w WHERE w.name = holder.name AND w.lease_until > ?)",
        (worker, now),
    )
    return [name for (name,) in found.fetchall()]


class _Change:
    """A prediction's new state with its counters moved on, and the rows that go with it."""

    def __init__(
        self, db: sqlite3.Connection, now: int, number: int | None, prediction: Prediction, effects: Sequence[Effect]
    ) -> None:
        self._db = db
        self._now = now
        self._ledger: list[LedgerEntry] = []
        self._events: list[StreamEvent] = []
        self._drafts: list[_delivery.Draft] = []
        self._first_event = prediction.events
        self.prediction = prediction
        if not effects:
            return
        notices: list[str] = []
        for effect in effects:
            if isinstance(effect, StreamEvent):
                self._events.append(effect)
            elif isinstance(effect, Notify):
                notices.append(effect.event)
            else:
                self._ledger.append(effect)
        self._drafts = _delivery.draft(db, now, number, prediction, notices)
        added = sum(draft.replaces is None for draft in self._drafts)
        if self._events or added:
            self.prediction = replace(
                prediction, events=prediction.events + len(self._events), deliveries=prediction.deliveries + added
            )

    def write(self, number: int, *, known_attempts: int, snapshot: Snapshot) -> None:
        """All that hangs on the prediction, whose own row is written already."""
        db = self._db
        for attempt in self.prediction.attempts[known_attempts:]:
            db.execute(
                "INSERT INTO attempt (token_hash, prediction, number) VALUES (?, ?, ?)",
                (attempt.token_hash, number, attempt.number),
            )
        if self._events:
            db.executemany(
                "INSERT INTO event (prediction, sequence, event, data, at) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, sequence, event.event, event.data, self._now)
                    for sequence, event in enumerate(self._events, self._first_event)
                ],
            )
        for entry in self._ledger:
            db.execute(
                "INSERT INTO ledger (prediction, attempt, offer, provider, state, nanos, basis, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (prediction, attempt) DO UPDATE SET"
                " offer = excluded.offer, provider = excluded.provider, state = excluded.state,"
                " nanos = excluded.nanos, basis = excluded.basis, at = excluded.at",
                (
                    number,
                    entry.attempt,
                    entry.offer,
                    entry.provider,
                    entry.state,
                    entry.nanos,
                    entry.basis,
                    self._now,
                ),
            )
        if self._drafts:
            _delivery.write(db, self._now, number, self.prediction, self._drafts, snapshot(self.prediction))
