"""Two versions of Turnout on one Redis: neither breaks what the other wrote, or touches what it cannot read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.contract.errors import ConfigurationError, LeaseLost, PredictionUnreadable
from gateway.contract.fact import DataRemoved, Happening
from gateway.contract.prediction import Prediction
from gateway.store import _encoding, _redis_event, _redis_row, redis
from gateway.store._encoding import CONTRACT_VERSION
from gateway.store._redis_lease import UNREADABLE_TIME
from gateway.store._redis_wire import Call
from gateway.store.protocol import Reduction, Search, Store
from gateway.store.redis import RedisStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore
from tests.redis.line import script

pytestmark = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])

NEWER = CONTRACT_VERSION + 1
Alter = Callable[[dict[str, Any]], object]
Patch = pytest.MonkeyPatch
REWRITE = script("return redis.call('HSET', KEYS[1], 'state', ARGV[3])")


@contextlib.contextmanager
def as_newer() -> Iterator[None]:
    """Inside, our code is that of a version to come."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_encoding, _redis_row):
            patch.setattr(module, "CONTRACT_VERSION", NEWER)
        patch.setattr(_encoding, "_VERSION", bytes([NEWER]))
        yield


async def rewrite(store: Store, id: str, alter: Alter, version: int = NEWER) -> bytes:
    """The state of it as a version to come might have written it."""
    assert isinstance(store, RedisStore)
    key = store._seat.keys.shard(id).prediction(id)
    [state] = await store._seat.line.read(("HGET", key, "state"))
    fields = msgspec.msgpack.decode(state[1:])
    alter(fields)
    await store._seat.line.run(Call(REWRITE, [key], [bytes([version]) + msgspec.msgpack.encode(fields)]))
    [state] = await store._seat.line.read(("HGET", key, "state"))
    return bytes(state)


def more_fields(fields: dict[str, Any]) -> None:
    fields["mood"] = "bright"
    fields["attempts"][0]["weather"] = "rain"


def unknown_status(fields: dict[str, Any]) -> None:
    fields["status"] = "resting"


async def test_fields_of_a_newer_version_live_through_our_changes(open_store: OpenStore) -> None:
    store = await open_store()
    prediction = toy.prediction()
    await store.create(prediction)
    await store.apply(prediction.id, toy.begun("one"))
    await rewrite(store, prediction.id, more_fields)
    for happening in (toy.said("half"), toy.begun("two", 2), toy.succeeded("all")):
        again = await open_store()  # as well from the server as from memory
        await again.apply(prediction.id, toy.said(str(happening)))
        applied = await again.apply(prediction.id, happening)
        assert await again.get(prediction.id) == applied.prediction
    state = await rewrite(store, prediction.id, lambda fields: None)
    fields = msgspec.msgpack.decode(state[1:])
    assert (state[0], fields["mood"], fields["status"], fields["revision"]) == (NEWER, "bright", "succeeded", 7)
    assert [attempt.get("weather") for attempt in fields["attempts"]] == ["rain", None]


async def test_what_we_cannot_read_is_left_to_the_newer_and_its_neighbours_are_not(open_store: OpenStore) -> None:
    store = await open_store()
    predictions = [toy.prediction(created_at=toy.START + timedelta(seconds=n)) for n in range(12)]
    for n, prediction in enumerate(predictions):
        await store.create(prediction, idempotency_key=f"k{n}", body_hash="h")
        await store.apply(prediction.id, toy.begun(f"{n}"))
    strange, ours = predictions[:8], predictions[8:]
    for prediction in strange:
        await rewrite(store, prediction.id, unknown_status)

    store = await open_store()
    await store.beat("w", lease_seconds=60)
    taken = [held.prediction.id for _ in range(6) for held in await store.claim_due("w", limit=2)]
    assert sorted(taken) == sorted(prediction.id for prediction in ours)
    first = strange[0].id
    with pytest.raises(PredictionUnreadable, match="a newer Turnout wrote this prediction"):
        await store.get(first)
    with pytest.raises(PredictionUnreadable):
        await store.apply(first, toy.succeeded())
    with pytest.raises(LeaseLost):
        await store.apply(first, toy.succeeded(), lease=toy.lease("w"))
    with pytest.raises(PredictionUnreadable):
        await store.create(toy.prediction(), idempotency_key="k0", body_hash="h")
    assert await store.find_attempt(toy.begun("0").attempt.token_hash) == (first, 1)
    assert (await store.apply(ours[0].id, toy.succeeded())).changed
    page = await store.list_predictions(owner="alice", limit=100)
    assert [p.id for p in page.predictions] == [p.id for p in ours[::-1]]
    found = await store.search_predictions(Search(model="acme/upscale"))
    assert [p.id for p in found.predictions] == [p.id for p in ours[::-1]]
    with pytest.raises(PredictionUnreadable):
        [_ async for _ in store.dump()]

    # The newer one, which can read them, is held up by nobody.
    newer = await open_store()
    await newer.beat("n", lease_seconds=60)
    for prediction in strange:
        await rewrite(newer, prediction.id, lambda fields: fields.update(status="starting"))
    assert sorted(held.prediction.id for held in await newer.claim_due("n", limit=100)) == sorted(
        prediction.id for prediction in strange
    )


