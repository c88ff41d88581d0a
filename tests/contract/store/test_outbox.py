"""The outbox in any store: a delivery is born with its change, sent by one at a time, and keeps its bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest

from gateway.contract.fact import Notify
from gateway.contract.prediction import Prediction
from gateway.store import _delivery, _delivery_walk, _redis_delivery, _redis_delivery_look, sqlite
from gateway.store.protocol import GIVEN_BACK, Delivery, Redelivery, Store, Try
from gateway.testing import ManualClock
from tests.contract.store import toy

HOOK = "https://Hooks.Example:8443/one?x=1"


async def _created(store: Store, webhook: str | None = HOOK, owner: str = "alice") -> Prediction:
    prediction = toy.prediction(webhook=webhook, owner=owner)
    await store.create(prediction)
    return prediction


async def _claim(
    store: Store, limit: int = 100, exclude: Iterable[str] = (), *, owner: str = "alice", worker: str = "sender"
) -> list[Delivery]:
    lanes = frozenset((owner, host) for host in exclude)
    return await store.claim_deliveries(worker, limit=limit, lease_seconds=10, exclude_lanes=lanes)


async def test_a_delivery_carries_the_snapshot_of_its_own_commit(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    applied = await store.apply(prediction.id, toy.succeeded("out"))
    [delivery] = await store.deliveries(prediction.id)
    assert delivery.body == toy.snapshot(applied.prediction)
    assert json.loads(delivery.body)["revision"] == 1
    digest = hashlib.sha256(f"{prediction.id}|completed|0".encode()).digest()
    assert delivery.id == "msg_" + base64.b32encode(digest).decode().lower()[:26]
    assert (delivery.prediction, delivery.owner, delivery.url) == (prediction.id, "alice", HOOK)
    assert (delivery.event, delivery.sequence, delivery.is_final) == ("completed", 0, True)
    assert (delivery.created_at, delivery.due_at, delivery.tries, delivery.ended) == (clock.now(), clock.now(), 0, None)
    assert applied.prediction.deliveries == 1


async def test_without_a_webhook_there_is_no_delivery(store: Store) -> None:
    prediction = await _created(store, webhook=None)
    applied = await store.apply(prediction.id, toy.succeeded())
    assert await store.deliveries(prediction.id) == []
    assert applied.prediction.deliveries == 0
    assert await store.next_delivery_at() is None


async def test_a_claimed_delivery_is_nobody_elses_until_its_lease_is_over(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [first] = await _claim(store)
    assert (first.fence, first.due_at) == (1, toy.START)
    assert await _claim(store) == []
    assert await store.next_delivery_at() == toy.START + timedelta(seconds=10)
    clock.advance(10)
    [second] = await _claim(store)
    assert (second.id, second.body, second.fence) == (first.id, first.body, 2)
    # The one whose lease ran out comes late: what it says is not recorded.
    assert await store.finish_delivery(first, ended="delivered", status=200) is False
    [unchanged] = await store.deliveries(prediction.id)
    assert (unchanged.ended, unchanged.tries, unchanged.last_status) == (None, 0, None)
    assert await store.finish_delivery(second, ended="delivered", status=204) is True
    [done] = await store.deliveries(prediction.id)
    assert (done.ended, done.tries, done.last_status) == ("delivered", 1, 204)
    assert await store.next_delivery_at() is None


async def test_a_try_is_recorded_once(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [claimed] = await _claim(store)
    again_at = clock.now() + timedelta(seconds=2)
    record = {"ended": None, "due_at": again_at, "status": 503, "error": "no"}
    results = await asyncio.gather(*(store.finish_delivery(claimed, **record) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    [delivery] = await store.deliveries(prediction.id)
    assert (delivery.tries, delivery.last_status, delivery.last_error, delivery.ended) == (1, 503, "no", None)
    assert delivery.history == (Try(at=clock.now(), status=503, error="no"),)
    assert await _claim(store) == []
    assert await store.next_delivery_at() == again_at
    clock.advance(2)
    [retried] = await _claim(store)
    assert (retried.id, retried.body, retried.tries) == (claimed.id, claimed.body, 1)
    assert await store.finish_delivery(retried, ended="exhausted") is True
    clock.advance(10_000)
    assert await _claim(store) == []


@pytest.mark.parametrize(("id", "fence"), [("msg_" + "a" * 26, 1), (None, 0), (None, 2)])
async def test_a_fence_nobody_holds_records_nothing(store: Store, id: str | None, fence: int) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [delivery] = await store.deliveries(prediction.id)
    if fence != 0:
        await _claim(store)
    held = msgspec.structs.replace(delivery, id=id or delivery.id, fence=fence)
    assert await store.finish_delivery(held, ended="delivered") is False
    [unchanged] = await store.deliveries(prediction.id)
    assert (unchanged.ended, unchanged.tries) == (None, 0)


async def test_no_delivery_is_claimed_by_two_and_the_oldest_come_first(store: Store, clock: ManualClock) -> None:
    order = []
    for _ in range(30):
        prediction = await _created(store)
        await store.apply(prediction.id, toy.succeeded())
        order.append(prediction.id)
        clock.advance(0.001)
    claims = await asyncio.gather(*(_claim(store, limit=7) for _ in range(8)))
    claimed = [[delivery.prediction for delivery in claim] for claim in claims]
    assert all(claim == [id for id in order if id in claim] for claim in claimed)
    assert sorted(id for claim in claimed for id in claim) == sorted(order)


async def test_excluded_hosts_are_passed_over_whatever_their_port_and_case(store: Store) -> None:
    for webhook in (HOOK, "http://[::1]:9/x", "https://other.example/"):
        await store.apply((await _created(store, webhook=webhook)).id, toy.succeeded())
    [free] = await _claim(store, exclude=("hooks.example", "::1"))
    assert free.url == "https://other.example/"
    assert [d.url for d in await _claim(store, limit=1, exclude=["hooks.example"])] == ["http://[::1]:9/x"]
    assert [d.url for d in await _claim(store)] == [HOOK]


async def test_many_excluded_hosts_do_not_stand_before_the_one_that_is_free(store: Store, clock: ManualClock) -> None:
    dead = [f"dead{n}.example" for n in range(9)]
    for host in (*dead, *dead, "free.example"):
        await store.apply((await _created(store, f"https://{host}/")).id, toy.succeeded())
        clock.advance(0.001)
    [claimed] = await _claim(store, limit=1, exclude=dead)
    assert claimed.url == "https://free.example/"
    assert await _claim(store, limit=1, exclude=dead) == []
    assert [d.url for d in await _claim(store, limit=1, exclude=dead[:-1])] == [f"https://{dead[-1]}/"]


async def test_what_is_left_out_is_one_owners_at_a_host_and_not_another_ones(store: Store, clock: ManualClock) -> None:
    for owner in ("alice", "alice", "bob", "carol"):
        await store.apply((await _created(store, owner=owner)).id, toy.succeeded())
        clock.advance(0.001)
    [first] = await _claim(store, limit=1, exclude=["hooks.example"])
    assert first.owner == "bob"
    assert [d.owner for d in await _claim(store, exclude=["hooks.example"])] == ["carol"]
    assert [d.owner for d in await _claim(store, exclude=["hooks.example"], owner="bob")] == ["alice", "alice"]


async def test_a_long_backlog_that_is_left_out_is_passed_bit_by_bit_and_once(
    store: Store, kind: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_delivery, _delivery_walk, _redis_delivery_look):
        monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(_redis_delivery_look, "_LEAST_PIECE", 3)
    for module in (sqlite, _redis_delivery):
        monkeypatch.setattr(module, "MOST_PIECES", 2)

    async def next_of_bob() -> tuple[Delivery, int]:
        for claims in range(1, 20):
            if found := await _claim(store, limit=1, exclude=["hooks.example"]):
                return found[0], claims
        pytest.fail("the next claim does not go on where the last has come to")

    for owner in (*["alice"] * 60, "bob"):
        await store.apply((await _created(store, owner=owner)).id, toy.succeeded())
        clock.advance(0.001)
    first, claims = await next_of_bob()
    assert first.owner == "bob"
    # The shards of a cluster are many, and each has few.
    assert claims == 1 if kind == "redis_cluster" else claims >= 7, "one claim looked at all of it"
    await store.apply((await _created(store, owner="bob")).id, toy.succeeded())
    later, claims = await next_of_bob()
    assert (later.owner, claims) == ("bob", 1), "what was passed over was looked at again"
    await store.release_deliveries([first])
    given, _ = await next_of_bob()
    assert given.id == first.id
    assert {d.owner for d in await _claim(store)} == {"alice"}


async def test_what_stands_behind_a_hundred_pieces_is_found_by_one_claim(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever claims rests after one that brings nothing: a hundred thousand rows were ten seconds of rests."""
    for module in (_delivery, _delivery_walk, _redis_delivery_look):
        monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(_redis_delivery_look, "_LEAST_PIECE", 3)
    for owner in (*["alice"] * 300, "bob"):
        await store.apply((await _created(store, owner=owner)).id, toy.succeeded())
        clock.advance(0.001)
    [found] = await _claim(store, limit=1, exclude=["hooks.example"])
    assert found.owner == "bob"


