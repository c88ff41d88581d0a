"""Predictions in any store: accepted once, changed by one door, all or nothing, found only by their owner."""

from __future__ import annotations

import asyncio

import pytest

from gateway.contract.clock import hash_token
from gateway.contract.errors import StoreOverloaded, StoreUnavailable
from gateway.contract.fact import LedgerEntry, Notify, StreamEvent
from gateway.contract.prediction import Status
from gateway.engine import lifecycle
from gateway.store.protocol import Created, Store
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore

HOOK = "https://hooks.example/one"


# -- create ----------------------------------------------------------------------------------------------------------


async def test_what_was_created_is_read_back_equal(store: Store) -> None:
    # Whatever JSON can say must survive, an integer beyond 64 bits and a NUL included.
    input = {"deep": [{"a": None, "b": 1.5}, [True]], "large": 10**30, "text": "a\0b é 🚂", "": -(2**63)}
    prediction = toy.prediction(input=input, webhook=HOOK)
    result = await store.create(prediction)
    assert result.outcome is Created.CREATED
    assert result.prediction == prediction
    assert await store.get(prediction.id) == prediction


async def test_what_was_created_and_applied_survives_a_restart(open_store: OpenStore) -> None:
    store = await open_store()
    open_, done = toy.prediction(input={"large": 10**30}), toy.prediction()
    for prediction in (open_, done):
        await store.create(prediction)
    await store.apply(open_.id, toy.begun("open"))
    await store.apply(done.id, toy.succeeded([{"n": 10**30}, "x" * 100_000]))
    kept = [await store.get(open_.id), await store.get(done.id)]
    await store.aclose()
    store = await open_store()
    assert [await store.get(open_.id), await store.get(done.id)] == kept
    assert [event.event for event in await store.events(done.id)] == ["output", "done"]
    # The engine goes on where it stopped: what it reads is what it left, not a copy without the attempt.
    again = await store.apply(open_.id, toy.said("more"))
    assert (again.prediction.revision, len(again.prediction.attempts)) == (2, 1)


async def test_the_same_key_and_body_give_the_first_prediction_again(store: Store) -> None:
    first, second = toy.prediction(), toy.prediction()
    await store.create(first, idempotency_key="k", body_hash="h")
    await store.apply(first.id, toy.said("so far"))
    result = await store.create(second, idempotency_key="k", body_hash="h")
    assert result.outcome is Created.SAME
    assert result.prediction == await store.get(first.id)
    assert result.prediction.output == "so far"
    assert await store.get(second.id) is None


async def test_the_same_key_with_another_body_is_a_conflict(store: Store) -> None:
    first, second = toy.prediction(), toy.prediction()
    await store.create(first, idempotency_key="k", body_hash="h")
    result = await store.create(second, idempotency_key="k", body_hash="other")
    assert (result.outcome, result.prediction) == (Created.CONFLICT, first)
    assert await store.get(second.id) is None


async def test_a_key_belongs_to_its_owner(store: Store) -> None:
    await store.create(toy.prediction(), idempotency_key="k", body_hash="h")
    result = await store.create(toy.prediction(owner="bob"), idempotency_key="k", body_hash="other")
    assert result.outcome is Created.CREATED


async def test_a_key_is_kept_for_a_day(store: Store, clock: ManualClock) -> None:
    await store.create(toy.prediction(), idempotency_key="k", body_hash="h")
    clock.advance(24 * 3600 - 1)
    await store.beat("w", lease_seconds=30)  # a chance to sweep
    assert (await store.create(toy.prediction(), idempotency_key="k", body_hash="h")).outcome is Created.SAME
    clock.advance(1)
    for sweeps in (False, True):
        if sweeps:
            clock.advance(24 * 3600)
            await store.beat("w", lease_seconds=30)
        fresh = toy.prediction()
        result = await store.create(fresh, idempotency_key="k", body_hash="another")
        assert (result.outcome, result.prediction) == (Created.CREATED, fresh)


async def test_of_many_creates_with_one_key_exactly_one_creates(store: Store) -> None:
    results = await asyncio.gather(
        *(store.create(toy.prediction(), idempotency_key="k", body_hash="h") for _ in range(100))
    )
    assert sorted(result.outcome for result in results) == ["created"] + ["same"] * 99
    assert len({result.prediction.id for result in results}) == 1
    page = await store.list_predictions(owner="alice")
    assert len(page.predictions) == 1


