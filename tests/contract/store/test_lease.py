"""Leases in any store: one holder at a time, who loses what it holds only when it stops beating or lets go."""

from __future__ import annotations

import asyncio

import pytest

from gateway.contract.errors import LeaseLost
from gateway.contract.fact import CancelRequested, DeadlinePassed
from gateway.contract.prediction import Prediction, Status
from gateway.store.protocol import Held, Store
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore


async def _created(store: Store, *, count: int = 1, worker: str | None = None) -> list[Prediction]:
    predictions = [toy.prediction() for _ in range(count)]
    for prediction in predictions:
        await store.create(prediction, worker=worker)
    return predictions


async def _claim(store: Store, worker: str, limit: int = 100) -> list[str]:
    return [held.prediction.id for held in await store.claim_due(worker, limit=limit)]


async def test_what_nobody_holds_is_claimed_whole_and_once(store: Store) -> None:
    [prediction] = await _created(store)
    await store.beat("w1", lease_seconds=30)
    await store.beat("w2", lease_seconds=30)
    assert await store.claim_due("w1", limit=10) == [Held(prediction=prediction, lease=toy.lease("w1"))]
    assert await store.claim_due("w2", limit=10) == []
    assert await store.claim_due("w1", limit=10) == []


async def test_what_was_created_as_held_is_held_at_once(store: Store) -> None:
    await store.beat("w1", lease_seconds=30)
    await store.beat("w2", lease_seconds=30)
    [prediction] = await _created(store, worker="w1")
    assert await _claim(store, "w2") == []
    assert (await store.apply(prediction.id, toy.said("x"), lease=toy.lease("w1"))).changed
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.said("y"), lease=toy.lease("w2"))


async def test_who_does_not_hold_it_writes_nothing_but_facts(store: Store) -> None:
    [prediction] = await _created(store)
    for worker in ("w1", ""):
        with pytest.raises(LeaseLost):
            await store.apply(prediction.id, toy.begun("t"), lease=toy.lease(worker))
    assert await store.get(prediction.id) == prediction
    assert await store.ledger(prediction.id) == []
    assert (await store.apply(prediction.id, toy.said("a fact"))).changed


async def test_a_step_of_the_engine_on_an_unknown_id_is_a_key_error(store: Store) -> None:
    with pytest.raises(KeyError):
        await store.apply("0" * 26, toy.begun("t"), lease=toy.lease("w1"))


async def test_a_lease_that_ran_out_goes_to_the_next_and_the_old_holder_is_told(
    store: Store, clock: ManualClock
) -> None:
    await store.beat("w1", lease_seconds=30)
    [prediction] = await _created(store, worker="w1")
    clock.advance(29)
    await store.beat("w2", lease_seconds=30)
    assert await _claim(store, "w2") == []
    clock.advance(2)
    assert await _claim(store, "w2") == [prediction.id]
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))
    await store.beat("w1", lease_seconds=30)  # a zombie that wakes up does not get it back
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))
    await store.release("w1", [prediction.id])  # nor can it let go of what it has not
    assert await _claim(store, "w1") == []
    assert (await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w2", 2))).changed


async def test_a_beat_renews_everything_a_worker_holds(store: Store, clock: ManualClock) -> None:
    await store.beat("w1", lease_seconds=30)
    await _created(store, count=3, worker="w1")
    for _ in range(5):
        clock.advance(20)
        await store.beat("w1", lease_seconds=30)
        await store.beat("w2", lease_seconds=30)
        assert await _claim(store, "w2") == []
    clock.advance(31)
    assert len(await _claim(store, "w2")) == 3


async def test_a_holder_that_never_beat_holds_nothing_against_others(store: Store) -> None:
    [prediction] = await _created(store, worker="ghost")
    await store.beat("w1", lease_seconds=30)
    assert await _claim(store, "w1") == [prediction.id]


async def test_who_claims_after_its_lease_ran_out_is_not_handed_its_own_twice(store: Store, clock: ManualClock) -> None:
    await store.beat("w1", lease_seconds=30)
    [prediction] = await _created(store, worker="w1")
    clock.advance(60)
    assert await _claim(store, "w1") == []
    assert (await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))).changed