async def test_claims_given_back_are_anybodys_at_once_as_if_nobody_had_had_them(
    store: Store, clock: ManualClock
) -> None:
    ids = [(await _created(store)).id for _ in range(5)]
    for id in ids:
        await store.apply(id, toy.succeeded())
        clock.advance(0.1)
    mine = await _claim(store)
    clock.advance(1)
    await store.release_deliveries(mine[:3])
    assert await store.next_delivery_at() == mine[0].due_at == toy.START
    others = await _claim(store, worker="other")
    assert [(d.id, d.due_at, d.tries, d.body) for d in others] == [(d.id, d.due_at, 0, d.body) for d in mine[:3]]
    assert all(not d.may_have_been_sent and d.fence > mine[0].fence for d in others)
    # What was mine is not mine any more, and giving it back once more takes it from nobody.
    assert await store.finish_delivery(mine[0], ended="delivered") is False
    await store.release_deliveries(mine[:3])
    assert await _claim(store) == []
    assert all([await store.finish_delivery(d, ended="delivered", status=200) for d in others])


async def test_a_claim_that_came_back_by_itself_may_have_been_sent_and_one_given_back_not(
    store: Store, clock: ManualClock
) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    for _ in range(3):
        [mine] = await _claim(store)
        assert not mine.may_have_been_sent
        await store.release_deliveries([mine])
    await _claim(store)
    clock.advance(10)
    [lost] = await _claim(store)
    assert lost.may_have_been_sent
    await store.release_deliveries([lost])
    [still] = await _claim(store)
    assert still.may_have_been_sent, "that the one before gave it back says nothing of the one before that"


