"""Several engines on one SQLite file, and the hints between them: what a shared store does, in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, cast

from gateway.contract.clock import SeededIds
from gateway.store.protocol import Heard
from gateway.store.sqlite import SqliteStore
from gateway.testing import VirtualLoop
from tests.unit.engine.stage import Stage


class Hub:
    """Who holds what, who watches what, and the notes. `is_silent`: hints are lost, as pub/sub may lose them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.seats: list[Seat] = []
        self.holders: dict[str, str] = {}
        self.is_silent = False
        self.hints = 0
        self.notes: dict[tuple[str, str], bytes] = {}

    def tell(self, id: str, by: Seat) -> None:
        for seat in self.seats:
            if seat is by or self.is_silent or seat.heard is None:
                continue
            if self.holders.get(id) == seat.worker or seat.watched[id]:
                self.hints += 1
                asyncio.get_running_loop().call_soon(seat.heard, id)


class Seat:
    """One replica's way to the store."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.worker = ""
        self.heard: Heard | None = None
        self.watched: Counter[str] = Counter()
        self.gets = 0
        hub.seats.append(self)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.hub.store, verb)

    async def create(self, prediction: Any, **how: Any) -> Any:
        result = await self.hub.store.create(prediction, **how)
        if result.lease is not None:
            self.hub.holders[prediction.id] = result.lease.worker
        return result

    async def apply(self, id: str, happening: Any, **how: Any) -> Any:
        applied = await self.hub.store.apply(id, happening, **how)
        if applied.changed:
            self.hub.tell(id, self)
        return applied

    async def get(self, id: str, **how: Any) -> Any:
        self.gets += 1
        return await self.hub.store.get(id, **how)

    async def claim_due(self, worker: str, *, limit: int) -> Any:
        claimed = await self.hub.store.claim_due(worker, limit=limit)
        for held in claimed:
            self.hub.holders[held.prediction.id] = worker
        return claimed

    async def follow(self, worker: str, heard: Heard) -> None:
        self.worker, self.heard = worker, heard
        await asyncio.Event().wait()

    def watch(self, id: str) -> None:
        self.watched[id] += 1
        if self.heard is not None and not self.hub.is_silent:
            asyncio.get_running_loop().call_soon(self.heard, id)

    def unwatch(self, id: str) -> None:
        self.watched[id] -= 1
        assert self.watched[id] >= 0, "it was not watched"

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        self.hub.notes[topic, worker] = body
        return [note for (on, by), note in self.hub.notes.items() if on == topic and by != worker]


class Replica(Stage):
    """One of several engines; what `first` was told of providers holds for all, and its clock is everybody's."""

    def __init__(self, folder: Path, *, first: Replica | None = None, name: str = "a", **how: Any) -> None:
        super().__init__(folder, **how)
        self.name = name
        self.hub: Hub | None = None
        self._first = first
        if first is not None:
            self.limits, self.providers = first.limits, first.providers
            self.prices, self.holds = first.prices, first.holds
            self.fallbacks, self.breaches, self._ended = first.fallbacks, first.breaches, first._ended
            self._ids = SeededIds(hash(name) & 0xFFFF)

    @property
    def seat(self) -> Seat:
        return cast(Seat, self.store.store)

    async def _opened(self) -> Any:
        if self._first is None and self.hub is None:
            self.hub = Hub(await super()._opened())
        elif self._first is not None:
            self.hub = self._first.hub
        assert self.hub is not None
        return Seat(self.hub)

    async def _shut(self) -> None:
        """The file is closed with the last of them."""
        assert self.hub is not None
        if self.seat in self.hub.seats:
            self.hub.seats.remove(self.seat)
        if not self.hub.seats:
            await cast(VirtualLoop, asyncio.get_running_loop()).outside(self.hub.store.aclose())

    async def __aexit__(self, *error: object) -> None:
        if self._first is not None:
            if self.engine is not None:
                await self.close()
            return
        await super().__aexit__(*error)
