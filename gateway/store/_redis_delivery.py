"""The outbox in Redis: who sends which delivery, and what waits. Which ones a change makes is in lua/change.lua."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.errors import StoreError
from gateway.contract.prediction import WebhookEvent
from gateway.store._change import delivery_id
from gateway.store._delivery_walk import MOST_PIECES, Lanes
from gateway.store._encoding import from_micros, to_micros
from gateway.store._redis_delivery_look import Due, Looks, by_shard, entry_of_prediction
from gateway.store._redis_key import Shard, digits
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load
from gateway.store.protocol import AGES_SECONDS, GIVEN_BACK, MOST_TRIES_KEPT, Backlog, Delivery, Redelivery, Try

CLAIM_DELIVERIES = load("claim_deliveries", "outbox")
RELEASE_DELIVERIES = load("release_deliveries", "outbox")
FINISH_DELIVERY = load("finish_delivery", "outbox")
REDELIVER = load("redeliver", "outbox")
NEXT_DELIVERY = load("next_delivery", is_reading=True)

MOST_COUNTED = 20_000
MOST_HOSTS = 1_000
_CHUNK = 200
_FIELDS = ("event", "body", "made", "due", "tries", "ended", "last", "fence")


class Last(msgspec.Struct, array_like=True, frozen=True):
    """What was recorded of a delivery's tries."""

    status: int | None = None
    error: str | None = None
    history: tuple[Try, ...] = ()


_LAST = msgspec.msgpack.Decoder(Last)


