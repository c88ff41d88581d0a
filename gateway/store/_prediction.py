"""What happens to predictions inside the writer's transactions: created, changed, held. Who reads them is `_view`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from gateway.contract.errors import LeaseLost
from gateway.contract.fact import Effect, Happening, LedgerEntry, Notify, StreamEvent
from gateway.contract.prediction import Prediction
from gateway.store import _delivery
from gateway.store._encoding import decode_prediction, encode_request, encode_state, providers_of, to_micros
from gateway.store.protocol import Applied, Created, CreateResult, Reduce, Snapshot

IDEMPOTENCY_LIFETIME = timedelta(hours=24)

_CACHE_BYTES = 16 * 1024 * 1024


class Row(msgspec.Struct, frozen=True):
    """A prediction as its row has it; `due_at` in microseconds, 0 is at once."""

    number: int
    prediction: Prediction
    is_open: bool
    due_at: int
    worker: str | None
    request_bytes: int
    state_bytes: int


class Cache:
    """
    Open predictions as they were last committed, so that a change needs no SELECT and no decoding.

    Written in the writing thread; what a transaction puts here is seen by others once it is committed, and forgotten,
    with all the rest, if it is not. Bounded by the encoded size.
    """

    def __init__(self, limit_bytes: int = _CACHE_BYTES) -> None:
        self._committed: dict[str, Row] = {}
        self._pending: dict[str, Row] = {}
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def committed(self, id: str) -> Prediction | None:
        """From any thread."""
        row = self._committed.get(id)
        return row.prediction if row is not None else None

    def find(self, id: str) -> Row | None:
        return self._pending.get(id) or self._committed.get(id)

    def put(self, row: Row) -> None:
        """The last act of an operation: nothing that can fail may follow it."""
        self._pending[row.prediction.id] = row

    def end(self, is_committed: bool) -> None:
        if not is_committed:
            self._committed = {}
            self._bytes = 0
        else:
            for id, row in self._pending.items():
                before = self._committed.pop(id, None)
                self._bytes -= _size(before) if before is not None else 0
                if row.is_open:
                    self._committed[id] = row
                    self._bytes += _size(row)
            while self._bytes > self._limit_bytes:
                self._bytes -= _size(self._committed.pop(next(iter(self._committed))))
        self._pending = {}


def _size(row: Row) -> int:
    return row.request_bytes + row.state_bytes


class Predictions:
    """The writing half. Each method is one operation of the writer."""

    def __init__(self, *, reduce: Reduce, snapshot: Snapshot) -> None:
        self.cache = Cache()
        self._reduce = reduce
        self._snapshot = snapshot

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
        try:
            number = db.execute(
                "INSERT INTO prediction (id, stream_token, owner, created_at, status, is_open, due_at, worker, state,"
                " model, providers, is_rescued) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)",
                (
                    prediction.id,
                    prediction.stream_token,
                    prediction.owner,
                    to_micros(prediction.created_at),
                    prediction.status,
                    is_open,
                    worker,
                    state,
                    prediction.request.model,
                    providers_of(prediction),
                    prediction.is_rescued,
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
        self.cache.put(Row(number, prediction, is_open, 0, worker, len(request), len(state)))
        return CreateResult(outcome=Created.CREATED, prediction=prediction)

    def apply(
        self, db: sqlite3.Connection, now: datetime, id: str, happening: Happening, *, worker: str | None
    ) -> Applied:
        row = self._find(db, id)
        if row is None:
            raise KeyError(id)
        if worker is not None and row.worker != worker:
            raise LeaseLost(f"{worker} does not hold prediction {id}")
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
        state = encode_state(change.prediction)
        after = Row(
            row.number,
            change.prediction,
            reduction.is_open,
            0 if reduction.due_at is None else to_micros(reduction.due_at),
            row.worker,
            row.request_bytes,
            len(state),
        )
        _update(db, row, after, state)
        change.write(row.number, known_attempts=len(before.attempts), snapshot=self._snapshot)
        self.cache.put(after)
        return Applied(prediction=change.prediction, changed=True, effects=reduction.effects)

    # -- leases ------------------------------------------------------------------------------------------------

    def beat(self, db: sqlite3.Connection, now: datetime, worker: str, lease_seconds: float) -> None:
        db.execute(
            "INSERT OR REPLACE INTO worker (name, lease_until) VALUES (?, ?)",
            (worker, to_micros(now + timedelta(seconds=lease_seconds))),
        )
        # A worker's pulse is also what sweeps.
        db.execute("DELETE FROM idempotency WHERE expires_at <= ?", (to_micros(now),))

    def claim_due(self, db: sqlite3.Connection, now: datetime, worker: str, *, limit: int) -> list[Prediction]:
        # Whoever asks is alive: what it holds it keeps, and is not handed to it twice.
        for name in _dead_holders(db, to_micros(now), worker):
            self.release(db, name, None)
        ids = db.execute(
            "SELECT id FROM prediction WHERE is_open = 1 AND worker IS NULL AND due_at <= ? ORDER BY due_at LIMIT ?",
            (to_micros(now), limit),
        ).fetchall()
        claimed = [replace(row, worker=worker) for (id,) in ids if (row := self._find(db, id)) is not None]
        self._hold(db, claimed)
        return [row.prediction for row in claimed]

    def release(self, db: sqlite3.Connection, worker: str, ids: Sequence[str] | None) -> None:
        if ids is None:
            found = db.execute("SELECT id FROM prediction WHERE is_open = 1 AND worker = ?", (worker,))
            ids = [id for (id,) in found.fetchall()]
        rows = [row for id in ids if (row := self._find(db, id)) is not None and row.worker == worker]
        self._hold(db, [replace(row, worker=None) for row in rows])

    def _hold(self, db: sqlite3.Connection, rows: list[Row]) -> None:
        db.executemany("UPDATE prediction SET worker = ? WHERE number = ?", [(row.worker, row.number) for row in rows])
        for row in rows:
            self.cache.put(row)

    # -- finding -----------------------------------------------------------------------------------------------

    def _find(self, db: sqlite3.Connection, id: str) -> Row | None:
        row = self.cache.find(id)
        if row is not None:
            return row
        found = db.execute(
            "SELECT p.number, r.body, p.state, p.is_open, p.due_at, p.worker FROM prediction p"
            " JOIN request r ON r.prediction = p.number WHERE p.id = ?",
            (id,),
        ).fetchone()
        if found is None:
            return None
        number, request, state, is_open, due_at, worker = found
        prediction = decode_prediction(request, state)
        return Row(number, prediction, bool(is_open), due_at, worker, len(request), len(state))

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


def _update(db: sqlite3.Connection, before: Row, after: Row, state: bytes) -> None:
    """SQLite rewrites the indexes of every column that is named: most changes are of none of them."""
    prediction, earlier = after.prediction, before.prediction
    names: list[str] = []
    values: list[str | int | bytes] = [state]
    if (after.is_open, after.due_at) != (before.is_open, before.due_at):
        names += _DUE
        values += (after.is_open, after.due_at)
    # Of what is searched by, nothing else changes: the model never, the rescue with the status.
    if prediction.status is not earlier.status or len(prediction.attempts) != len(earlier.attempts):
        names += _SEARCHED
        values += (prediction.status, providers_of(prediction), prediction.is_rescued)
    db.execute(_UPDATES[len(names)], (*values, after.number))


_DUE = ("is_open", "due_at")
_SEARCHED = ("status", "providers", "is_rescued")
_UPDATES = {
    len(names): f"UPDATE prediction SET {', '.join(f'{name} = ?' for name in ('state', *names))} WHERE number = ?"  # noqa: S608 - our own names
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
