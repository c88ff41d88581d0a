"""What is forgotten when its time is over, and what stays."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from gateway.contract.fact import DataRemoved, Happening
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Created, FileRow, Redelivery, Reduction, Store
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore

LATER = toy.START + timedelta(days=400)
HOOK = "https://hooks.example/"


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    if not isinstance(happening, DataRemoved):
        return toy.reduce(prediction, happening, now)
    if prediction.data_removed:
        return Reduction(prediction=prediction, is_open=False)
    request = replace(prediction.request, input={})
    return Reduction(prediction=replace(prediction, request=request, output=None, data_removed=True), is_open=False)


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store(reduce=reduce)


async def ended(store: Store, *, key: str | None = None, **changes: object) -> Prediction:
    prediction = toy.prediction(**changes)
    await store.create(prediction, idempotency_key=key, body_hash="h")
    await store.apply(prediction.id, toy.begun(prediction.id))
    await store.apply(prediction.id, toy.said("half"))
    return (await store.apply(prediction.id, toy.succeeded("whole"))).prediction


async def deliver(store: Store) -> None:
    for delivery in await store.claim_deliveries("w", limit=100, lease_seconds=60):
        assert await store.finish_delivery(delivery, ended="delivered", status=200)


async def test_what_ended_before_is_aged_the_oldest_first(store: Store, clock: ManualClock) -> None:
    first = await ended(store)
    clock.advance(10)
    second = await ended(store, created_at=toy.START - timedelta(days=1))  # it is the end that counts
    clock.advance(10)
    third = await ended(store)
    open_ = toy.prediction()
    await store.create(open_)
    await store.apply(open_.id, toy.DeadlinePassed())  # ended, and somebody still has to do something for it
    assert await store.aged(before=LATER) == [first.id, second.id, third.id]
    assert await store.aged(before=LATER, limit=2) == [first.id, second.id]
    assert third.completed_at is not None
    assert await store.aged(before=third.completed_at) == [first.id, second.id]
    assert await store.aged(before=third.completed_at + timedelta(microseconds=1)) == [first.id, second.id, third.id]
    assert await store.aged(before=toy.START) == []


async def test_one_that_is_owed_a_delivery_is_not_aged_before_it_has_ended(store: Store) -> None:
    prediction = await ended(store, webhook=HOOK)
    assert await store.aged(before=LATER) == []
    [delivery] = await store.claim_deliveries("w", limit=10, lease_seconds=60)
    assert await store.finish_delivery(delivery, ended=None, due_at=LATER)
    assert await store.aged(before=LATER) == []
    assert await store.redeliver(prediction.id) is Redelivery.DUE
    await deliver(store)
    assert await store.aged(before=LATER) == [prediction.id]


async def test_removed_data_is_gone_and_that_it_happened_stays(store: Store) -> None:
    prediction = await ended(store, webhook=HOOK, key="k")
    await deliver(store)
    before = await store.deliveries(prediction.id)
    assert all(delivery.body for delivery in before)
    money = await store.ledger(prediction.id)
    [*_, done] = await store.events(prediction.id)

    applied = await store.apply(prediction.id, DataRemoved())
    assert applied.changed
    removed = await store.get(prediction.id)
    assert removed == applied.prediction
    assert (removed.data_removed, removed.request.input, removed.output) == (True, {}, None)
    assert (removed.request.webhook, removed.completed_at) == (HOOK, prediction.completed_at)
    assert removed.revision == prediction.revision + 1
    assert await store.events(prediction.id) == [done]
    assert done.event == "done"
    assert await store.deliveries(prediction.id) == [replace(delivery, body=b"") for delivery in before]
    assert await store.ledger(prediction.id) == money
    assert await store.find_attempt(prediction.attempts[0].token_hash) == (prediction.id, 1)
    assert (await store.list_predictions(owner="alice")).predictions == (removed,)
    repeated = await store.create(toy.prediction(), idempotency_key="k", body_hash="h")
    assert (repeated.outcome, repeated.prediction) == (Created.SAME, removed)

    assert await store.aged(before=LATER) == []
    assert (await store.apply(prediction.id, DataRemoved())).changed is False


async def test_what_is_removed_is_so_after_a_restart(open_store: OpenStore) -> None:
    store = await open_store(reduce=reduce)
    prediction = await ended(store, webhook=HOOK)
    await deliver(store)
    removed = (await store.apply(prediction.id, DataRemoved())).prediction
    await store.aclose()
    store = await open_store(reduce=reduce)
    assert await store.get(prediction.id) == removed
    assert await store.aged(before=LATER) == []
    assert (await store.apply(prediction.id, DataRemoved())).changed is False


async def test_nothing_is_delivered_again_once_its_data_is_removed(store: Store) -> None:
    prediction = await ended(store, webhook=HOOK)
    await deliver(store)
    await store.apply(prediction.id, DataRemoved())
    assert await store.redeliver(prediction.id) is Redelivery.NONE
    assert await store.claim_deliveries("w", limit=10, lease_seconds=60) == []


async def test_a_delivery_that_is_under_way_as_the_data_is_removed_goes_blank_as_it_ends(store: Store) -> None:
    prediction = await ended(store, webhook=HOOK)
    [delivery] = await store.claim_deliveries("w", limit=10, lease_seconds=60)
    await store.apply(prediction.id, DataRemoved())
    assert (await store.deliveries(prediction.id))[-1].body == delivery.body
    assert await store.finish_delivery(delivery, ended="delivered", status=200)
    assert (await store.deliveries(prediction.id))[-1].body == b""


def file(name: str, *, days: int) -> FileRow:
    return FileRow(
        id=name,
        owner="alice",
        artifact=f"art-{name}",
        name=f"{name}.png",
        content_type="image/png",
        size_bytes=3,
        sha256="0" * 64,
        md5="0" * 32,
        metadata={"a": [1, None]},
        created_at=toy.START,
        expires_at=toy.START + timedelta(days=days),
    )


async def test_files_are_forgotten_when_their_time_is_over_the_oldest_first(store: Store, clock: ManualClock) -> None:
    one, two, three, four = (file(name, days=days) for name, days in (("d", 1), ("a", 2), ("c", 3), ("b", 4)))
    for row in (four, two, three, one):
        await store.put_file(row)
    assert await store.expire_files() == []
    clock.advance(timedelta(days=3).total_seconds())  # the moment itself is over
    assert await store.expire_files(limit=2) == [one, two]
    assert await store.expire_files() == [three]
    assert await store.expire_files() == []
    assert await store.get_file("d", owner="alice") is None
    assert (await store.list_files(owner="alice"))[0] == [four]
    assert await store.delete_file("c", owner="alice") is None


async def test_a_file_that_is_put_again_lives_by_its_new_time(store: Store, clock: ManualClock) -> None:
    await store.put_file(file("a", days=1))
    await store.put_file(file("a", days=5))
    clock.advance(timedelta(days=2).total_seconds())
    assert await store.expire_files() == []
    clock.advance(timedelta(days=3).total_seconds())
    assert await store.expire_files() == [file("a", days=5)]


async def test_a_file_that_was_deleted_is_not_expired(store: Store, clock: ManualClock) -> None:
    await store.put_file(file("a", days=1))
    await store.delete_file("a", owner="alice")
    clock.advance(timedelta(days=2).total_seconds())
    assert await store.expire_files() == []
