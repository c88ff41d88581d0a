"""Lists in Redis: an owner's predictions and files, everybody's by what they are, and what is swept by age. Merged here
from all shards; none of them is looked through whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from gateway.contract.errors import PredictionUnreadable
from gateway.contract.prediction import Prediction
from gateway.store import _redis_row
from gateway.store._encoding import (
    CONTRACT_VERSION,
    FILE,
    decode_brief,
    decode_prediction,
    from_micros,
    to_micros,
)
from gateway.store._position import Pages, Position, page_steps
from gateway.store._redis_key import Shard, digits
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load
from gateway.store.protocol import FileRow, Page, Search

WALK = load("walk", "wanted", is_reading=True)
SEEK = load("seek", "wanted", is_reading=True)
BRIEF = load("brief", is_reading=True)

MOST_LOOKED_AT = 20_000  # by one search, on all shards together
MOST_SOUGHT = 1_000  # of one shard by the beginning of their ids; where there are more, they are walked to
_CHUNK = 500  # of one run of a script on each shard, where there is one; where there are many, at least
_LEAST_CHUNK = 20
MOST_REQUEST_BYTES = 262_144
_ENDLESS = 2**63 - 1

Entry = str  # sixteen digits and the id: sorted by its bytes it is sorted by time


class Lists:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys

    # -- an owner's ----------------------------------------------------------------------------------------------

    async def page(
        self,
        *,
        owner: str,
        position: str | None,
        limit: int,
        created_after: datetime | None,
        created_before: datetime | None,
    ) -> Page:
        since = digits(to_micros(created_after) if created_after is not None else -_ENDLESS)
        until = digits(to_micros(created_before)) if created_before is not None else "~"
        entries, older, newer = await self._entries(lambda shard: shard.owned(owner), position, limit, since, until)
        rows = await self._seat.read(
            *(("HMGET", self._keys.shard(entry[16:]).prediction(entry[16:]), "request", "state", "deliveries")
              for entry in entries)
        )  # fmt: skip
        found = [one for one in map(_readable, rows) if one is not None]
        return Page(predictions=tuple(found), next=older, previous=newer)

    async def files(
        self, *, owner: str, position: str | None, limit: int
    ) -> tuple[list[FileRow], str | None, str | None]:
        entries, older, newer = await self._entries(lambda shard: shard.owned_files(owner), position, limit, "", "~")
        rows = await self._seat.read(
            *(("HGET", self._keys.shard(entry[16:]).file(entry[16:]), "body") for entry in entries)
        )
        return [FILE.decode(row) for row in rows if row is not None], older, newer

    async def _entries(
        self, key: Callable[[Shard], str], position: str | None, limit: int, since: str, until: str
    ) -> Pages[Entry]:
        """`since` and `until` are exclusive: no id is empty, so that what is of `since` itself is in."""
        steps = page_steps(_when, position, limit)
        try:
            at, most = next(steps)
            while True:
                at, most = steps.send(await self._beside(key, at, most, since, until))
        except StopIteration as end:
            pages: Pages[Entry] = end.value
            return pages

    async def _beside(
        self, key: Callable[[Shard], str], at: Position | None, most: int, since: str, until: str
    ) -> list[Entry]:
        low, high, is_back = since, until, at is not None and at.is_back
        if at is not None:
            entry = digits(at.at) + at.id
            low, high = (max(low, entry), high) if is_back else (low, min(high, entry))
        bounds = (f"({low}", f"({high}") if is_back else (f"({high}", f"({low}")
        command = "ZRANGEBYLEX" if is_back else "ZREVRANGEBYLEX"
        found = await self._seat.read(
            *((command, key(shard), *bounds, "LIMIT", 0, most) for shard in self._keys.shards)
        )
        entries = sorted((entry.decode() for some in found for entry in some), reverse=not is_back)
        return entries[:most]

    # -- everybody's ---------------------------------------------------------------------------------------------

    async def search(self, wanted: Search, *, position: str | None, limit: int) -> Page:
        at = Position.parse(position) if position is not None else None
        before = None if at is None else digits(at.at) + at.id
        conditions = _conditions(wanted)
        since = digits(to_micros(wanted.created_after)) if wanted.created_after is not None else ""
        found: list[tuple[Entry, bytes]] | None = None
        rest: Entry | None = None
        if wanted.prefix is not None:
            found = await self._seek(conditions, before, since)
        if found is None:
            found, rest = await self._walk(conditions, before, since, limit + 1)
        shown, last = found[:limit], rest
        if len(found) > limit:
            last = shown[-1][0]
        position_after = None if last is None else str(Position(at=int(last[:16]), id=last[16:]))
        return Page(predictions=tuple(await self._briefs(shown)), next=position_after)

    async def _seek(
        self, conditions: list[Argument], before: Entry | None, since: str
    ) -> list[tuple[Entry, bytes]] | None:
        """All, newest first; None if there are too many of them."""
        answers = await self._seat.run_all(
            [self._seat.call(SEEK, [shard.ids, shard.searched], [*conditions, MOST_SOUGHT]) for shard in self._shards]
        )
        if not all(answer[0] for answer in answers):
            return None
        found = [
            (entry, model)
            for answer in answers
            for entry, model in _pairs(answer[1:])
            if entry >= since and (before is None or entry < before)
        ]
        found.sort(reverse=True)
        return found

    async def _walk(
        self, conditions: list[Argument], before: Entry | None, since: str, limit: int
    ) -> tuple[list[tuple[Entry, bytes]], Entry | None]:
        """Newest first; and the last that was looked at, if there are more behind it."""
        # What a shard has found is certain once every other one has been looked through as far.
        reached: dict[Shard, Entry | None] = dict.fromkeys(self._shards, before)
        found: list[tuple[Entry, bytes]] = []
        chunk = max(_LEAST_CHUNK, _CHUNK // len(self._shards))
        left = MOST_LOOKED_AT
        while reached:
            known = [entry for entry in reached.values() if entry is not None]
            frontier = max(known) if len(known) == len(reached) else None
            certain = sum(1 for entry, _ in found if frontier is not None and entry >= frontier)
            if certain >= limit or (left <= 0 and frontier is not None):
                found = [one for one in found if one[0] >= frontier]  # type: ignore[operator]
                found.sort(reverse=True)
                return found, frontier
            behind = [shard for shard, entry in reached.items() if entry is None or entry == frontier]
            left -= chunk * len(behind)
            found += await self._step(behind, reached, conditions, since, chunk, limit)
        found.sort(reverse=True)
        return found, None

    async def _step(
        self,
        shards: Sequence[Shard],
        reached: dict[Shard, Entry | None],
        conditions: list[Argument],
        since: str,
        chunk: int,
        limit: int,
    ) -> list[tuple[Entry, bytes]]:
        calls = []
        for shard in shards:
            at = reached[shard]
            upper, lower = "+" if at is None else f"({at}", f"[{since}" if since else "-"
            calls.append(
                self._seat.call(WALK, [shard.listed, shard.searched], [*conditions, upper, lower, chunk, limit])
            )
        found: list[tuple[Entry, bytes]] = []
        for shard, answer in zip(shards, await self._seat.run_all(calls), strict=True):
            last, is_end = answer[:2]
            found += _pairs(answer[2:])
            if is_end:
                del reached[shard]
            else:
                reached[shard] = last.decode()
        return found

    @property
    def _shards(self) -> tuple[Shard, ...]:
        return self._keys.shards

    async def _briefs(self, found: Sequence[tuple[Entry, bytes]]) -> list[Prediction]:
        models = {entry[16:]: model.decode() for entry, model in found}
        by_shard = self._keys.by_shard(models)
        answers = await self._seat.run_all(
            [
                self._seat.call(BRIEF, [shard.prediction(id) for id in ids], [MOST_REQUEST_BYTES])
                for shard, ids in by_shard.items()
            ]
        )
        briefs: dict[str, Prediction] = {}
        for ids, rows in zip(by_shard.values(), answers, strict=True):
            for id, (request, state, deliveries) in zip(ids, rows, strict=True):
                try:
                    brief = decode_brief(models[id], request, state)
                except PredictionUnreadable:
                    continue  # a page is not refused for one that this version cannot read
                briefs[id] = _redis_row.with_deliveries(brief, deliveries)
        return [briefs[id] for id in models if id in briefs]

    # -- by age and by money ---------------------------------------------------------------------------------------

    async def maybes(self, *, created_after: datetime | None, limit: int) -> list[str]:
        low = f"[{digits(to_micros(created_after))}" if created_after is not None else "-"
        found = await self._seat.read(
            *(("ZREVRANGEBYLEX", shard.maybes, "+", low, "LIMIT", 0, limit) for shard in self._shards)
        )
        entries = sorted((entry.decode() for some in found for entry in some), reverse=True)
        return [entry[16:] for entry in entries[:limit]]

    async def aged(self, *, before: datetime, limit: int) -> list[str]:
        found: list[Entry] = []
        for shard in self._shards:
            found += await self._aged_of(shard, digits(to_micros(before)), limit)
        found.sort()
        return [entry[16:] for entry in found[:limit]]

    async def _aged_of(self, shard: Shard, before: str, limit: int) -> list[Entry]:
        """What a newer version wrote is for that one to erase: who knows where it keeps the data."""
        own: list[Entry] = []
        after = "-"
        while len(own) < limit:
            [entries] = await self._seat.read(("ZRANGEBYLEX", shard.aging, after, f"({before}", "LIMIT", 0, limit))
            for entry in entries:
                name, _, version = entry.decode().rpartition(":")
                if int(version) <= CONTRACT_VERSION:
                    own.append(name)
            if len(entries) < limit:
                break
            after = f"({entries[-1].decode()}"
            await asyncio.sleep(0)
        return own


def _when(entry: Entry) -> tuple[datetime, str]:
    return from_micros(int(entry[:16])), entry[16:]


def _pairs(flat: Sequence[bytes]) -> list[tuple[Entry, bytes]]:
    return [(entry.decode(), model) for entry, model in zip(flat[::2], flat[1::2], strict=True)]


def _conditions(wanted: Search) -> list[Argument]:
    """In the order of lua/wanted.lua."""
    return [
        f" {' '.join(sorted(wanted.statuses))} " if wanted.statuses else "",
        wanted.model or "",
        wanted.owner or "",
        wanted.provider or "",
        wanted.prefix or "",
        "1" if wanted.is_rescued else "0",
    ]


def _readable(values: Sequence[Any]) -> Prediction | None:
    """A list must not fail for one that this version cannot read: it is left out."""
    request, state, deliveries = values
    if state is None:
        return None
    try:
        return _redis_row.with_deliveries(decode_prediction(request, state), deliveries)
    except PredictionUnreadable:
        return None
