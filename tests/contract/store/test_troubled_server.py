"""A Redis that is full, frozen or killed: nothing is written by halves or late, and no restart of ours is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.clock import SystemClock
from gateway.contract.errors import StoreError, StoreUnavailable
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Created, Whole
from gateway.store.redis import RedisStore
from tests.contract.store import toy
from tests.redis.line import line_to
from tests.redis.server import RedisServer

HOOK = "https://hooks.example/one"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    line = line_to(server.url, timeout_seconds=0.5)
    await line.open()
    store = await RedisStore.open(line, reduce=toy.reduce, snapshot=toy.snapshot)
    yield store
    await store.aclose()


async def _answers(store: RedisStore, verb: Any) -> Any:
    """What it says as soon as the server is there again."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await verb()
            except StoreError:
                await asyncio.sleep(0.02)


async def test_a_full_server_refuses_whole_writes_and_goes_on_when_there_is_room(
    server: RedisServer, store: RedisStore
) -> None:
    with server.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 600_000)
        accepted: list[Prediction] = []
        refused: list[Prediction] = []
        while len(refused) < 20:
            prediction = toy.prediction(webhook=HOOK, input={"x": "y" * 3_000})
            try:
                await store.create(prediction, worker="w")
                accepted.append(prediction)
                await store.apply(prediction.id, toy.begun(prediction.id))
                await store.apply(prediction.id, toy.said("half"))
                await store.apply(prediction.id, toy.succeeded())
            except StoreUnavailable:
                refused.append(prediction)
        client.config_set("maxmemory", 500_000)
        with pytest.raises(StoreUnavailable, match="memory"):
            await store.check()
        client.config_set("maxmemory", 0)
    await store.check()
    for whole in [record async for record in store.dump() if isinstance(record, Whole)]:
        kept = whole.prediction
        assert kept.id in {prediction.id for prediction in accepted}
        assert len(whole.events) == kept.events
        assert len(whole.deliveries) == kept.deliveries
        assert len(whole.ledger) == len(kept.attempts)
        assert whole.is_open is not kept.is_terminal
    listed = (await store.list_predictions(owner="alice", limit=1_000)).predictions
    assert {prediction.id for prediction in listed} == {prediction.id for prediction in accepted}
    for prediction in refused:
        await store.create(prediction)
        await store.apply(prediction.id, toy.succeeded())


async def test_what_a_frozen_server_is_asked_ends_in_time_and_is_not_done_later(
    server: RedisServer, store: RedisStore
) -> None:
    prediction, late = toy.prediction(), toy.prediction()
    await store.create(prediction, worker="w")
    clock = SystemClock()
    server.freeze()
    try:
        begun_at = clock.monotonic()
        outcomes = await asyncio.gather(
            store.create(late),
            store.apply(prediction.id, toy.said("late"), lease=toy.lease("w")),
            store.get(prediction.id),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
        assert clock.monotonic() - begun_at < 5.0
    finally:
        server.thaw()
    assert await _answers(store, lambda: store.get(late.id)) is None
    assert await store.get(prediction.id) == prediction
    # What was frozen is read by now, and refused itself.
    assert (await store.create(late)).outcome is Created.CREATED
    assert (await store.apply(prediction.id, toy.said("now"), lease=toy.lease("w"))).prediction.revision == 1


async def test_a_server_that_was_killed_is_found_again_with_all_it_took(server: RedisServer, store: RedisStore) -> None:
    accepted: list[Prediction] = []
    for _ in range(3):
        for _ in range(30):
            prediction = toy.prediction()
            await store.create(prediction, worker="w")
            accepted.append((await store.apply(prediction.id, toy.begun(prediction.id))).prediction)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.apply(accepted[0].id, toy.said("x"))
        server.start()
        await _answers(store, store.check)
    assert [await store.get(prediction.id) for prediction in accepted] == accepted
    await store.beat("w2", lease_seconds=30)
    held = await store.claim_due("w2", limit=1_000)
    assert sorted(one.prediction.id for one in held) == sorted(prediction.id for prediction in accepted)
