"""What is spread over shards and looked at bit by bit in Redis is found whole, each once and in order."""

from __future__ import annotations

import pytest

from gateway.contract.prediction import Status
from gateway.store import _redis_delivery, _redis_search
from gateway.store.protocol import Search
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore
from tests.contract.store.test_search import made_at, walked

pytestmark = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])


@pytest.mark.parametrize("shards", [1, 2, 7])
async def test_a_search_looks_at_so_many_and_the_next_goes_on_behind_them(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    store = await open_store(shards=shards)
    monkeypatch.setattr(_redis_search, "_CHUNK", 3)
    monkeypatch.setattr(_redis_search, "_LEAST_CHUNK", 2)
    monkeypatch.setattr(_redis_search, "MOST_LOOKED_AT", 8)
    failed = (0, 3, 4, 21, 40, 41)
    made = [made_at(n // 2, status=Status.FAILED if n in failed else Status.SUCCEEDED) for n in range(60)]
    for prediction in made:
        await store.create(prediction)
    newest_first = [p.id for p in sorted(made, key=lambda p: (p.created_at, p.id), reverse=True)]
    wanted = {made[n].id for n in failed}
    for limit in (1, 2, 5, 100):
        pages = await walked(store, Search(statuses=frozenset({"failed"})), limit=limit)
        assert [id for page in pages for id in page] == [id for id in newest_first if id in wanted]
        assert all(len(page) <= limit for page in pages)
        assert len(pages) > 2  # bounded: no page looked at all of them
        everybody = await walked(store, Search(), limit=limit)
        assert [id for page in everybody for id in page] == newest_first


async def test_where_too_many_ids_begin_alike_they_are_walked_to(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    monkeypatch.setattr(_redis_search, "MOST_SOUGHT", 0)
    made = [made_at(n, id=f"{'ab' if n % 3 else 'zz'}{n:024d}") for n in range(20)]
    for prediction in made:
        await store.create(prediction)
    pages = await walked(store, Search(prefix="zz"), limit=3)
    assert [id for page in pages for id in page] == [p.id for p in made[::-1] if p.id.startswith("zz")]


async def test_a_request_of_megabytes_is_not_read_for_a_list(open_store: OpenStore) -> None:
    store = await open_store()
    prediction = made_at(1, input={"image": "x" * (2 * _redis_search.MOST_REQUEST_BYTES)}, output="done")
    await store.create(prediction)
    [found] = (await store.search_predictions(Search())).predictions
    assert (found.request.model, found.request.input, found.output) == ("acme/upscale", {}, "done")


async def test_a_backlog_is_counted_bit_by_bit_and_only_so_far(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    monkeypatch.setattr(_redis_delivery, "_CHUNK", 3)
    for n in range(24):
        prediction = toy.prediction(webhook=f"https://host{n % 2}.example/")
        await store.create(prediction)
        await store.apply(prediction.id, toy.succeeded())
    assert sorted((one.host, one.waiting) for one in await store.backlog()) == [
        ("host0.example", 12),
        ("host1.example", 12),
    ]


async def test_a_prediction_with_many_rows_is_read_whole(open_store: OpenStore, clock: ManualClock) -> None:
    store = await open_store()
    prediction = toy.prediction(webhook="https://hooks.example/")
    await store.create(prediction)
    for n in range(150):
        await store.apply(prediction.id, toy.said(str(n)))
        [claimed] = await store.claim_deliveries("s", limit=9, lease_seconds=9)
        await store.finish_delivery(claimed, ended="delivered", status=200)
        clock.advance(1)
    assert [delivery.sequence for delivery in await store.deliveries(prediction.id)] == list(range(150))
    assert len(await store.events(prediction.id, limit=1_000)) == 150
