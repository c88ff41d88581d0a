"""Who holds which prediction in Redis: beats, claims, letting go. What a prediction says is `_redis_prediction`'s."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from gateway.contract.errors import PredictionUnreadable, StoreError
from gateway.store import _redis_row
from gateway.store._redis_key import Shard, worker_name
from gateway.store._redis_row import Cache
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Call, load
from gateway.store.protocol import Held, Lease

log = logging.getLogger("turnout.store")

BEAT = load("beat")
LOOK_DUE = load("look_due", is_reading=True)
CLAIM_DUE = load("claim_due")
HOLDINGS = load("holdings", is_reading=True)
RELEASE = load("release")

# Of one run of a script: others wait behind it.
MOST_AT_ONCE = 50
_MOST_ROUNDS = 20
UNREADABLE_TIME = timedelta(seconds=60)


class Claim(msgspec.Struct, frozen=True):
    """Some predictions of one shard, claimed under one name."""

    shard: Shard
    name: str
    ids: tuple[str, ...]


class Leases:
    def __init__(self, seat: Seat, cache: Cache) -> None:
        self._seat = seat
        self._keys = seat.keys
        self._cache = cache
        self._claims = 0
        # Claims nobody heard the answer of: what they took is held, and driven by nobody.
        self._unanswered: dict[str, list[Claim]] = {}
        # Due, and nothing this version can go on with: until when each is not claimed again. A newer one may bring it
        # back to what we know, and be gone.
        self._unreadable: dict[str, datetime] = {}

    async def beat(self, worker: str, *, lease_seconds: float) -> None:
        lasts = round(lease_seconds * 1_000_000)
        await self._seat.run_all(
            [self._seat.call(BEAT, [shard.workers], [worker_name(worker), lasts]) for shard in self._keys.shards]
        )

    async def claim_due(self, worker: str, *, limit: int) -> list[Held]:
        name = worker_name(worker)
        held: list[Held] = []
        heard: list[Claim] = []
        try:
            while self._unanswered.get(name):
                held += await self._claim(name, [self._unanswered[name].pop()], heard)
            for _ in range(_MOST_ROUNDS):
                if len(held) >= limit:
                    break
                ids, is_all = await self._look(name, limit - len(held))
                before = len(held)
                if ids:
                    held += await self._claim(name, self._claims_of(ids), heard)
                # What was not to be had any more went to somebody who was faster: there may be others.
                if is_all and len(held) - before == len(ids):
                    break
        except StoreError:
            if not held:
                raise
        except BaseException:
            # Whoever asked has left, and hears nothing of these either.
            self._unanswered.setdefault(name, []).extend(heard)
            raise
        return held

    async def _look(self, worker: str, limit: int) -> tuple[list[str], bool]:
        """Which may be claimed, those of the dead first, then by when they are due; and whether those are all."""
        most = limit + 1 + len(self._unreadable)
        answers = await self._seat.run_all(
            [
                self._seat.call(LOOK_DUE, [shard.due, shard.held, shard.workers], [worker, most])
                for shard in self._keys.shards
            ]
        )
        due: list[tuple[float, str]] = []
        for abandoned, free in answers:
            due += [(-1.0, id.decode()) for id in abandoned]
            due += [(float(score), id.decode()) for id, score in _pairs(free)]
        due.sort(key=lambda one: one[0])
        now = self._seat.now()
        ids = [id for _, id in due if id not in self._unreadable or self._unreadable[id] <= now]
        return ids[:limit], len(ids) <= limit

    def _claims_of(self, ids: Sequence[str]) -> list[Claim]:
        """Sent one behind the other, without waiting in between: others come in between them all the same."""
        claims: list[Claim] = []
        for shard, some in self._keys.by_shard(ids).items():
            for start in range(0, len(some), MOST_AT_ONCE):
                self._claims += 1
                claims.append(
                    Claim(shard, f"{self._seat.origin}.{self._claims}", tuple(some[start : start + MOST_AT_ONCE]))
                )
        return claims

    async def _claim(self, worker: str, claims: list[Claim], heard: list[Claim]) -> list[Held]:
        """A claim made once more under its name brings what it brought before: whoever hears of it drives it."""
        try:
            answers = await self._seat.run_all([self._call(worker, claim) for claim in claims])
        except BaseException:
            self._unanswered.setdefault(worker, []).extend(claims)
            raise
        heard += claims
        held: list[Held] = []
        unreadable: dict[str, PredictionUnreadable] = {}
        for claim, found in zip(claims, answers, strict=True):
            for id, values in zip(claim.ids, found, strict=True):
                if values is None:
                    continue
                try:
                    kept = _redis_row.decode(values)
                except PredictionUnreadable as error:
                    unreadable[id] = error
                    continue
                self._cache.put(kept.row)
                self._unreadable.pop(id, None)
                held.append(Held(prediction=kept.row.prediction, lease=Lease(worker=worker, fence=kept.fence)))
        if unreadable:
            until = self._seat.now() + UNREADABLE_TIME
            for id, why in unreadable.items():
                if id not in self._unreadable:
                    log.error("prediction %s is left as it is: %s", id, why)
                self._unreadable[id] = until
            await self.release(worker, list(unreadable))
        return held

    def _call(self, worker: str, claim: Claim) -> Call:
        shard = claim.shard
        return self._seat.call(
            CLAIM_DUE,
            [shard.due, shard.held, shard.workers, *map(shard.prediction, claim.ids)],
            [worker, claim.name, len(claim.ids), *claim.ids],
        )

    async def release(self, worker: str, ids: Sequence[str] | None) -> None:
        name = worker_name(worker)
        if ids is not None:
            await self._let_go(name, ids)
            return
        self._unanswered.pop(name, None)
        while True:
            answers = await self._seat.run_all(
                [self._seat.call(HOLDINGS, [shard.held], [name, MOST_AT_ONCE]) for shard in self._keys.shards]
            )
            found = [id.decode() for answer in answers for id in answer]
            if not found:
                return
            await self._let_go(name, found)

    async def _let_go(self, worker: str, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), MOST_AT_ONCE):
            calls = [
                self._seat.call(
                    RELEASE, [shard.due, shard.held, *map(shard.prediction, some)], [worker, len(some), *some]
                )
                for shard, some in self._keys.by_shard(ids[start : start + MOST_AT_ONCE]).items()
            ]
            await self._seat.run_all(calls)


def _pairs(flat: Sequence[bytes]) -> zip[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
