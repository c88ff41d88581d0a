"""Where the suite's stores come from: a further store joins with one more parameter here, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.store.protocol import Store
from gateway.store.sqlite import SqliteStore
from tests.contract.store import toy

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
def clock() -> toy.ManualClock:
    return toy.ManualClock()


@pytest.fixture(params=["sqlite"])
async def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: toy.ManualClock
) -> AsyncIterator[OpenStore]:
    """Opens the store of this test; after `aclose`, again, with what was kept in it."""
    opened: list[Store] = []

    async def open_(**options: Any) -> Store:
        options = {"reduce": toy.reduce, "snapshot": toy.snapshot, "clock": clock, "max_queue": 5_000} | options
        store: Store = await {"sqlite": SqliteStore}[request.param].open(tmp_path / "store.db", **options)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        await store.aclose()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()