async def test_creating_one_twice_is_no_error_and_changes_nothing(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction, effects=(StreamEvent(event="logs", data="x"),))
    applied = await store.apply(prediction.id, toy.said("so far"))
    result = await store.create(prediction, effects=(StreamEvent(event="logs", data="x"),))
    assert (result.outcome, result.prediction) == (Created.SAME, applied.prediction)
    assert [event.event for event in await store.events(prediction.id)] == ["logs", "output"]


async def test_an_id_that_is_taken_by_another_prediction_is_refused(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    with pytest.raises(ValueError, match="taken"):
        await store.create(toy.prediction(id=prediction.id, owner="bob"))
    assert await store.get(prediction.id) == prediction


async def test_effects_of_a_create_are_written_with_it(store: Store) -> None:
    prediction = toy.prediction(webhook=HOOK)
    effects = (StreamEvent(event="logs", data="accepted"), Notify(event="start"))
    result = await store.create(prediction, effects=effects)
    assert (result.prediction.events, result.prediction.deliveries) == (1, 1)
    assert [event.data for event in await store.events(prediction.id)] == ["accepted"]
    assert [delivery.event for delivery in await store.deliveries(prediction.id)] == ["start"]
    assert await store.get(prediction.id) == result.prediction


# -- apply -----------------------------------------------------------------------------------------------------------


async def test_a_change_is_seen_by_every_read_once_apply_returns(store: Store) -> None:
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    await store.apply(prediction.id, toy.begun("t"))
    applied = await store.apply(prediction.id, toy.succeeded("out"))
    assert applied.changed
    assert applied.prediction.status is Status.SUCCEEDED
    assert await store.get(prediction.id, owner="alice") == applied.prediction
    assert (await store.list_predictions(owner="alice")).predictions == (applied.prediction,)
    assert [(e.sequence, e.event, e.data) for e in await store.events(prediction.id)] == [
        (0, "output", "out"),
        (1, "done", "{}"),
    ]
    [row] = await store.ledger(prediction.id)
    assert (row.state, row.nanos, row.owner, row.provider, row.at) == (
        "settled",
        2_000_000,
        "alice",
        "north",
        toy.START,
    )
    assert len(await store.deliveries(prediction.id)) == 1


async def test_a_happening_that_says_nothing_new_writes_nothing(store: Store) -> None:
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction)
    first = await store.apply(prediction.id, toy.said("x"))
    for happening in (toy.said("x"), toy.NOTHING):
        again = await store.apply(prediction.id, happening)
        assert (again.changed, again.effects, again.prediction) == (False, (), first.prediction)
    assert await store.get(prediction.id) == first.prediction
    assert len(await store.events(prediction.id)) == 1
    assert len(await store.deliveries(prediction.id)) == 1