async def test_a_row_that_became_unreadable_under_its_holder_is_let_go(open_store: OpenStore) -> None:
    store, other = await open_store(), await open_store()
    prediction = toy.prediction()
    await store.create(prediction, worker="w")
    await other.apply(prediction.id, toy.said("by a newer one"))
    await rewrite(other, prediction.id, unknown_status)
    with pytest.raises(LeaseLost, match="cannot go on"):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w"))
    with pytest.raises(PredictionUnreadable):
        await store.get(prediction.id)


async def test_what_a_newer_version_keeps_is_for_that_one_to_erase_and_to_move(open_store: OpenStore) -> None:
    def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
        if not isinstance(happening, DataRemoved):
            return toy.reduce(prediction, happening, now)
        return Reduction(prediction=replace(prediction, data_removed=True), is_open=False)

    store = await open_store(reduce=reduce)
    newers = [toy.prediction() for _ in range(3)]
    ours = toy.prediction()
    with as_newer():
        for prediction in newers:
            await store.create(prediction)
            await store.apply(prediction.id, toy.succeeded())
    await store.create(ours)
    await store.apply(ours.id, toy.succeeded())
    store = await open_store(reduce=reduce)
    assert await store.aged(before=toy.START + timedelta(days=1), limit=1) == [ours.id]
    with pytest.raises(PredictionUnreadable, match="for that one to erase"):
        await store.apply(newers[0].id, DataRemoved())
    with pytest.raises(PredictionUnreadable, match="move it with that one"):
        [_ async for _ in store.dump()]


async def kept_format(store: Store) -> list[bytes]:
    assert isinstance(store, RedisStore)
    [kept] = await store._seat.line.read(("HMGET", store._seat.keys.first.own, "format", "min_format"))
    return list(kept)


async def test_a_newer_format_that_only_adds_disturbs_nobody(open_store: OpenStore, monkeypatch: Patch) -> None:
    running = await open_store()
    with monkeypatch.context() as patch:
        patch.setattr(redis, "FORMAT", 7)
        newer = await open_store()
    assert await kept_format(running) == [b"7", b"1"]
    starting = await open_store()
    assert await kept_format(starting) == [b"7", b"1"], "what the newer said stands"
    for n, store in enumerate((running, newer, starting)):
        await store.create(toy.prediction(created_at=toy.START + timedelta(seconds=n)))


async def test_who_is_too_old_for_a_store_is_told_so(open_store: OpenStore, monkeypatch: Patch) -> None:
    running = await open_store()
    with monkeypatch.context() as patch:
        patch.setattr(redis, "FORMAT", 7)
        patch.setattr(redis, "MIN_FORMAT", 6)
        await open_store()
    with pytest.raises(ConfigurationError, match="format 7, for 6 and later; this one knows 2") as refused:
        await open_store()
    assert "\n" not in str(refused.value)
    assert await kept_format(running) == [b"7", b"6"], "nothing was changed by who was refused"
    # One that knows enough comes in, and lowers nothing.
    monkeypatch.setattr(redis, "FORMAT", 6)
    await open_store()
    assert await kept_format(running) == [b"7", b"6"]


async def test_a_store_of_the_first_format_is_taken_over(open_store: OpenStore, monkeypatch: Patch) -> None:
    store = await open_store()
    assert isinstance(store, RedisStore)
    forget = script("redis.call('HSET', KEYS[1], 'format', 1) return redis.call('HDEL', KEYS[1], 'min_format')")
    await store._seat.line.run(Call(forget, [store._seat.keys.first.own]))
    await open_store()
    assert await kept_format(store) == [b"2", b"1"]


async def test_what_a_newer_version_says_more_in_a_row_is_passed_over(
    open_store: OpenStore, monkeypatch: Patch
) -> None:
    store = await open_store()
    prediction = toy.prediction()
    await store.create(prediction)
    with monkeypatch.context() as patch:
        for name in ("EventRow", "MoneyRow"):
            patch.setattr(_redis_event, name, longer(getattr(_redis_event, name)))
        await store.apply(prediction.id, toy.begun("one"))
        await store.apply(prediction.id, toy.succeeded())
    assert [event.event for event in await store.events(prediction.id)][-1] == "done"
    assert [row.attempt for row in await store.ledger(prediction.id)] == [1]


def longer(row: Any) -> Callable[..., tuple[Any, ...]]:
    return lambda *members: (*members, "more")


async def test_what_is_brought_back_to_words_we_know_is_claimed_after_a_while(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = await open_store()
    prediction = toy.prediction()
    await store.create(prediction)
    await store.apply(prediction.id, toy.begun("one"))
    await rewrite(store, prediction.id, unknown_status)
    await store.beat("w", lease_seconds=1_000)
    assert await store.claim_due("w", limit=10) == []
    await rewrite(store, prediction.id, lambda fields: fields.update(status="starting"))
    assert await store.claim_due("w", limit=10) == [], "it is not claimed again and again"
    clock.advance(UNREADABLE_TIME.total_seconds() + 1)
    assert [held.prediction.id for held in await store.claim_due("w", limit=10)] == [prediction.id]
