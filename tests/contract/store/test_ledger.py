"""Which predictions have money that nobody knows of."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.contract.fact import Happening, LedgerEntry
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Reduction
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore


class Money(toy.Begun, kw_only=True, frozen=True):
    """Sets the row of the attempt it brings to `state`."""

    state: str


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    if not isinstance(happening, Money):
        return toy.reduce(prediction, happening, now)
    attempt = happening.attempt
    entry = LedgerEntry(
        attempt=attempt.number,
        offer=attempt.offer,
        provider=attempt.provider,
        state=happening.state,
        nanos=None,
        basis="unknown",
    )
    return Reduction(prediction=replace(prediction, logs=prediction.logs + "."), effects=(entry,))


def money(state: str, number: int = 1) -> Money:
    return Money(attempt=toy.begun("any", number).attempt, state=state)


async def test_maybes_are_the_newest_first_each_once_until_they_are_known(open_store: OpenStore) -> None:
    store = await open_store(reduce=reduce)
    old, middle, new, sure = [
        toy.prediction(created_at=toy.START + timedelta(seconds=second)) for second in (0, 10, 20, 30)
    ]
    for one in (middle, sure, new, old):
        await store.create(one)
        await store.apply(one.id, money("reserved"))
    assert await store.maybes() == []
    for one in (middle, new, old):
        await store.apply(one.id, money("maybe"))
        await store.apply(one.id, money("maybe", 2))
    await store.apply(sure.id, money("settled"))
    assert await store.maybes() == [new.id, middle.id, old.id]
    assert await store.maybes(limit=2) == [new.id, middle.id]
    assert await store.maybes(created_after=middle.created_at) == [new.id, middle.id]
    assert await store.maybes(created_after=middle.created_at + timedelta(microseconds=1)) == [new.id]
    await store.apply(new.id, money("settled"))
    assert await store.maybes() == [new.id, middle.id, old.id]  # its second one is still unknown
    await store.apply(new.id, money("released", 2))
    assert await store.maybes() == [middle.id, old.id]


async def test_of_one_moment_the_ids_decide(open_store: OpenStore) -> None:
    store = await open_store(reduce=reduce)
    ids = sorted((toy.prediction().id for _ in range(5)), reverse=True)
    for id in ids[::2] + ids[1::2]:
        await store.create(toy.prediction(id=id))
        await store.apply(id, money("maybe"))
    assert await store.maybes() == ids
    assert await store.maybes(limit=3) == ids[:3]