@pytest.mark.parametrize("late", ["fence", "id", "recorded", "free"])
async def test_a_stale_fence_gives_nothing_back(store: Store, clock: ManualClock, late: str) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [mine] = await _claim(store)
    if late == "fence":
        clock.advance(10)
        await _claim(store, worker="other")
    elif late == "id":
        mine = msgspec.structs.replace(mine, id="msg_" + "a" * 26)
    elif late == "recorded":
        await store.finish_delivery(mine, ended=None, due_at=clock.now() + timedelta(hours=1), status=500)
    else:
        await store.release_deliveries([mine])
        mine = msgspec.structs.replace(mine, fence=mine.fence + GIVEN_BACK - 1, due_at=mine.due_at - timedelta(1))
    before = await store.deliveries(prediction.id)
    await store.release_deliveries([mine])
    assert await store.deliveries(prediction.id) == before


async def test_one_that_was_superseded_meanwhile_is_not_given_back_to_be_sent(store: Store) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    given = await _claim(store)
    await store.apply(prediction.id, toy.succeeded())
    await store.release_deliveries(given)
    assert [d.event for d in await _claim(store)] == ["completed"]
    assert [d.ended for d in await store.deliveries(prediction.id)] == ["superseded", None]


async def test_the_end_supersedes_whatever_was_not_sent(store: Store) -> None:
    prediction = toy.prediction(webhook=HOOK)
    await store.create(prediction, effects=[Notify(event="start")])
    await store.apply(prediction.id, toy.said("a"))
    [start, output] = await _claim(store)
    await store.finish_delivery(start, ended="delivered", status=200)
    other = await _created(store)
    await store.apply(other.id, toy.said("b"))
    await store.apply(prediction.id, toy.succeeded())
    assert [(d.event, d.ended) for d in await store.deliveries(prediction.id)] == [
        ("start", "delivered"),
        ("output", "superseded"),
        ("completed", None),
    ]
    assert [d.ended for d in await store.deliveries(other.id)] == [None]
    # The one that was on its way when the end came: if it arrived, it arrived; it is not tried again.
    retry_at = toy.START + timedelta(seconds=1)
    assert await store.finish_delivery(output, ended=None, due_at=retry_at, status=500) is True
    assert [(d.ended, d.tries) for d in await store.deliveries(prediction.id)][1] == ("superseded", 1)