async def test_the_leases_of_several_dead_workers_are_all_freed(store: Store, clock: ManualClock) -> None:
    held = []
    for name in ("a", "b", "c", "d"):
        await store.beat(name, lease_seconds=60 if name == "c" else 30)
        held += [(name, prediction.id) for prediction in await _created(store, count=2, worker=name)]
    clock.advance(45)
    await store.beat("w", lease_seconds=30)
    assert sorted(await _claim(store, "w")) == sorted(id for name, id in held if name != "c")


async def test_no_prediction_is_claimed_by_two(store: Store) -> None:
    predictions = await _created(store, count=60)
    workers = [f"w{n}" for n in range(6)]
    for worker in workers:
        await store.beat(worker, lease_seconds=30)
    claims = await asyncio.gather(*(_claim(store, worker, limit=7) for _ in range(4) for worker in workers))
    assert all(len(claim) <= 7 for claim in claims)
    assert sorted(id for claim in claims for id in claim) == sorted(prediction.id for prediction in predictions)


async def test_what_was_put_off_is_not_claimed_before_its_time(store: Store, clock: ManualClock) -> None:
    early, late = await _created(store, count=2)
    await store.beat("w1", lease_seconds=600)
    await store.apply(late.id, CancelRequested())  # the toy puts it off for a minute
    assert await _claim(store, "w1") == [early.id]
    clock.advance(59)
    assert await _claim(store, "w1") == []
    clock.advance(1)
    assert await _claim(store, "w1") == [late.id]


async def test_what_is_closed_is_never_claimed_and_what_has_ended_but_is_open_is(store: Store) -> None:
    closed, open_ = await _created(store, count=2)
    await store.beat("w1", lease_seconds=30)
    await store.apply(closed.id, toy.succeeded())
    await store.apply(open_.id, DeadlinePassed())
    [claimed] = await store.claim_due("w1", limit=10)
    assert (claimed.prediction.id, claimed.prediction.status) == (open_.id, Status.ABORTED)


async def test_what_was_released_is_claimed_by_the_next(store: Store) -> None:
    await store.beat("w1", lease_seconds=30)
    await store.beat("w2", lease_seconds=30)
    first, second, third = await _created(store, count=3, worker="w1")
    await store.release("w1", [first.id, "0" * 26])
    assert await _claim(store, "w2") == [first.id]
    with pytest.raises(LeaseLost):
        await store.apply(first.id, toy.begun("t"), lease=toy.lease("w1"))
    await store.release("w1")
    assert sorted(await _claim(store, "w2")) == sorted([second.id, third.id])
    await store.release("w2", [])
    assert await _claim(store, "w1") == []


async def test_what_was_released_before_a_restart_is_claimed_as_it_was_left_after_it(open_store: OpenStore) -> None:
    store = await open_store()
    await store.beat("w1", lease_seconds=3600)
    [prediction] = await _created(store, worker="w1")
    applied = await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1"))
    await store.release("w1")
    await store.aclose()
    store = await open_store()
    await store.beat("w2", lease_seconds=30)
    assert await store.claim_due("w2", limit=10) == [
        Held(prediction=applied.prediction, lease=toy.lease("w2", 2)),
    ]


async def test_the_same_worker_under_an_older_lease_writes_nothing(store: Store) -> None:
    """It slept, lost the prediction, and came by it again: what it began before must not go on."""
    await store.beat("w1", lease_seconds=30)
    [prediction] = await _created(store, worker="w1")
    await store.release("w1", [prediction.id])
    [held] = await store.claim_due("w1", limit=10)
    assert held.lease == toy.lease("w1", 2)
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w1", 1))
    assert (await store.apply(prediction.id, toy.begun("t"), lease=held.lease)).changed


async def test_who_creates_a_prediction_as_held_is_told_its_lease(store: Store) -> None:
    await store.beat("w1", lease_seconds=30)
    prediction = toy.prediction()
    assert (await store.create(prediction, worker="w1")).lease == toy.lease("w1")
    assert (await store.create(prediction, worker="w1")).lease is None  # the second time it is not ours to drive
    assert (await store.create(toy.prediction())).lease is None