class Deliveries:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys
        self._looks = Looks(seat)

    # -- sending -----------------------------------------------------------------------------------------------

    async def claim(self, worker: str, *, limit: int, lease_seconds: float, exclude_lanes: Lanes) -> list[Delivery]:
        lease = round(lease_seconds * 1_000_000)
        claimed: list[Delivery] = []
        for _ in range(MOST_PIECES):
            before = len(claimed)
            try:
                due, is_through = await self._looks.look(limit - before, exclude_lanes)
                for shard, entries in by_shard(due).items():
                    claimed += await self._claim_of(shard, worker, lease, entries)
            except StoreError:
                # What an answer was lost of comes back when the lease is over; what was heard of is not to wait for it.
                if not claimed:
                    raise
                break
            # What was not to be had any more went to somebody who was faster: there may be others.
            if len(claimed) >= limit or (is_through and len(claimed) - before == len(due)):
                break
        claimed.sort(key=lambda delivery: (delivery.due_at, delivery.prediction, delivery.sequence))
        return claimed

    async def _claim_of(self, shard: Shard, worker: str, lease: int, entries: Sequence[Due]) -> list[Delivery]:
        named = [(one.host, one.tail, *entry_of_prediction(one.tail)) for one in entries]
        args: list[Argument] = [worker, lease, len(named)]
        for host, tail, _, sequence in named:
            args += (host, tail, sequence)
        keys = [shard.outbox, shard.hosts, *(shard.deliveries(id) for _, _, id, _ in named)]
        found = await self._seat.run(CLAIM_DELIVERIES, keys, args)
        return [
            _delivery(id, values[0], values[1], sequence, values[2:])
            for (_, _, id, sequence), values in zip(named, found, strict=True)
            if values is not None
        ]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self._looks.forget()  # they may lie before where those have come to
        shards: dict[Shard, list[Delivery]] = {}
        for delivery in deliveries:
            if delivery.id == delivery_id(delivery.prediction, delivery.event, delivery.sequence):
                shards.setdefault(self._keys.shard(delivery.prediction), []).append(delivery)
        calls = []
        for shard, found in shards.items():
            args: list[Argument] = [GIVEN_BACK - 1, len(found)]
            for one in found:
                args += (one.prediction, one.sequence, one.fence, to_micros(one.due_at))
            keys = [shard.outbox, shard.hosts, *(shard.deliveries(one.prediction) for one in found)]
            calls.append(self._seat.call(RELEASE_DELIVERIES, keys, args))
        if calls:
            await self._seat.run_all(calls)

    async def finish(
        self, delivery: Delivery, *, ended: str | None, due_at: datetime | None, status: int | None, error: str | None
    ) -> bool:
        id, sequence = delivery.prediction, delivery.sequence
        if delivery.id != delivery_id(id, delivery.event, sequence):
            return False
        # Its fence vouches for it that nobody has recorded a try since it was claimed.
        history = (*delivery.history, Try(at=self._seat.now(), status=status, error=error))[-MOST_TRIES_KEPT:]
        args: list[Argument] = [
            id,
            sequence,
            delivery.fence,
            ended or "",
            to_micros(due_at) if due_at is not None else "",
            msgspec.msgpack.encode(Last(status, error, history)),
        ]
        return bool(await self._seat.run(FINISH_DELIVERY, self._keys.shard(id).delivered(id), args))

    async def redeliver(self, id: str) -> Redelivery:
        answer: bytes = await self._seat.run(REDELIVER, self._keys.shard(id).delivered(id), [id])
        return Redelivery(answer.decode())

    # -- reading -----------------------------------------------------------------------------------------------

    async def of_prediction(self, id: str) -> list[Delivery]:
        shard = self._keys.shard(id)
        key = shard.deliveries(id)
        count, (owner, url) = await self._seat.read(
            ("HGET", shard.prediction(id), "deliveries"), ("HMGET", key, "owner", "url")
        )
        sequences = range(int(count or 0))
        rows = await self._seat.read(*(("HMGET", key, *_fields(sequence)) for sequence in sequences))
        return [
            _delivery(id, owner, url, sequence, values)
            for sequence, values in zip(sequences, rows, strict=True)
            if values[0] is not None
        ]

    async def next_at(self) -> datetime | None:
        found = await self._seat.run_all([self._seat.call(NEXT_DELIVERY, [shard.hosts]) for shard in self._keys.shards])
        times = [float(at) for at in found if at is not None]
        return from_micros(int(min(times))) if times else None

    async def backlog(self, *, limit: int) -> list[Backlog]:
        """Of each host as many are counted as its part of MOST_COUNTED allows, the first due."""
        hosts = await self._seat.read(*(("ZRANGE", shard.hosts, 0, MOST_HOSTS - 1) for shard in self._keys.shards))
        places = [
            (shard, host.decode()) for shard, found in zip(self._keys.shards, hosts, strict=True) for host in found
        ]
        most = max(20, MOST_COUNTED // max(1, len(places)))
        piles: dict[str, _Pile] = {}
        for shard, host in places:
            pile = piles.setdefault(host, _Pile(host, to_micros(self._seat.now())))
            await self._count(shard, host, most, pile)
        counted = [pile for pile in piles.values() if pile.waiting]
        counted.sort(key=lambda pile: pile.oldest)
        return [pile.backlog() for pile in counted[:limit]]

    async def _count(self, shard: Shard, host: str, most: int, pile: _Pile) -> None:
        after = f"[{host}\0"
        while most > 0:
            [entries] = await self._seat.read(
                ("ZRANGEBYLEX", shard.outbox, after, f"({host}\1", "LIMIT", 0, min(_CHUNK, most))
            )
            if not entries:
                return
            named = [entry_of_prediction(entry[len(host.encode()) + 1 :].decode()) for entry in entries]
            rows = await self._seat.read(
                *(
                    ("HMGET", shard.deliveries(id), f"{sequence}:made", f"{sequence}:tries", f"{sequence}:last")
                    for id, sequence in named
                )
            )
            for made, tries, last in rows:
                if made is not None:
                    pile.add(int(made), int(tries or 0), last)
            most -= len(entries)
            after = f"({entries[-1].decode()}"


class _Pile:
    """What waits for one host, as it is counted."""

    def __init__(self, host: str, now: int) -> None:
        self._host = host
        self._since = [now - int(seconds * 1_000_000) for seconds in AGES_SECONDS]
        self._ages = [0, 0, 0, 0]
        self._failing = 0
        self._last: bytes | None = None
        self.waiting = 0
        self.oldest = 0

    def add(self, made: int, tries: int, last: bytes | None) -> None:
        if not self.waiting or made < self.oldest:
            self.oldest, self._last = made, last
        self.waiting += 1
        self._failing += tries > 0
        self._ages[next((index for index, since in enumerate(self._since) if made > since), 3)] += 1

    def backlog(self) -> Backlog:
        first, second, third, rest = self._ages
        last = _LAST.decode(self._last) if self._last else Last()
        return Backlog(
            host=self._host,
            waiting=self.waiting,
            failing=self._failing,
            ages=(first, second, third, rest),
            oldest_at=from_micros(self.oldest),
            last_error=last.error if last.error is not None or last.status is None else f"HTTP {last.status}",
        )


def fields_of(delivery: Delivery) -> list[Argument]:
    """Its part of the hash, for one that comes from elsewhere."""
    name = delivery.sequence
    due_at, made = to_micros(delivery.due_at), to_micros(delivery.created_at)
    found: list[Argument] = [f"{name}:event", delivery.event, f"{name}:body", delivery.body]
    found += (f"{name}:made", made, f"{name}:due", due_at)
    # Of one that was tried it is not known any more; it only spaces the next of its kind by half a second.
    found += (f"{name}:slot", made if delivery.fence else due_at)
    found += (f"{name}:tries", delivery.tries)
    if delivery.fence:
        found += (f"{name}:fence", delivery.fence)
    if delivery.ended is not None:
        found += (f"{name}:ended", delivery.ended)
    if delivery.history or delivery.last_status is not None or delivery.last_error is not None:
        last = Last(delivery.last_status, delivery.last_error, delivery.history)
        found += (f"{name}:last", msgspec.msgpack.encode(last))
    return found


def entry_of(delivery: Delivery, host: str) -> str:
    """As lua/outbox.lua writes it."""
    return f"{host}\0{digits(to_micros(delivery.due_at))}{delivery.prediction}:{delivery.sequence:08d}"


def _fields(sequence: int) -> tuple[str, ...]:
    return tuple(f"{sequence}:{field}" for field in _FIELDS)


def _delivery(id: str, owner: bytes, url: bytes, sequence: int, values: Sequence[Any]) -> Delivery:
    event, body, made, due, tries, ended, last, fence = values
    told = _LAST.decode(last) if last else Last()
    return Delivery(
        id=delivery_id(id, event.decode(), sequence),
        prediction=id,
        owner=owner.decode(),
        url=url.decode(),
        event=event.decode(),
        sequence=sequence,
        body=body,
        created_at=from_micros(int(made)),
        due_at=from_micros(int(due)),
        tries=int(tries or 0),
        is_final=event == WebhookEvent.COMPLETED.value.encode(),
        ended=ended.decode() if ended else None,
        last_status=told.status,
        last_error=told.error,
        fence=int(fence or 0),
        history=told.history,
    )