async def test_the_revision_counts_changes_and_the_events_have_no_gaps(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    for n in range(5):
        applied = await store.apply(prediction.id, toy.said("x" * (n + 1)))
        await store.apply(prediction.id, toy.NOTHING)
        assert (applied.prediction.revision, applied.prediction.events) == (n + 1, n + 1)
    assert [event.sequence for event in await store.events(prediction.id)] == [0, 1, 2, 3, 4]
    assert [event.sequence for event in await store.events(prediction.id, after=2)] == [3, 4]
    assert [event.sequence for event in await store.events(prediction.id, after=0, limit=2)] == [1, 2]


async def test_apply_to_an_unknown_id_is_a_key_error_and_harms_nobody_beside_it(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    results = await asyncio.gather(
        store.apply(prediction.id, toy.said("a")),
        store.apply("0" * 26, toy.said("a")),
        store.apply(prediction.id, toy.said("b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], KeyError)
    assert (await store.get(prediction.id)).output == "b"


async def test_a_change_that_fails_half_way_leaves_nothing_of_it(store: Store) -> None:
    broken, sound = toy.prediction(webhook=HOOK), toy.prediction(webhook=HOOK)
    for prediction in (broken, sound):
        await store.create(prediction)
    before = await store.get(broken.id)
    # Its event and its money are written when its delivery's body turns out to be impossible.
    results = await asyncio.gather(
        store.apply(sound.id, toy.said("one")),
        store.apply(broken.id, toy.given_up()),
        store.apply(sound.id, toy.said("two")),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    assert await store.get(broken.id) == before
    assert await store.events(broken.id) == []
    assert await store.ledger(broken.id) == []
    assert await store.deliveries(broken.id) == []
    # Those who were committed together with it are whole, and written once.
    kept = await store.get(sound.id)
    assert (kept.output, kept.revision, kept.events) == ("two", 2, 2)
    assert [event.data for event in await store.events(sound.id)] == ["one", "two"]
    # And it can go on as if nothing had been.
    assert (await store.apply(broken.id, toy.said("later"))).prediction.revision == 1


async def test_a_create_that_fails_half_way_leaves_nothing_of_it(store: Store) -> None:
    broken = toy.prediction(webhook=HOOK, error=toy.BROKEN.message)
    with pytest.raises(ValueError, match="no body"):
        await store.create(broken, idempotency_key="k", body_hash="h", effects=(Notify(event="start"),))
    assert await store.get(broken.id) is None
    sound = toy.prediction()
    assert (await store.create(sound, idempotency_key="k", body_hash="x")).outcome is Created.CREATED


async def test_the_ledger_has_one_row_for_each_attempt(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(
        prediction,
        effects=[
            LedgerEntry(attempt=2, offer="o", provider="p", state="reserved", nanos=None, basis="unknown"),
            LedgerEntry(attempt=2, offer="o", provider="p", state="released", nanos=0, basis="reported"),
            LedgerEntry(attempt=1, offer="o", provider="p", state="maybe", nanos=7, basis="expected"),
        ],
    )
    assert [(row.attempt, row.state, row.nanos) for row in await store.ledger(prediction.id)] == [
        (1, "maybe", 7),
        (2, "released", 0),
    ]


async def test_a_thousand_concurrent_changes_are_each_made_once_and_in_order(store: Store) -> None:
    predictions = [toy.prediction() for _ in range(20)]
    await asyncio.gather(*(store.create(prediction) for prediction in predictions))
    results = await asyncio.gather(
        *(store.apply(prediction.id, toy.said(str(n))) for n in range(50) for prediction in predictions)
    )
    assert all(result.changed for result in results)
    for prediction in predictions:
        assert (await store.get(prediction.id)).revision == 50
        events = await store.events(prediction.id)
        assert [(event.sequence, event.data) for event in events] == [(n, str(n)) for n in range(50)]


async def test_cancelling_who_waits_does_not_cancel_the_commit(store: Store) -> None:
    prediction = toy.prediction()
    creating = asyncio.ensure_future(store.create(prediction))
    await asyncio.sleep(0)
    creating.cancel()
    applying = [asyncio.ensure_future(store.apply(prediction.id, toy.said(str(n)))) for n in range(20)]
    await asyncio.sleep(0)
    for task in applying:
        task.cancel()
    outcomes = await asyncio.gather(creating, *applying, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    # What is queued later is committed later: by then the others are in.
    last = await store.apply(prediction.id, toy.said("last"))
    assert last.prediction.revision == 21
    assert [event.data for event in await store.events(prediction.id)] == [*(str(n) for n in range(20)), "last"]


async def test_more_writes_than_the_queue_holds_are_refused_and_leave_no_trace(open_store: OpenStore) -> None:
    store = await open_store(max_queue=10)
    predictions = [toy.prediction() for _ in range(500)]
    results = await asyncio.gather(*(store.create(prediction) for prediction in predictions), return_exceptions=True)
    refused = [p for p, result in zip(predictions, results, strict=True) if isinstance(result, StoreOverloaded)]
    accepted = [p for p, result in zip(predictions, results, strict=True) if not isinstance(result, Exception)]
    assert refused
    assert len(accepted) >= 10
    assert len(accepted) + len(refused) == 500
    assert [await store.get(prediction.id) for prediction in refused] == [None] * len(refused)
    assert [await store.get(prediction.id) for prediction in accepted] == accepted
    await store.create(toy.prediction())  # and then there is room again


async def test_what_is_queued_at_the_close_is_committed_and_later_verbs_are_refused(open_store: OpenStore) -> None:
    store = await open_store()
    predictions = [toy.prediction() for _ in range(200)]
    creating = [asyncio.ensure_future(store.create(prediction)) for prediction in predictions]
    await asyncio.sleep(0)
    await store.aclose()
    await asyncio.gather(*creating)
    await store.aclose()
    for verb in (
        store.create(toy.prediction()),
        store.get(predictions[0].id),
        store.list_predictions(owner="alice"),
        store.check(),
    ):
        with pytest.raises(StoreUnavailable):
            await verb
    store = await open_store()
    assert [await store.get(prediction.id) for prediction in predictions] == predictions


# -- finding ---------------------------------------------------------------------------------------------------------


async def test_a_callback_token_finds_its_attempt_once_the_intent_is_committed(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    assert await store.find_attempt(hash_token("one")) is None
    await store.apply(prediction.id, toy.begun("one"))
    await store.apply(prediction.id, toy.begun("two", number=2))
    assert await store.find_attempt(hash_token("one")) == (prediction.id, 1)
    assert await store.find_attempt(hash_token("two")) == (prediction.id, 2)
    await store.apply(prediction.id, toy.succeeded())
    assert await store.find_attempt(hash_token("one")) == (prediction.id, 1)
    assert await store.find_attempt(hash_token("")) is None


async def test_a_callback_token_is_nobody_elses(store: Store) -> None:
    first, second = toy.prediction(), toy.prediction()
    for prediction in (first, second):
        await store.create(prediction)
    await store.apply(first.id, toy.begun("same"))
    with pytest.raises(Exception):  # noqa: B017 - which one is the store's affair: it is a programming error
        await store.apply(second.id, toy.begun("same"))
    assert await store.find_attempt(hash_token("same")) == (first.id, 1)
    assert (await store.get(second.id)).attempts == ()


async def test_a_stream_token_finds_its_prediction(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    assert await store.find_stream(prediction.stream_token) == prediction.id
    assert await store.find_stream(prediction.id) is None


async def test_a_foreign_prediction_is_as_good_as_none(store: Store) -> None:
    mine, done = toy.prediction(), toy.prediction()
    for prediction in (mine, done):
        await store.create(prediction)
    await store.apply(done.id, toy.succeeded())
    for prediction in (mine, done):
        assert await store.get(prediction.id, owner="bob") is None
        assert await store.get(prediction.id, owner="") is None
        assert await store.get(prediction.id, owner="alice") is not None
        assert await store.get(prediction.id) is not None
    assert (await store.list_predictions(owner="bob")).predictions == ()


async def test_nothing_is_known_of_an_id_that_does_not_exist(store: Store) -> None:
    assert await store.get("0" * 26) is None
    assert await store.events("0" * 26) == []
    assert await store.ledger("0" * 26) == []
    assert await store.deliveries("0" * 26) == []


# -- with the real lifecycle -----------------------------------------------------------------------------------------


async def test_the_real_lifecycle_goes_through_it_to_its_end(open_store: OpenStore, clock: ManualClock) -> None:
    store = await open_store(reduce=lifecycle.reduce)
    prediction = toy.prediction(webhook=HOOK)
    await store.beat("w", lease_seconds=30)
    await store.create(prediction, worker="w")
    await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w"))
    assert [row.state for row in await store.ledger(prediction.id)] == ["reserved"]
    await store.apply(prediction.id, toy.said(["a ", "b "]))
    clock.advance(2)
    done = await store.apply(prediction.id, toy.succeeded(["a ", "b ", "c"]))
    assert (await store.apply(prediction.id, toy.succeeded(["a ", "b ", "c"]))).changed is False
    assert (await store.apply(prediction.id, toy.given_up())).changed is False
    kept = await store.get(prediction.id)
    assert kept == done.prediction
    assert (kept.status, kept.output, kept.winner) == (Status.SUCCEEDED, ["a ", "b ", "c"], 1)
    assert [event.data for event in await store.events(prediction.id)] == ["a b ", "c", "{}"]
    assert [row.state for row in await store.ledger(prediction.id)] == ["settled"]
    assert [(d.event, d.ended) for d in await store.deliveries(prediction.id)] == [
        ("output", "superseded"),
        ("completed", None),
    ]
    clock.advance(60)
    assert await store.claim_due("other", limit=10) == []
