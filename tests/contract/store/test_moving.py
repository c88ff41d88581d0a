"""What is read out of one store and written into another is there as it was, but for who held it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.contract.clock import hash_token
from gateway.contract.errors import LeaseLost
from gateway.contract.prediction import Prediction
from gateway.store.protocol import (
    AuditRow,
    Created,
    KeptAudit,
    KeptFile,
    KeptReservation,
    KeptSpending,
    Record,
    Setting,
    Store,
    Whole,
)
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.test_budget import CENT, EU, hold, money, sums
from tests.contract.store.test_retention import file

HOOK = "https://hooks.example/"


@pytest.fixture
async def elsewhere(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    other = await SqliteStore.open(
        tmp_path / "elsewhere.db", reduce=toy.reduce, snapshot=toy.snapshot, clock=clock, max_queue=5_000
    )
    yield other
    await other.aclose()


async def fill(store: Store, clock: ManualClock) -> dict[str, Prediction]:
    """One of each kind; by what it is."""
    await store.beat("old", lease_seconds=86_400)
    await store.setting("webhook.secret", "whsec_x")
    await store.setting("link.key", "y")
    await store.put_file(file("f", days=1))
    for outcome in ("begun", "done"):
        await store.put_audit(
            AuditRow(at=toy.START, who="ops", action="breaker.open", target=outcome, reason="r", outcome=outcome)
        )
    for number, holds in ((1, (EU,)), (2, (EU, hold("both", per="hour")))):
        assert await store.reserve(money(number, 3 * CENT, *holds, fence=7)) is None
    await store.settle(money(1, 0).id, 2 * CENT, revision=1)
    held, waiting, put_off, ended = (
        toy.prediction(webhook=HOOK, input={"text": "ä\u2028\x00", "big": 2**80, "f": 1.5, "n": None}),
        toy.prediction(owner="bob"),
        toy.prediction(),
        toy.prediction(webhook=HOOK),
    )
    await store.create(held, idempotency_key="held", body_hash="h", worker="old")
    await store.apply(held.id, toy.begun("token"))
    await store.apply(held.id, toy.said({"deep": [1, {"x": "y"}], "big": -(2**70)}))
    await store.create(waiting)
    await store.create(put_off)
    await store.apply(put_off.id, toy.CancelRequested())
    await store.create(ended, idempotency_key="ended", body_hash="e")
    await store.apply(ended.id, toy.begun("other"))
    await store.apply(ended.id, toy.said("one"))
    [*claimed] = await store.claim_deliveries("old", limit=10, lease_seconds=60)
    assert len(claimed) == 2
    assert await store.finish_delivery(claimed[0], ended=None, due_at=clock.now(), status=500, error="no")
    await store.apply(ended.id, toy.succeeded())
    return {"held": held, "waiting": waiting, "put_off": put_off, "ended": ended}


async def read_out(store: Store) -> list[Record]:
    """In an order of our own: a store gives its records in any."""
    records = [_unclaimed(record) async for record in store.dump()]
    return sorted(records, key=lambda record: (type(record).__name__, repr(_key(record))))


def _key(record: Record) -> object:
    match record:
        case Whole():
            return record.prediction.id
        case Setting():
            return record.name
        case KeptFile() | KeptAudit() | KeptReservation():
            return record.row.id
        case KeptSpending():
            return record.row.counter


def _unclaimed(record: Record) -> Record:
    """When the claim of a delivery is over is no part of what is moved: whoever has it is not there. Nor are fences."""
    if isinstance(record, KeptReservation):
        return replace(record, row=replace(record.row, fence=0))
    if not isinstance(record, Whole):
        return record
    return replace(
        record, deliveries=tuple(replace(one, due_at=toy.START, fence=min(one.fence, 1)) for one in record.deliveries)
    )


async def test_what_goes_from_here_to_there_and_back_is_the_same(
    store: Store, elsewhere: Store, clock: ManualClock
) -> None:
    await fill(store, clock)
    here = await read_out(store)
    assert [type(record).__name__ for record in here] == [
        *["KeptAudit"] * 2,
        "KeptFile",
        *["KeptReservation"] * 2,
        *["KeptSpending"] * 2,
        *["Setting"] * 2,
        *["Whole"] * 4,
    ]
    await elsewhere.load([record async for record in store.dump()])
    assert await read_out(elsewhere) == here
    await store.load([record async for record in elsewhere.dump()])
    assert await read_out(store) == here


async def test_what_came_from_elsewhere_goes_on_here(store: Store, elsewhere: Store, clock: ManualClock) -> None:
    made = await fill(elsewhere, clock)
    async for record in elsewhere.dump():
        await store.load([record])
    held, ended = made["held"], made["ended"]
    for prediction in made.values():
        assert await store.get(prediction.id) == await elsewhere.get(prediction.id)
        assert await store.events(prediction.id) == await elsewhere.events(prediction.id)
        assert await store.ledger(prediction.id) == await elsewhere.ledger(prediction.id)
        assert await store.find_stream(prediction.stream_token) == prediction.id
    assert await store.find_attempt(hash_token("token")) == (held.id, 1)
    assert (await store.list_predictions(owner="bob")).predictions == (made["waiting"],)
    # The keys stand for what they stood for, and only that long.
    again = await store.create(toy.prediction(), idempotency_key="held", body_hash="h")
    assert (again.outcome, again.prediction.id) == (Created.SAME, held.id)
    assert (await store.create(toy.prediction(), idempotency_key="ended", body_hash="?")).outcome is Created.CONFLICT
    # Nobody holds anything; what is not due yet is not handed out yet.
    await store.beat("new", lease_seconds=3_600)
    assert {one.prediction.id for one in await store.claim_due("new", limit=10)} == {held.id, made["waiting"].id}
    clock.advance(61)
    assert [one.prediction.id for one in await store.claim_due("new", limit=10)] == [made["put_off"].id]
    clock.advance(timedelta(hours=1).total_seconds())
    deliveries = await store.claim_deliveries("new", limit=10, lease_seconds=60)
    assert {(one.prediction, one.event) for one in deliveries} == {(held.id, "output"), (ended.id, "completed")}
    [tried] = [one for one in await store.deliveries(ended.id) if one.history] or [
        one for one in await store.deliveries(held.id) if one.history
    ]
    assert (tried.history[0].status, tried.history[0].error, tried.tries) == (500, "no", 1)
    assert all([await store.finish_delivery(one, ended="delivered", status=200) for one in deliveries])
    # Budgets go on counting where they were; who held what there says nothing of who holds it here.
    assert (
        await sums(store) == await sums(elsewhere) == {"eu/day": (2 * CENT, 3 * CENT, 1), "both/hour": (0, 3 * CENT, 1)}
    )
    assert await store.reserve(money(2, 4 * CENT, fence=1)) is None
    assert await sums(store) == {"eu/day": (2 * CENT, 4 * CENT, 1), "both/hour": (0, 0, 0)}
    await store.settle(money(2, 0).id, 1 * CENT, revision=1)
    await store.settle(money(1, 0).id, 3 * CENT, revision=2)
    assert await sums(store) == {"eu/day": (4 * CENT, 0, 0), "both/hour": (0, 0, 0)}
    assert await store.forget_spending(before=clock.now() + timedelta(days=9)) == 4
    # And the rest.
    assert await store.setting("webhook.secret", "another") == "whsec_x"
    assert await store.get_file("f", owner="alice") == file("f", days=1)
    audit = await store.audit()
    assert [row.target for row in audit] == ["done", "begun"]
    new = await store.put_audit(replace(audit[0], id=0, target="next"))
    assert new.id > audit[0].id
    clock.advance(timedelta(hours=24).total_seconds())
    await store.beat("new", lease_seconds=30)
    fresh = await store.create(toy.prediction(), idempotency_key="held", body_hash="h")
    assert fresh.outcome is Created.CREATED
    assert await store.expire_files() == [file("f", days=1)]
    assert await store.aged(before=clock.now()) == [ended.id]


async def test_loading_twice_is_as_good_as_once(store: Store, elsewhere: Store, clock: ManualClock) -> None:
    await fill(elsewhere, clock)
    records = [record async for record in elsewhere.dump()]
    await store.load(records)
    once = await read_out(store)
    await store.load(records)
    assert await read_out(store) == once


async def test_what_is_loaded_takes_the_place_of_what_was_known(
    store: Store, elsewhere: Store, clock: ManualClock
) -> None:
    prediction = toy.prediction(webhook=HOOK)
    for one in (store, elsewhere):
        await one.create(prediction, idempotency_key="k", body_hash="h")
    await store.apply(prediction.id, toy.begun("lost"))
    await store.apply(prediction.id, toy.said("here"))
    await elsewhere.apply(prediction.id, toy.begun("kept"))
    await store.load([record async for record in elsewhere.dump()])
    assert await store.get(prediction.id) == await elsewhere.get(prediction.id)
    assert await store.events(prediction.id) == []
    assert await store.deliveries(prediction.id) == []
    assert await store.find_attempt(hash_token("lost")) is None
    assert await store.find_attempt(hash_token("kept")) == (prediction.id, 1)
    applied = await store.apply(prediction.id, toy.succeeded())
    assert applied.prediction.revision == 2
    assert [event.sequence for event in await store.events(prediction.id)] == [0, 1]
    assert await read_out(store) != await read_out(elsewhere)


async def test_whoever_held_what_is_loaded_over_holds_it_no_more(store: Store, elsewhere: Store) -> None:
    prediction = toy.prediction()
    await elsewhere.create(prediction)
    await store.beat("old", lease_seconds=3_600)
    lease = (await store.create(prediction, worker="old")).lease
    assert lease is not None
    await store.load([record async for record in elsewhere.dump()])
    with pytest.raises(LeaseLost):
        await store.apply(prediction.id, toy.begun("t"), lease=lease)
    [held] = await store.claim_due("new", limit=10)
    assert held.prediction == prediction
    assert (await store.apply(prediction.id, toy.begun("t"), lease=held.lease)).changed


async def test_a_dump_goes_through_more_than_one_look_holds(store: Store, elsewhere: Store) -> None:
    made = [toy.prediction(input={"image": "x" * 100_000}) for _ in range(60)]
    made += [toy.prediction() for _ in range(250)]
    for prediction in made:
        await store.create(prediction)
    await store.put_file(file("f", days=1))
    records = [record async for record in store.dump()]
    assert sorted(record.prediction.id for record in records if isinstance(record, Whole)) == sorted(
        one.id for one in made
    )
    for start in range(0, len(records), 50):
        await elsewhere.load(records[start : start + 50])
    assert await read_out(elsewhere) == await read_out(store)
