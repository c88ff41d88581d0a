"""Predictions in Redis: created, changed by compare-and-set, read one at a time. Who holds them is `_redis_lease`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from gateway.contract.errors import LeaseLost, PredictionUnreadable, StoreError, StoreOverloaded
from gateway.contract.fact import Effect, Happening
from gateway.contract.prediction import Prediction
from gateway.store import _redis_change, _redis_row
from gateway.store._change import sort_effects
from gateway.store._encoding import foreign_of, to_micros
from gateway.store._redis_change import Change, Draft, Key
from gateway.store._redis_key import Shard, worker_name
from gateway.store._redis_pointer import KEY_MICROS, Pointers, taken, token_taken
from gateway.store._redis_row import FIELDS, Cache, Kept, Row
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load
from gateway.store.protocol import Applied, Created, CreateResult, Lease, Reduce, Snapshot, Whole

# Somebody else was faster so often that it cannot be chance.
MOST_TRIES = 100

CREATE = load("create", "outbox", "change")
APPLY = load("apply", "outbox", "change")
LOOK = load("look", is_reading=True)


class Predictions:
    def __init__(self, seat: Seat, pointers: Pointers, *, reduce: Reduce, snapshot: Snapshot) -> None:
        self.cache = Cache()
        self._seat = seat
        self._keys = seat.keys
        self._pointers = pointers
        self._reduce = reduce
        self._snapshot = snapshot

    # -- create ------------------------------------------------------------------------------------------------

    async def create(
        self,
        prediction: Prediction,
        *,
        idempotency_key: str | None,
        body_hash: str,
        worker: str | None,
        effects: Sequence[Effect],
    ) -> CreateResult:
        """
        A key stands for an id before there is a prediction of that id. Whoever finds it standing for one that never
        came to be creates his own under the same id, so that of all who use the key one creates, whoever dies.
        """
        holder = worker_name(worker) if worker is not None else ""
        self._draft(prediction, effects)  # what cannot be written is refused before anything is
        if idempotency_key is None:
            return await self._create(prediction, Key(), holder, effects)
        owner, key = prediction.owner, Key(idempotency_key, body_hash, KEY_MICROS)
        id = await self._pointers.claim_key(owner, idempotency_key, prediction.id)
        if id != prediction.id:
            kept = await self.read(id)
            if kept is not None:
                return _first(kept, prediction, key)
            await self._pointers.claim_key(owner, idempotency_key, id, renews=True)
            # Nobody's: whoever asked does not know it by this id, and could not let go what he never hears he holds.
            prediction, holder = replace(prediction, id=id), ""
        try:
            return await self._create(prediction, key, holder, effects)
        except ValueError:
            await self._pointers.free_key(owner, idempotency_key, id)
            raise

    async def _create(self, prediction: Prediction, key: Key, worker: str, effects: Sequence[Effect]) -> CreateResult:
        shard, draft = self._keys.shard(prediction.id), self._draft(prediction, effects)
        now = to_micros(self._seat.now())
        args = _redis_change.of_create(draft, prediction.events, worker=worker, key=key, now=now)
        answer = await self._write_new(shard, draft.prediction, args)
        if not isinstance(answer, int):
            kept = _redis_row.decode(answer)
            self.cache.put(kept.row)
            return _first(kept, prediction, key)
        made = _redis_row.with_deliveries(draft.prediction, answer)
        self.cache.put(Row(made, not made.is_terminal, 0, _redis_change.size_of(args), 0))
        lease = Lease(worker=worker, fence=1) if worker else None
        return CreateResult(outcome=Created.CREATED, prediction=made, lease=lease)

    async def put(self, whole: Whole) -> None:
        """One of another store, as it was there, but for its deliveries; nothing is left of one with its id."""
        prediction, key = whole.prediction, Key()
        for row in whole.idempotency:
            lasts = to_micros(row.expires_at) - to_micros(self._seat.now())
            if lasts > 0:
                key = Key(row.key, row.body_hash, lasts)
                await self._pointers.put_key(prediction.owner, row.key, prediction.id, lasts)
        args = _redis_change.of_whole(whole, key)
        answer = await self._write_new(self._keys.shard(prediction.id), prediction, args)
        if not isinstance(answer, int):
            raise taken(prediction)

    async def _write_new(self, shard: Shard, prediction: Prediction, args: Sequence[Argument]) -> int | list[Any]:
        """How many deliveries it has; or the fields of what stands under its id already."""
        pointed = await self._pointers.write(shard, prediction)
        lists = [shard.owned(prediction.owner), shard.listed, shard.ids, shard.number]
        answer: int | list[Any] = await self._seat.run(
            CREATE,
            [*shard.changed(prediction.id), *lists, *pointed.keys],
            [prediction.id, len(pointed.values), *pointed.values, *args],
        )
        if isinstance(answer, int):
            return answer
        if answer[0] == b"TAKEN":
            raise taken(prediction)
        return answer[1:]

    # -- apply -------------------------------------------------------------------------------------------------

    async def apply(self, id: str, happening: Happening, *, lease: Lease | None) -> Applied:
        row = self.cache.find(id)
        is_fresh = False
        for _ in range(MOST_TRIES):
            if row is None:
                row, is_fresh = await self._read_for(id, lease), True
            now = self._seat.now()
            try:
                change = self._change(row, happening, now)
            except Exception:
                # Perhaps of what does not stand any more, or by somebody who does not hold it any more.
                if is_fresh or (standing := await self._look(id, row, lease)) is row:
                    raise
                row, is_fresh = standing, True
                continue
            if change is None:
                standing = row if is_fresh else await self._look(id, row, lease)
                if standing is row:
                    return Applied(prediction=row.prediction, changed=False)
                row = standing
            else:
                made = await self._commit(id, row, change, lease, now)
                if isinstance(made, Applied):
                    return made
                row = made
            is_fresh = True
        raise StoreOverloaded(f"prediction {id} changes faster than this process can follow")

    def _change(self, row: Row, happening: Happening, now: datetime) -> Change | None:
        """What becomes of it; None: nothing."""
        reduction = self._reduce(row.prediction, happening, now)
        if reduction.prediction is row.prediction:
            return None
        after = replace(reduction.prediction, revision=row.prediction.revision + 1)
        draft = self._draft(after, reduction.effects)
        state = _redis_row.encode(draft.prediction, row.foreign)
        return Change(draft, reduction, state, _redis_change.left_of(row, draft.prediction))

    async def _commit(self, id: str, row: Row, change: Change, lease: Lease | None, now: datetime) -> Applied | Row:
        """Or what stands there by now."""
        shard, before, prediction = self._keys.shard(id), row.prediction, change.draft.prediction
        args = _redis_change.of_apply(row, change, to_micros(now))
        pointed = await self._pointers.write(shard, prediction, known_attempts=len(before.attempts))
        head: list[Argument] = [id, before.revision, *_held_by(lease), len(pointed.values), *pointed.values]
        tell: list[Argument] = [self._seat.origin, self._keys.changes, self._keys.holders]
        try:
            answer = await self._seat.run(APPLY, [*shard.changed(id), *pointed.keys], [*head, *args, *tell])
        except BaseException:
            self.cache.drop(id)  # it may have been written
            raise
        if not isinstance(answer, int):
            if answer[0] == b"TAKEN":
                raise token_taken(prediction)
            return self._other(id, lease, answer)
        made = _redis_row.with_deliveries(prediction, answer)
        foreign = foreign_of(change.state) if row.foreign is not None else None
        is_open, due = change.reduction.is_open, _redis_change.due_of(change.reduction)
        self.cache.put(Row(made, is_open, due, row.request_size, len(change.state), foreign))
        return Applied(prediction=made, changed=True, effects=change.reduction.effects)

    def _draft(self, prediction: Prediction, effects: Sequence[Effect]) -> Draft:
        """Raises what `snapshot` does."""
        sorted_ = sort_effects(prediction, effects)
        if sorted_.events:
            prediction = replace(prediction, events=prediction.events + len(sorted_.events))
        return Draft(prediction, sorted_, self._snapshot(prediction) if sorted_.told else b"")

    async def _read_for(self, id: str, lease: Lease | None) -> Row:
        try:
            kept = await self.read(id)
        except PredictionUnreadable as error:
            raise _foreign(id, lease, error) from error
        if kept is None:
            raise KeyError(id)
        if lease is not None and (kept.worker, kept.fence) != (lease.worker, lease.fence):
            raise _lost(id, lease)
        return kept.row

    async def _look(self, id: str, row: Row, lease: Lease | None) -> Row:
        """The same row if it still stands."""
        shard = self._keys.shard(id)
        args: list[Argument] = [row.prediction.revision, *_held_by(lease)]
        answer = await self._seat.run(LOOK, [shard.prediction(id)], args)
        return row if isinstance(answer, int) else self._other(id, lease, answer)

    def _other(self, id: str, lease: Lease | None, answer: list[Any]) -> Row:
        """What a script found in place of the row it was to change."""
        if answer[0] == b"GONE":
            self.cache.drop(id)
            raise KeyError(id)
        if answer[0] == b"LOST":
            assert lease is not None  # noqa: S101 - without one none is lost
            raise _lost(id, lease)
        try:
            row = _redis_row.decode(answer[1:]).row
        except PredictionUnreadable as error:
            self.cache.drop(id)
            raise _foreign(id, lease, error) from error
        self.cache.put(row)
        return row

    # -- reading -----------------------------------------------------------------------------------------------

    async def read(self, id: str) -> Kept | None:
        """Raises PredictionUnreadable."""
        [values] = await self._seat.read(("HMGET", self._keys.shard(id).prediction(id), *FIELDS))
        if values[1] is None:
            return None
        kept = _redis_row.decode(values)
        self.cache.put(kept.row)
        return kept

    async def get(self, id: str, *, owner: str | None) -> Prediction | None:
        row = self.cache.find(id)
        if row is not None:
            try:
                row = await self._look(id, row, None)
            except KeyError:
                row = None
        else:
            kept = await self.read(id)
            row = kept.row if kept is not None else None
        if row is None or (owner is not None and row.prediction.owner != owner):
            return None
        return row.prediction


def _first(kept: Kept, prediction: Prediction, key: Key) -> CreateResult:
    """What stands under the id already is the same, by the key's body or by what was asked; or another one."""
    first = kept.row.prediction
    if key.name and kept.key == key.name and first.owner == prediction.owner:
        outcome = Created.SAME if kept.body_hash == key.body_hash else Created.CONFLICT
        return CreateResult(outcome=outcome, prediction=first)
    if (first.owner, first.request) != (prediction.owner, prediction.request):
        raise taken(prediction)
    return CreateResult(outcome=Created.SAME, prediction=first)


def _lost(id: str, lease: Lease) -> LeaseLost:
    return LeaseLost(f"{lease.worker} does not hold prediction {id}")


def _foreign(id: str, lease: Lease | None, error: PredictionUnreadable) -> StoreError:
    if lease is None:
        return error
    # A newer version has changed it under its holder, who can only let go.
    return LeaseLost(f"{lease.worker} cannot go on with prediction {id}: {error}")


def _held_by(lease: Lease | None) -> tuple[str, str]:
    return ("", "") if lease is None else (lease.worker, str(lease.fence))
