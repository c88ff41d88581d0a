"""Several processes on one Redis: what one remembers is never taken for the truth, and each hears of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from gateway.contract.errors import ConfigurationError, LeaseLost, StoreOverloaded
from gateway.contract.prediction import Status
from gateway.store.protocol import Created, Store
from gateway.store.redis import RedisStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore
from tests.contract.store.lines import WilfulLine

pytestmark = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])

HOOK = "https://hooks.example/one"


@pytest.fixture
async def pair(open_store: OpenStore) -> tuple[Store, Store]:
    return await open_store(), await open_store()


# -- what is remembered ------------------------------------------------------------------------------------------------


async def test_a_change_is_made_of_what_stands_and_not_of_what_is_remembered(pair: tuple[Store, Store]) -> None:
    one, other = pair
    prediction = toy.prediction(webhook=HOOK)
    await one.create(prediction)
    await other.apply(prediction.id, toy.said("there"))
    applied = await one.apply(prediction.id, toy.said("there"))  # by what `one` remembers this would be news
    assert (applied.changed, applied.prediction.revision) == (False, 1)
    applied = await one.apply(prediction.id, toy.said("here"))
    assert (applied.changed, applied.prediction.revision) == (True, 2)
    assert [event.data for event in await other.events(prediction.id)] == ["there", "here"]


async def test_what_says_nothing_new_by_memory_alone_may_be_news(pair: tuple[Store, Store]) -> None:
    one, other = pair
    prediction = toy.prediction()
    await one.create(prediction)
    await one.apply(prediction.id, toy.said("a"))
    await other.apply(prediction.id, toy.said("b"))
    applied = await one.apply(prediction.id, toy.said("a"))
    assert (applied.changed, applied.prediction.revision) == (True, 3)


async def test_a_read_shows_what_another_has_committed(pair: tuple[Store, Store]) -> None:
    one, other = pair
    prediction = toy.prediction(webhook=HOOK)
    await one.create(prediction)
    for output in ("a", "b"):
        applied = await other.apply(prediction.id, toy.said(output))
        assert await one.get(prediction.id) == applied.prediction
    applied = await other.apply(prediction.id, toy.succeeded())
    assert await one.get(prediction.id) == applied.prediction
    assert (await one.get(prediction.id)).status is Status.SUCCEEDED


async def test_what_a_body_cannot_be_made_of_is_asked_of_what_stands(pair: tuple[Store, Store]) -> None:
    """`one` remembers a prediction of which no body can be made; by now it has ended, and nothing is made of it."""
    one, other = pair
    prediction = toy.prediction(webhook=HOOK)
    await one.create(prediction)
    await other.apply(prediction.id, toy.succeeded())
    assert (await one.apply(prediction.id, toy.given_up())).changed is False


async def test_changes_of_two_processes_are_each_made_once_and_none_is_lost(pair: tuple[Store, Store]) -> None:
    predictions = [toy.prediction() for _ in range(4)]
    for prediction in predictions:
        await pair[0].create(prediction)
    results = await asyncio.gather(
        *(
            pair[n % 2].apply(prediction.id, toy.said(f"{prediction.id}{n}"))
            for n in range(60)
            for prediction in predictions
        )
    )
    assert all(result.changed for result in results)
    for prediction in predictions:
        assert (await pair[0].get(prediction.id)).revision == 60
        events = await pair[1].events(prediction.id)
        assert [event.sequence for event in events] == list(range(60))
        assert {event.data for event in events} == {f"{prediction.id}{n}" for n in range(60)}


async def test_a_lease_that_went_to_another_process_is_lost_though_the_row_is_remembered(
    pair: tuple[Store, Store], clock: ManualClock
) -> None:
    one, other = pair
    await one.beat("w1", lease_seconds=30)
    prediction = toy.prediction()
    await one.create(prediction, worker="w1")
    clock.advance(31)
    await other.beat("w2", lease_seconds=30)
    [held] = await other.claim_due("w2", limit=10)
    for happening in (toy.begun("t"), toy.NOTHING):
        with pytest.raises(LeaseLost):
            await one.apply(prediction.id, happening, lease=toy.lease("w1"))
    assert held.prediction == await one.get(prediction.id)


async def test_of_many_creates_with_one_key_in_two_processes_exactly_one_creates(pair: tuple[Store, Store]) -> None:
    results = await asyncio.gather(
        *(pair[n % 2].create(toy.prediction(), idempotency_key="k", body_hash="h") for n in range(60))
    )
    assert sorted(result.outcome for result in results) == ["created"] + ["same"] * 59
    assert len({result.prediction.id for result in results}) == 1
    assert len((await pair[0].list_predictions(owner="alice")).predictions) == 1


async def test_of_two_who_take_over_an_orphaned_key_one_creates(open_store: OpenStore) -> None:
    """Its first owner died between the key and the prediction."""
    lines: list[WilfulLine] = []

    def through(line: Any) -> WilfulLine:
        lines.append(WilfulLine(line))
        return lines[-1]

    dead = await open_store(through=through)
    lines[0].unsent["create"] = 1
    orphan = toy.prediction()
    with pytest.raises(Exception, match="not sent"):
        await dead.create(orphan, idempotency_key="k", body_hash="h")
    pair = await open_store(), await open_store()
    results = await asyncio.gather(
        *(pair[n % 2].create(toy.prediction(), idempotency_key="k", body_hash="h") for n in range(10))
    )
    assert sorted(result.outcome for result in results) == ["created"] + ["same"] * 9
    assert {result.prediction.id for result in results} == {orphan.id}


async def test_deliveries_are_claimed_by_one_process_each(pair: tuple[Store, Store]) -> None:
    for _ in range(30):
        prediction = toy.prediction(webhook=HOOK)
        await pair[0].create(prediction)
        await pair[0].apply(prediction.id, toy.succeeded())
    claims = await asyncio.gather(*(pair[n % 2].claim_deliveries(f"s{n}", limit=5, lease_seconds=30) for n in range(8)))
    ids = [delivery.id for claim in claims for delivery in claim]
    # They all looked at the same first ones: who lost the race looked again, and none was left.
    assert len(ids) == len(set(ids)) == 30


# -- what is heard ---------------------------------------------------------------------------------------------------


class Ear:
    def __init__(self) -> None:
        self.heard: list[str | None] = []
        self._news = asyncio.Event()

    def __call__(self, id: str | None) -> None:
        self.heard.append(id)
        self._news.set()

    async def until(self, condition: Callable[[list[str | None]], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self.heard):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def ear(pair: tuple[Store, Store]) -> AsyncIterator[Ear]:
    """Listens at the first of the pair, as worker w1."""
    heard = Ear()
    following = asyncio.create_task(pair[0].follow("w1", heard))
    await heard.until(lambda ids: None in ids)  # from now on nothing is missed
    yield heard
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_the_holder_hears_of_what_another_changed_and_not_of_its_own(pair: tuple[Store, Store], ear: Ear) -> None:
    one, other = pair
    mine, foreign = toy.prediction(), toy.prediction()
    await one.create(mine, worker="w1")
    await one.create(foreign, worker="w2")
    await one.apply(mine.id, toy.said("by a callback here"))
    await one.apply(mine.id, toy.said("by the run"), lease=toy.lease("w1"))
    await other.apply(foreign.id, toy.said("x"))
    await other.apply(mine.id, toy.said("by a callback there"))
    await ear.until(lambda ids: mine.id in ids)
    assert ear.heard.count(mine.id) == 1
    assert foreign.id not in ear.heard


async def test_what_is_watched_is_heard_of_once_it_holds_and_at_each_change(
    pair: tuple[Store, Store], ear: Ear
) -> None:
    one, other = pair
    prediction = toy.prediction()
    await other.create(prediction, worker="w2")
    one.watch(prediction.id)
    await ear.until(lambda ids: ids.count(prediction.id) == 1)
    await other.apply(prediction.id, toy.said("a"), lease=toy.lease("w2"))
    await ear.until(lambda ids: ids.count(prediction.id) == 2)
    one.watch(prediction.id)  # a second watcher is told that it holds, too
    await ear.until(lambda ids: ids.count(prediction.id) == 3)
    one.unwatch(prediction.id)
    await other.apply(prediction.id, toy.said("b"), lease=toy.lease("w2"))
    await ear.until(lambda ids: ids.count(prediction.id) == 4)
    one.unwatch(prediction.id)
    one.unwatch(prediction.id)
    last = toy.prediction()
    await other.create(last)
    await other.apply(prediction.id, toy.said("c"), lease=toy.lease("w2"))
    one.watch(last.id)
    await other.apply(last.id, toy.said("d"))
    await ear.until(lambda ids: ids.count(last.id) >= 1)
    assert ear.heard.count(prediction.id) == 4


async def test_nothing_is_heard_of_what_changed_nothing(pair: tuple[Store, Store], ear: Ear) -> None:
    one, other = pair
    prediction = toy.prediction()
    await one.create(prediction, worker="w1")
    await other.apply(prediction.id, toy.NOTHING)
    await other.apply(prediction.id, toy.said("news"))
    await ear.until(lambda ids: prediction.id in ids)
    assert ear.heard.count(prediction.id) == 1


async def test_notes_of_living_replicas_are_exchanged(pair: tuple[Store, Store], clock: ManualClock) -> None:
    one, other = pair
    assert await one.exchange("signals", "w1", b"first", lifetime_seconds=5) == []
    assert await one.exchange("signals", "w1", b"\0one", lifetime_seconds=5) == []
    assert await other.exchange("signals", "w2", b"two", lifetime_seconds=5) == [b"\0one"]
    assert await other.exchange("breakers", "w2", b"two", lifetime_seconds=5) == []
    assert await one.exchange("signals", "w1", b"one", lifetime_seconds=30) == [b"two"]
    clock.advance(5)
    assert await other.exchange("signals", "w2", b"two", lifetime_seconds=5) == [b"one"]
    assert await one.exchange("signals", "w1", b"one", lifetime_seconds=5) == [b"two"]
    clock.advance(60)
    assert await one.exchange("signals", "w1", b"one", lifetime_seconds=5) == []
    with pytest.raises(StoreOverloaded):
        await one.exchange("signals", "w1", bytes(5_000_000), lifetime_seconds=5)


# -- itself -----------------------------------------------------------------------------------------------------------


async def test_the_number_of_shards_is_whoever_opened_it_first(open_store: OpenStore) -> None:
    first = await open_store(shards=5)
    predictions = [toy.prediction(created_at=toy.START + timedelta(seconds=n)) for n in range(20)]
    for prediction in predictions:
        await first.create(prediction)
    again = await open_store(shards=64)
    assert isinstance(again, RedisStore)
    assert [await again.get(prediction.id) for prediction in predictions] == predictions
    page = await again.list_predictions(owner="alice", limit=7)
    assert [p.id for p in page.predictions] == [p.id for p in predictions[:12:-1]]


async def test_what_a_newer_version_keeps_there_is_refused(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_store()
    monkeypatch.setattr("gateway.store.redis.FORMAT", 0)
    with pytest.raises(ConfigurationError, match="newer Turnout"):
        await open_store()


@pytest.mark.parametrize("prefix", ["", "a b", "a{b", "é", "x*"])
async def test_a_prefix_that_would_break_the_keys_is_refused(open_store: OpenStore, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        await open_store(prefix=prefix)


async def test_more_than_redis_is_given_at_once_is_refused_and_leaves_no_trace(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store._redis_change.MOST_BYTES", 10_000)
    store = await open_store()
    large, small = toy.prediction(input={"x": "y" * 20_000}), toy.prediction()
    with pytest.raises(StoreOverloaded, match="bytes"):
        await store.create(large)
    assert await store.get(large.id) is None
    assert (await store.create(small)).outcome is Created.CREATED
    with pytest.raises(StoreOverloaded, match="bytes"):
        await store.apply(small.id, toy.said("y" * 20_000))
    assert await store.get(small.id) == small
    assert (await store.apply(small.id, toy.said("y"))).changed
