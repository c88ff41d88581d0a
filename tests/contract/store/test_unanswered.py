"""What a store on the network owes whoever does not hear its answer: the verb once more is right, whatever was done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.clock import hash_token
from gateway.contract.errors import LeaseLost, StoreUnavailable
from gateway.contract.fact import StreamEvent
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Created, Held, Redelivery, Store
from gateway.store.redis import RedisStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore
from tests.contract.store.lines import WilfulLine

pytestmark = pytest.mark.parametrize("kind", ["redis", "redis_cluster"])

HOOK = "https://hooks.example/one"


class Opened:
    def __init__(self, store: Store, line: WilfulLine) -> None:
        self.store = store
        self.line = line


@pytest.fixture
async def opened(open_store: OpenStore) -> Opened:
    lines: list[WilfulLine] = []

    def through(line: Any) -> WilfulLine:
        lines.append(WilfulLine(line))
        return lines[-1]

    return Opened(await open_store(through=through), lines[0])


async def _repeated(opened: Opened, script: str, verb: Callable[[], Awaitable[Any]], *, is_done: bool) -> Any:
    """The verb, once without an answer and once with."""
    lost = opened.line.answers_lost if is_done else opened.line.unsent
    lost[script] = 1
    with pytest.raises(StoreUnavailable):
        await verb()
    assert lost[script] == 0
    return await verb()


async def _state(store: Store, id: str) -> tuple[object, ...]:
    return await store.get(id), await store.events(id), await store.ledger(id), await store.deliveries(id)


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_create_once_more(opened: Opened, is_done: bool) -> None:
    prediction = toy.prediction(webhook=HOOK)
    effects = (StreamEvent(event="logs", data="x"),)
    again = await _repeated(
        opened, "create", lambda: opened.store.create(prediction, worker="w", effects=effects), is_done=is_done
    )
    assert again.outcome is (Created.SAME if is_done else Created.CREATED)
    assert again.prediction == replace(prediction, events=1)
    assert len(await opened.store.events(prediction.id)) == 1
    assert [p.id for p in (await opened.store.list_predictions(owner="alice")).predictions] == [prediction.id]


@pytest.mark.parametrize("script", ["claim_key", "create"])
@pytest.mark.parametrize("is_done", [True, False])
async def test_a_create_with_a_key_once_more_by_a_client_who_is_given_another_id(
    opened: Opened, script: str, is_done: bool
) -> None:
    first, second = toy.prediction(), toy.prediction()
    lost = opened.line.answers_lost if is_done else opened.line.unsent
    lost[script] = 1
    with pytest.raises(StoreUnavailable):
        await opened.store.create(first, idempotency_key="k", body_hash="h")
    result = await opened.store.create(second, idempotency_key="k", body_hash="h")
    never_claimed = script == "claim_key" and not is_done
    assert result.prediction.id == (second.id if never_claimed else first.id)
    assert result.outcome is (Created.SAME if (script, is_done) == ("create", True) else Created.CREATED)
    found = (await opened.store.list_predictions(owner="alice")).predictions
    assert [p.id for p in found] == [result.prediction.id]
    # A key that was taken over stands for what it was taken over for.
    third = await opened.store.create(toy.prediction(), idempotency_key="k", body_hash="h")
    assert (third.outcome, third.prediction) == (Created.SAME, result.prediction)
    other = await opened.store.create(toy.prediction(), idempotency_key="k", body_hash="other")
    assert (other.outcome, other.prediction) == (Created.CONFLICT, result.prediction)
    assert await opened.store.find_stream(result.prediction.stream_token) == result.prediction.id


async def test_what_was_created_under_the_id_of_another_is_nobodys_though_nobody_heard_of_it(opened: Opened) -> None:
    """Whoever created it knows it by no name, and lives: held by him it would never be driven."""
    first, second = toy.prediction(), toy.prediction()
    opened.line.unsent["create"] = 1
    with pytest.raises(StoreUnavailable):
        await opened.store.create(first, idempotency_key="k", body_hash="h", worker="w1")
    opened.line.answers_lost["create"] = 1
    with pytest.raises(StoreUnavailable):
        await opened.store.create(second, idempotency_key="k", body_hash="h", worker="w2")
    for worker in ("w1", "w2", "w3"):
        await opened.store.beat(worker, lease_seconds=30)
    assert [held.prediction.id for held in await opened.store.claim_due("w3", limit=10)] == [first.id]


async def test_a_key_that_was_taken_over_while_its_first_owner_was_slow_has_one_prediction(opened: Opened) -> None:
    slow, fast = toy.prediction(), toy.prediction(input={"scale": 4})

    async def overtake() -> None:
        made = await opened.store.create(fast, idempotency_key="k", body_hash="other")
        assert (made.outcome, made.prediction.id) == (Created.CREATED, slow.id)

    opened.line.before["create"] = overtake
    result = await opened.store.create(slow, idempotency_key="k", body_hash="h")
    # Another body came first, under the id that was slow's: his is the conflict, and no second prediction.
    assert result.outcome is Created.CONFLICT
    assert result.prediction == replace(fast, id=slow.id)
    assert len((await opened.store.list_predictions(owner="alice")).predictions) == 1


@pytest.mark.parametrize("is_done", [True, False])
async def test_an_apply_once_more(opened: Opened, is_done: bool) -> None:
    store = opened.store
    prediction, twin = toy.prediction(webhook=HOOK), toy.prediction(webhook=HOOK)
    for one in (prediction, twin):
        await store.create(one, worker="w")
        await store.apply(one.id, toy.begun(one.id), lease=toy.lease("w"))
    again = await _repeated(
        opened, "apply", lambda: store.apply(prediction.id, toy.succeeded(), lease=toy.lease("w")), is_done=is_done
    )
    assert again.changed is not is_done
    assert again.prediction == (await store.apply(prediction.id, toy.NOTHING)).prediction
    await store.apply(twin.id, toy.succeeded(), lease=toy.lease("w"))
    state, plain = await _state(store, prediction.id), await _state(store, twin.id)
    for got, wanted in zip(state[1:], plain[1:], strict=True):
        assert _anonymous(got) == _anonymous(wanted)
    assert (await store.get(prediction.id)).revision == 2


def _anonymous(rows: Any) -> list[Any]:
    return [
        (getattr(row, "sequence", None), getattr(row, "event", None), getattr(row, "state", None), row.__class__)
        for row in rows
    ]


async def test_a_late_answer_of_a_lost_lease_is_not_taken_for_ours(opened: Opened) -> None:
    """The change was made, then the prediction went to another: the repeat is told so, and what was made stands."""
    store = opened.store
    await store.beat("w2", lease_seconds=30)
    prediction = toy.prediction()
    await store.create(prediction, worker="w1")
    opened.line.answers_lost["apply"] = 1
    with pytest.raises(StoreUnavailable):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))
    [held] = await store.claim_due("w2", limit=10)
    assert [attempt.number for attempt in held.prediction.attempts] == [1]
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))


@pytest.mark.parametrize("script", ["create", "apply"])
async def test_a_pointer_to_what_was_never_committed_leads_nowhere(opened: Opened, script: str) -> None:
    store, line = opened.store, opened.line
    prediction = toy.prediction()
    if script == "apply":
        await store.create(prediction)
    line.unsent[script] = 1
    with pytest.raises(StoreUnavailable):
        await (store.create(prediction) if script == "create" else store.apply(prediction.id, toy.begun("t")))
    assert await store.find_attempt(hash_token("t")) is None
    assert (await store.find_stream(prediction.stream_token) is None) is (script == "create")
    # The same attempt number under another token: the first token stays nobody's.
    if script == "apply":
        await store.apply(prediction.id, toy.begun("other"))
        assert await store.find_attempt(hash_token("t")) is None
        assert await store.find_attempt(hash_token("other")) == (prediction.id, 1)


async def test_a_pointer_is_durable_before_what_makes_it_true(opened: Opened, kind: str) -> None:
    store, line = opened.store, opened.line
    prediction = toy.prediction()
    await store.create(prediction)
    assert isinstance(store, RedisStore)
    keys = store._seat.keys
    elsewhere = (f"t{n}" for n in range(1_000) if keys.shard(hash_token(f"t{n}")) is not keys.shard(prediction.id))
    if kind == "redis":
        assert next(elsewhere, None) is None  # there is one shard: the change writes it itself
        return
    token = next(elsewhere)
    line.unsent["point"] = 1
    with pytest.raises(StoreUnavailable):
        await store.apply(prediction.id, toy.begun(token))
    assert (await store.get(prediction.id)).attempts == ()
    await store.apply(prediction.id, toy.begun(token))
    assert await store.find_attempt(hash_token(token)) == (prediction.id, 1)


# -- claims ----------------------------------------------------------------------------------------------------------


async def _created(store: Store, count: int) -> list[Prediction]:
    predictions = [toy.prediction() for _ in range(count)]
    for prediction in predictions:
        await store.create(prediction)
    return predictions


def _ids(held: list[Held]) -> list[str]:
    return sorted(one.prediction.id for one in held)


@pytest.mark.parametrize("is_done", [True, False])
async def test_what_was_claimed_unheard_is_handed_out_by_the_next_claim(opened: Opened, is_done: bool) -> None:
    store = opened.store
    for worker in ("w1", "w2"):
        await store.beat(worker, lease_seconds=30)
    predictions = await _created(store, 30)
    held = await _repeated(opened, "claim_due", lambda: store.claim_due("w1", limit=100), is_done=is_done)
    assert _ids(held) == sorted(p.id for p in predictions)
    assert {one.lease for one in held} == {toy.lease("w1")}  # it changed hands once
    assert await store.claim_due("w1", limit=100) == []
    assert await store.claim_due("w2", limit=100) == []


async def test_a_claim_in_several_pieces_of_which_no_answer_was_heard_is_handed_out_when_it_asks_again(
    opened: Opened,
) -> None:
    store = opened.store
    await store.beat("w1", lease_seconds=30)
    predictions = await _created(store, 120)
    opened.line.answers_lost["claim_due"] = 1
    with pytest.raises(StoreUnavailable):
        await store.claim_due("w1", limit=1_000)
    again = await store.claim_due("w1", limit=1_000)
    assert sorted(_ids(again)) == sorted(p.id for p in predictions)
    assert {held.lease.fence for held in again} == {1}  # it was claimed once
    assert await store.claim_due("w1", limit=1_000) == []


async def test_a_claimer_that_left_before_the_answer_is_handed_it_when_it_asks_again(opened: Opened) -> None:
    store = opened.store
    await store.beat("w1", lease_seconds=30)
    predictions = await _created(store, 70)

    async def leave() -> None:
        claiming.cancel()

    opened.line.before["claim_due"] = leave
    claiming = asyncio.ensure_future(store.claim_due("w1", limit=1_000))
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert _ids(await store.claim_due("w1", limit=1_000)) == sorted(p.id for p in predictions)
    assert await store.claim_due("w1", limit=1_000) == []


async def test_an_unheard_claim_that_another_took_over_is_not_handed_out(opened: Opened, clock: ManualClock) -> None:
    store = opened.store
    await store.beat("w1", lease_seconds=30)
    [prediction] = await _created(store, 1)
    opened.line.answers_lost["claim_due"] = 1
    with pytest.raises(StoreUnavailable):
        await store.claim_due("w1", limit=10)
    clock.advance(60)
    await store.beat("w2", lease_seconds=30)
    assert _ids(await store.claim_due("w2", limit=10)) == [prediction.id]
    await store.beat("w1", lease_seconds=30)
    assert await store.claim_due("w1", limit=10) == []
    assert (await store.apply(prediction.id, toy.said("x"), lease=toy.lease("w2", 2))).changed


async def test_an_unheard_claim_that_was_released_whole_is_forgotten(opened: Opened) -> None:
    store = opened.store
    await store.beat("w1", lease_seconds=30)
    [prediction] = await _created(store, 1)
    opened.line.answers_lost["claim_due"] = 1
    with pytest.raises(StoreUnavailable):
        await store.claim_due("w1", limit=10)
    await _repeated(opened, "release", lambda: store.release("w1"), is_done=True)
    [held] = await store.claim_due("w1", limit=10)
    assert (held.prediction.id, held.lease) == (prediction.id, toy.lease("w1", 2))


# -- the outbox ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_try_once_more_is_recorded_once(opened: Opened, is_done: bool) -> None:
    store = opened.store
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    await store.apply(prediction.id, toy.succeeded())
    [claimed] = await store.claim_deliveries("s", limit=10, lease_seconds=10)
    again = await _repeated(
        opened,
        "finish_delivery",
        lambda: store.finish_delivery(claimed, ended="delivered", status=200),
        is_done=is_done,
    )
    assert again is not is_done
    [delivery] = await store.deliveries(prediction.id)
    assert (delivery.ended, delivery.tries, len(delivery.history)) == ("delivered", 1, 1)


async def test_deliveries_that_were_claimed_unheard_come_back_with_the_lease(
    opened: Opened, clock: ManualClock
) -> None:
    store = opened.store
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    await store.apply(prediction.id, toy.succeeded())
    opened.line.answers_lost["claim_deliveries"] = 1
    with pytest.raises(StoreUnavailable):
        await store.claim_deliveries("s", limit=10, lease_seconds=10)
    assert await store.claim_deliveries("s", limit=10, lease_seconds=10) == []
    assert await store.next_delivery_at() == clock.now() + timedelta(seconds=10)
    clock.advance(10)
    [claimed] = await store.claim_deliveries("s", limit=10, lease_seconds=10)
    assert claimed.fence == 2


@pytest.mark.parametrize("is_done", [True, False])
async def test_claims_given_back_once_more_are_given_back_once(opened: Opened, is_done: bool) -> None:
    store = opened.store
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    await store.apply(prediction.id, toy.succeeded())
    given = await store.claim_deliveries("s", limit=10, lease_seconds=10)
    opened.line.answers_lost["release_deliveries"] = int(is_done)
    opened.line.unsent["release_deliveries"] = int(not is_done)
    with pytest.raises(StoreUnavailable):
        await store.release_deliveries(given)
    if not is_done:
        await store.release_deliveries(given)
    [other] = await store.claim_deliveries("s", limit=10, lease_seconds=10)
    await store.release_deliveries(given)
    assert await store.claim_deliveries("s", limit=10, lease_seconds=10) == [], "it was taken from who has it now"
    assert await store.finish_delivery(other, ended="delivered", status=200)


async def test_claims_are_given_back_in_one_round_trip(opened: Opened) -> None:
    store = opened.store
    for _ in range(30):
        prediction = toy.prediction(webhook=HOOK)
        await store.create(prediction)
        await store.apply(prediction.id, toy.succeeded())
    given = await store.claim_deliveries("s", limit=30, lease_seconds=10)
    opened.line.trips = 0
    await store.release_deliveries(given)
    assert opened.line.trips == 1
    assert len(await store.claim_deliveries("s", limit=30, lease_seconds=10)) == 30


async def test_a_redelivery_once_more_is_one(opened: Opened) -> None:
    store = opened.store
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    await store.apply(prediction.id, toy.succeeded())
    [claimed] = await store.claim_deliveries("s", limit=10, lease_seconds=10)
    await store.finish_delivery(claimed, ended="delivered", status=200)
    again = await _repeated(opened, "redeliver", lambda: store.redeliver(prediction.id), is_done=True)
    assert again is Redelivery.DUE
    assert len(await store.claim_deliveries("s", limit=10, lease_seconds=10)) == 1
    assert await store.claim_deliveries("s", limit=10, lease_seconds=10) == []


# -- what it costs -----------------------------------------------------------------------------------------------------


async def test_a_change_of_what_is_known_is_one_round_trip(opened: Opened, kind: str) -> None:
    store, line = opened.store, opened.line
    prediction = toy.prediction(webhook=HOOK)
    line.trips = 0
    await store.create(prediction, worker="w")
    # Of a cluster the stream's pointer lies in another shard, but by chance.
    assert line.trips == 1 or (line.trips == 2 and kind == "redis_cluster")
    for happening in (toy.said("a"), toy.NOTHING, toy.said("b"), toy.succeeded()):
        line.trips = 0
        await store.apply(prediction.id, happening, lease=toy.lease("w"))
        assert line.trips == 1
    line.trips = 0
    await store.create(toy.prediction(), idempotency_key="k", body_hash="h")
    assert line.trips == 2 or (line.trips == 3 and kind == "redis_cluster")


async def test_a_worker_with_nothing_to_do_asks_once_and_an_outbox_twice(opened: Opened) -> None:
    await opened.store.beat("w", lease_seconds=30)
    opened.line.trips = 0
    opened.line.ran.clear()
    assert await opened.store.claim_due("w", limit=200) == []
    assert opened.line.trips == 1
    assert await opened.store.claim_deliveries("w", limit=64, lease_seconds=30) == []
    assert await opened.store.next_delivery_at() is None
    assert opened.line.trips == 3
    assert set(opened.line.ran) == {"look_due", "look_deliveries", "next_delivery"}  # and none of them writes
