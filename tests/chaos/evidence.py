"""What a gateway left behind, read when it is dead: the rows of its store, by the store's own verbs. Judges nothing."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.config.load import Loaded, load
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import SystemClock
from gateway.contract.prediction import Prediction
from gateway.engine.lifecycle import reduce
from gateway.store.opening import StorePlace, open_store
from gateway.store.protocol import Delivery, LedgerRow, Search, Store, StoredEvent

_AT_ONCE = 32


@dataclass(frozen=True)
class Kept:
    """Everything the store has of one prediction."""

    prediction: Prediction
    ledger: list[LedgerRow]
    deliveries: list[Delivery]
    events: list[StoredEvent]


def snapshot(prediction: Prediction) -> bytes:
    return prediction_bytes(prediction, public_url="http://127.0.0.1:1", has_page=False)


@asynccontextmanager
async def opened(folder: Path, environ: dict[str, str] | None = None) -> AsyncIterator[Store]:
    """The store that the gateway of this folder has. SQLite: nobody else may have it open."""
    loaded = await asyncio.to_thread(_loaded, folder, environ or {})
    place = StorePlace(loaded.store, clock=SystemClock(), draw=random.random)
    store = await open_store(place, reduce=reduce, snapshot=snapshot)
    try:
        yield store
    finally:
        await store.aclose()


def _loaded(folder: Path, environ: dict[str, str]) -> Loaded:
    return load(folder / "config.toml", environ={**os.environ, **environ})


async def read_all(store: Store) -> dict[str, Kept]:
    ids: list[str] = []
    position: str | None = None
    while True:
        page = await store.search_predictions(Search(), position=position, limit=100)
        ids += [found.id for found in page.predictions]
        position = page.next
        if position is None:
            break
    slots = asyncio.Semaphore(_AT_ONCE)

    async def read(id: str) -> Kept:
        async with slots:
            prediction = await store.get(id)
            assert prediction is not None, f"{id} is listed and cannot be read"
            events: list[StoredEvent] = []
            while more := await store.events(id, after=events[-1].sequence if events else -1):
                events += more
            return Kept(prediction, await store.ledger(id), await store.deliveries(id), events)

    kept = await asyncio.gather(*(read(id) for id in ids))
    return {one.prediction.id: one for one in kept}
