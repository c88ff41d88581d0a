"""Where the suite's stores come from: a further store joins with one more parameter here, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.store._redis_wire import Line
from gateway.store.protocol import Store
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.redis.cluster import RedisCluster
from tests.redis.line import line_to
from tests.redis.server import RedisServer

OpenStore = Callable[..., Awaitable[Store]]
_numbers = itertools.count()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(toy.START)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "redis", "redis_cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_store(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[OpenStore]:
    """
    Opens the store of this test; after `aclose`, again, with what was kept in it; Redis' also beside another one.

    `through` puts something of the test's own round the line.
    """
    opened: list[Store] = []
    prefix = f"test{next(_numbers)}"  # the servers are everybody's

    async def open_(**options: Any) -> Store:
        options = {"reduce": toy.reduce, "snapshot": toy.snapshot, "clock": clock, "max_queue": 5_000} | options
        through: Callable[[Line], Line] = options.pop("through", lambda line: line)
        store: Store
        if kind == "sqlite":
            store = await SqliteStore.open(tmp_path / "store.db", **options)
        else:
            url = request.getfixturevalue("redis_server" if kind == "redis" else kind).url
            line = line_to(url, max_queue=10_000, timeout_seconds=5.0)
            await line.open()
            store = await RedisStore.open(through(line), **({"prefix": prefix} | options))
        opened.append(store)
        return store

    yield open_
    for store in opened:
        await store.aclose()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()