async def test_one_that_was_superseded_on_its_way_and_arrived_is_delivered(store: Store) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    [output] = await _claim(store)
    await store.apply(prediction.id, toy.succeeded())
    assert await store.finish_delivery(output, ended="delivered", status=200) is True
    assert [d.ended for d in await store.deliveries(prediction.id)] == ["delivered", None]


async def test_news_are_folded_into_the_one_that_waits(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    clock.advance(0.1)
    applied = await store.apply(prediction.id, toy.said("ab"))
    [delivery] = await store.deliveries(prediction.id)
    assert delivery.body == toy.snapshot(applied.prediction)
    assert (delivery.sequence, delivery.due_at, delivery.created_at) == (0, toy.START, toy.START)
    assert applied.prediction.deliveries == 1


async def test_a_claimed_one_keeps_its_bytes_and_the_next_waits_half_a_second(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    [sent] = await _claim(store)
    clock.advance(0.1)
    for output in ("ab", "abc"):
        await store.apply(prediction.id, toy.said(output))
    first, second = await store.deliveries(prediction.id)
    assert (first.id, first.body) == (sent.id, sent.body)
    assert (second.sequence, json.loads(second.body)["output"]) == (1, "abc")
    assert second.due_at == toy.START + timedelta(seconds=0.5)
    assert await _claim(store) == []
    clock.advance(0.4)
    [claimed] = await _claim(store)
    assert claimed.id == second.id
    # And so on: the third waits for the second's half second.
    await store.apply(prediction.id, toy.said("abcd"))
    assert (await store.deliveries(prediction.id))[2].due_at == toy.START + timedelta(seconds=1)


async def test_even_when_its_lease_is_over_the_bytes_that_may_have_been_sent_stay(
    store: Store, clock: ManualClock
) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    [sent] = await _claim(store)
    clock.advance(60)
    await store.apply(prediction.id, toy.said("ab"))
    first, _ = await store.deliveries(prediction.id)
    assert first.body == sent.body
    assert [d.sequence for d in await _claim(store)] == [0, 1]


async def test_after_a_pause_news_are_due_at_once(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("a"))
    [sent] = await _claim(store)
    await store.finish_delivery(sent, ended="delivered", status=200)
    clock.advance(3)
    await store.apply(prediction.id, toy.said("ab"))
    assert (await store.deliveries(prediction.id))[1].due_at == clock.now()


async def test_a_redelivery_is_the_same_delivery_as_if_it_had_never_been_tried(
    store: Store, clock: ManualClock
) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.said("half"))
    await store.apply(prediction.id, toy.succeeded())
    [first] = await _claim(store)
    assert await store.finish_delivery(first, ended="delivered", status=204)
    assert await _claim(store) == []
    clock.advance(86_400)
    assert await store.redeliver(prediction.id) is Redelivery.DUE
    [again] = await _claim(store)
    assert (again.id, again.body, again.url, again.sequence) == (first.id, first.body, first.url, first.sequence)
    assert (again.tries, again.ended) == (0, None)
    assert again.fence > first.fence
    assert not await store.finish_delivery(first, ended="exhausted")


async def test_one_that_waits_for_its_next_try_is_due_at_once(store: Store, clock: ManualClock) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [first] = await _claim(store)
    later = clock.now() + timedelta(hours=5)
    assert await store.finish_delivery(first, ended=None, due_at=later, error="down")
    assert await store.redeliver(prediction.id) is Redelivery.DUE
    assert [one.id for one in await _claim(store)] == [first.id]


async def test_what_is_being_sent_is_not_made_due_twice(store: Store) -> None:
    prediction = await _created(store)
    await store.apply(prediction.id, toy.succeeded())
    [first] = await _claim(store)
    assert await store.redeliver(prediction.id) is Redelivery.SENDING
    assert await _claim(store) == []
    assert await store.finish_delivery(first, ended="delivered")


async def test_without_a_delivery_of_the_end_there_is_nothing_to_send_again(store: Store) -> None:
    silent = await _created(store, webhook=None)
    await store.apply(silent.id, toy.succeeded())
    open_one = await _created(store)
    await store.apply(open_one.id, toy.said("half"))
    assert await store.redeliver(silent.id) is Redelivery.NONE
    assert await store.redeliver(open_one.id) is Redelivery.NONE
    assert await store.redeliver("nothing") is Redelivery.NONE


async def test_the_backlog_counts_what_waits_by_host_with_its_ages(store: Store, clock: ManualClock) -> None:
    assert await store.backlog() == []
    dead = await _created(store, "https://dead.example/x")
    await store.apply(dead.id, toy.succeeded())
    [first] = await _claim(store)
    await store.finish_delivery(first, ended=None, due_at=clock.now(), error="no route")
    clock.advance(700)
    for _ in range(2):
        late = await _created(store, "https://dead.example/y")
        await store.apply(late.id, toy.succeeded())
    clock.advance(30)
    fine = await _created(store, "https://fine.example/")
    await store.apply(fine.id, toy.succeeded())
    gone = await _created(store, "https://over.example/")
    await store.apply(gone.id, toy.succeeded())
    [over] = [one for one in await _claim(store) if one.prediction == gone.id]
    await store.finish_delivery(over, ended="delivered")
    first_host, second_host = await store.backlog()
    assert (first_host.host, first_host.waiting, first_host.failing) == ("dead.example", 3, 1)
    assert (first_host.ages, first_host.oldest_at, first_host.last_error) == ((0, 2, 0, 1), toy.START, "no route")
    assert (second_host.host, second_host.waiting, second_host.failing) == ("fine.example", 1, 0)
    assert (second_host.ages, second_host.last_error) == ((1, 0, 0, 0), None)
    assert [one.host for one in await store.backlog(limit=1)] == ["dead.example"]


async def test_the_backlog_says_what_a_host_that_answers_has_answered(store: Store, clock: ManualClock) -> None:
    one = await _created(store, "https://broken.example/x")
    await store.apply(one.id, toy.succeeded())
    [delivery] = await _claim(store)
    await store.finish_delivery(delivery, ended=None, due_at=clock.now(), status=500)
    [broken] = await store.backlog()
    assert (broken.host, broken.failing, broken.last_error) == ("broken.example", 1, "HTTP 500")
