"""What is due in Redis' outbox, lanes left out. It claims nothing: by then somebody else may have been faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from gateway.store._delivery_walk import PIECE, Lanes, Place
from gateway.store._encoding import to_micros
from gateway.store._redis_key import Shard, host_name
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load

LOOK_DELIVERIES = load("look_deliveries", "outbox", is_reading=True)
OWNERS = load("owners", is_reading=True)

_LEAST_PIECE = 50  # of one shard
_MOST_PLACES = 1_000


class Due(NamedTuple):
    """An entry of the outbox in order: `tail` is all of it but the host."""

    tail: str
    host: str
    shard: Shard


class _Walk:
    """Through what is due of one host in one shard, since some of its lanes are left out."""

    def __init__(self, shard: Shard, host: str, lanes: Lanes, place: Place[str]) -> None:
        self.shard = shard
        self.host = host
        self.place = place
        self.tails: list[str] = []
        self.is_through = True
        self._lanes = lanes
        self._is_out: list[bool] = []

    def rows(self) -> list[str]:
        return [self.shard.deliveries(entry_of_prediction(tail)[0]) for tail in self.tails]

    def hear(self, owners: Iterable[bytes | None]) -> None:
        self._is_out = [owner is not None and (owner.decode(), self.host) in self._lanes for owner in owners]

    def free(self) -> list[Due]:
        return [
            Due(tail, self.host, self.shard)
            for tail, is_out in zip(self.tails, self._is_out, strict=True)
            if not is_out
        ]

    def went(self, chosen: set[str], now: int) -> Place[str] | None:
        """Behind all that is left out or is being claimed."""
        at, passed = self.place.at, self.place.passed
        for tail, is_out in zip(self.tails, self._is_out, strict=True):
            if not is_out and tail not in chosen:
                break
            at, passed = tail, passed + is_out
        return msgspec.structs.replace(self.place, at=at, passed=passed).kept(now, is_through=self.is_through)


class Looks:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._places: dict[tuple[int, str], Place[str]] = {}  # by shard and host

    def forget(self) -> None:
        """Something may lie before where they have come to."""
        self._places.clear()

    async def look(self, limit: int, exclude_lanes: Lanes) -> tuple[list[Due], bool]:
        """The first due, and whether everything due has been looked at."""
        now = to_micros(self._seat.now())
        walks = self._walks(exclude_lanes, now)
        due = await self._look(limit, walks)
        walked = [(shard, [walk for walk in found if walk.tails]) for shard, found in walks.items()]
        walked = [(shard, found) for shard, found in walked if found]
        calls = [self._seat.call(OWNERS, [row for walk in found for row in walk.rows()]) for _, found in walked]
        for (_, found), owners in zip(walked, await self._seat.run_all(calls) if calls else [], strict=True):
            told = iter(owners)
            for walk in found:
                walk.hear([next(told) for _ in walk.tails])
                due += walk.free()
        due.sort(key=lambda one: one.tail)
        chosen = {one.tail for one in due[:limit]}
        if len(self._places) > _MOST_PLACES:
            self._places.clear()
        for _, found in walked:
            for walk in found:
                self._keep(walk, walk.went(chosen, now))
        return due[:limit], all(walk.is_through for found in walks.values() for walk in found)

    async def _look(self, limit: int, walks: dict[Shard, list[_Walk]]) -> list[Due]:
        """Of hosts of which nothing is left out; of the others the walks have the next piece now."""
        most = max(_LEAST_PIECE, PIECE // len(walks))
        calls = []
        for shard, found in walks.items():
            args: list[Argument] = [limit, most, len(found)]
            for walk in found:
                args += (walk.host, walk.place.at)
            calls.append(self._seat.call(LOOK_DELIVERIES, [shard.outbox, shard.hosts], args))
        due: list[Due] = []
        for (shard, found), (free, pieces) in zip(walks.items(), await self._seat.run_all(calls), strict=True):
            due += [Due(tail.decode(), host.decode(), shard) for host, tail in zip(free[::2], free[1::2], strict=True)]
            left = most
            for walk, entries in zip(found, pieces, strict=True):
                walk.tails = [entry[len(walk.host.encode()) + 1 :].decode() for entry in entries]
                walk.is_through = len(entries) < left
                left -= len(entries)
        return due

    def _walks(self, exclude_lanes: Lanes, now: int) -> dict[Shard, list[_Walk]]:
        lanes: dict[str, set[tuple[str, str]]] = {}
        for owner, host in exclude_lanes:
            name = host_name(host)
            lanes.setdefault(name, set()).add((owner, name))
        by_host = {host: frozenset(found) for host, found in sorted(lanes.items())}
        return {
            shard: [_Walk(shard, host, found, self._place(shard, host, found, now)) for host, found in by_host.items()]
            for shard in self._seat.keys.shards
        }

    def _place(self, shard: Shard, host: str, lanes: Lanes, now: int) -> Place[str]:
        kept = self._places.get((shard.index, host))
        if kept is not None and kept.is_good_for(lanes):
            return kept
        return Place(at="", excluded=lanes, passed=0, begun=now)

    def _keep(self, walk: _Walk, place: Place[str] | None) -> None:
        key = walk.shard.index, walk.host
        if place is None:
            self._places.pop(key, None)
        else:
            self._places[key] = place


def by_shard(due: Sequence[Due]) -> dict[Shard, list[Due]]:
    found: dict[Shard, list[Due]] = {}
    for one in due:
        found.setdefault(one.shard, []).append(one)
    return found


def entry_of_prediction(tail: str) -> tuple[str, int]:
    """Prediction and sequence of an entry without its host."""
    return tail[16:-9], int(tail[-8:])
