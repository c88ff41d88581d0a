"""POSTs that come again because a connection broke run once; equal POSTs that are meant run each time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from gateway.api import Repeats, recall
from gateway.api.repeat import ANSWERED_SECONDS, Posting
from gateway.contract.errors import StoreUnavailable
from tests.unit.api.fakes import ALICE, BOB, VERSION, Peer, World

BODY = msgspec.json.encode({"version": VERSION, "input": {"prompt": "hi"}})


def poster(world: World, token: str = ALICE.text, body: bytes = BODY, **headers: str) -> Peer:
    return Peer(world, "POST", "/v1/predictions", body=body, authorization=f"Bearer {token}", **headers)


async def test_equal_posts_over_sound_connections_are_separate_predictions(world: World) -> None:
    world.engine.held = asyncio.Event()
    peers = [poster(world, **({"x_stainless_retry_count": "0"} if number % 2 else {})) for number in range(6)]
    tasks = [asyncio.create_task(peer.run()) for peer in peers]
    for _ in range(10):  # all six are under way at once
        await asyncio.sleep(0)
    world.engine.held.set()
    await asyncio.gather(*tasks)
    later = poster(world)
    await later.run()
    assert len({peer.json["id"] for peer in (*peers, later)}) == len(world.store.predictions) == 7


async def test_a_post_after_one_that_broke_while_it_waited_gets_its_prediction(world: World) -> None:
    world.engine.wait_held = asyncio.Event()
    first = poster(world, prefer="wait")
    running = asyncio.create_task(first.run())
    await world.engine.is_waited_for.wait()
    first.gone.set()
    second = poster(world)  # while the first is still being served
    await second.run()
    assert second.json["id"] == world.only.id
    assert (b"turnout-repeat", b"true") in second.sent[0]["headers"]
    world.engine.wait_held.set()
    await running
    third = poster(world)  # sound, and nothing is owed any more
    await third.run()
    assert third.json["id"] != second.json["id"]


async def test_a_post_after_one_that_broke_before_its_prediction_was_stored_waits_for_it(world: World) -> None:
    world.engine.held = asyncio.Event()
    first = poster(world)
    tasks = [asyncio.create_task(first.run())]
    await world.engine.entered.wait()
    first.gone.set()
    second = poster(world)
    tasks.append(asyncio.create_task(second.run()))
    for _ in range(10):
        await asyncio.sleep(0)
    world.engine.held.set()
    await asyncio.gather(*tasks)
    assert second.json["id"] == world.only.id


async def test_six_posts_in_a_row_whose_connections_all_break_run_once(world: World) -> None:
    world.engine.held = asyncio.Event()
    tasks = []
    for _ in range(6):
        peer = poster(world)
        tasks.append(asyncio.create_task(peer.run()))
        for _ in range(5):
            await asyncio.sleep(0)
        peer.gone.set()
    world.engine.held.set()
    await asyncio.gather(*tasks)
    last = poster(world)
    await last.run()
    assert last.json["id"] == world.only.id


async def test_a_first_post_that_was_never_stored_leaves_the_second_to_be_run(world: World) -> None:
    world.engine.held = asyncio.Event()
    world.engine.failures = [StoreUnavailable("full")]
    first = poster(world)
    running = asyncio.create_task(first.run())
    await world.engine.entered.wait()
    first.gone.set()
    second = poster(world)
    again = asyncio.create_task(second.run())
    for _ in range(10):
        await asyncio.sleep(0)
    world.engine.held.set()
    await asyncio.gather(running, again)
    assert second.status == 201
    assert second.json["id"] == world.only.id


async def test_what_broke_is_owed_for_a_minute_and_once(world: World) -> None:
    first = poster(world)
    first.gone.set()
    await first.run()
    world.clock.advance(59)
    second = poster(world)
    await second.run()
    assert second.json["id"] == world.only.id
    third = poster(world)
    third.gone.set()
    await third.run()
    assert len(world.store.predictions) == 2
    world.clock.advance(61)
    late = poster(world)
    await late.run()
    assert len(world.store.predictions) == 3


@pytest.mark.parametrize("change", ["owner", "body", "path"])
async def test_only_the_same_caller_path_and_body_repeats(world: World, change: str) -> None:
    body = msgspec.json.encode({"input": {"prompt": "hi"}})
    first = Peer(world, "POST", "/v1/models/acme/writer/predictions", body=body, authorization=f"Bearer {ALICE.text}")
    first.gone.set()
    await first.run()
    second = Peer(
        world,
        "POST",
        f"/v1/models/acme/{'painter' if change == 'path' else 'writer'}/predictions",
        body=body + b" " if change == "body" else body,
        authorization=f"Bearer {BOB.text if change == 'owner' else ALICE.text}",
    )
    await second.run()
    assert second.status == 201
    assert len(world.store.predictions) == 2


async def test_a_client_that_says_it_repeats_gets_its_prediction_though_the_connection_looked_sound(
    world: World,
) -> None:
    first = poster(world, x_stainless_retry_count="0")
    await first.run()
    world.clock.advance(100)
    for count in ("1", "2"):
        again = poster(world, x_stainless_retry_count=count)
        await again.run()
        assert again.json["id"] == first.json["id"]
    world.clock.advance(130)
    meant = poster(world, x_stainless_retry_count="0")
    await meant.run()
    assert meant.json["id"] != first.json["id"]


async def test_a_repeat_that_says_so_joins_the_first_while_it_is_still_held(world: World) -> None:
    world.engine.wait_held = asyncio.Event()
    first = poster(world, prefer="wait", x_stainless_retry_count="0")
    running = asyncio.create_task(first.run())
    await world.engine.is_waited_for.wait()
    second = poster(world, x_stainless_retry_count="1")
    await second.run()
    world.engine.wait_held.set()
    await running
    assert second.json["id"] == first.json["id"] == world.only.id


async def test_an_idempotency_key_leaves_it_to_the_store(world: World) -> None:
    first = poster(world, idempotency_key="a")
    first.gone.set()
    await first.run()
    other = poster(world, idempotency_key="b")
    await other.run()
    assert len(world.store.predictions) == 2


async def test_after_a_crash_what_is_open_since_the_last_minute_counts_as_unanswered(world: World) -> None:
    lost = poster(world)
    await lost.run()
    world.clock.advance(61)
    fresh = poster(world, body=BODY + b"\n")
    await fresh.run()

    restarted = born_again(world, after_seconds=5)
    assert await recalled(restarted) == 1
    again = poster(restarted, body=BODY + b"\n")
    await again.run()
    assert again.json["id"] == fresh.json["id"]
    old = poster(restarted)
    await old.run()
    assert old.json["id"] != lost.json["id"]


def born_again(world: World, *, after_seconds: float) -> World:
    """A second process over the same store, started so long after the first one's last word."""
    world.clock.advance(after_seconds)
    again = World(world.files.folder)
    again.store.predictions = dict(world.store.predictions)
    again.clock.advance((world.clock.now() - again.clock.now()).total_seconds())
    again.ids = again.engine.ids = type(again.ids)(8)
    return again


async def recalled(world: World) -> int:
    context = world.context
    at, now = world.clock.now(), world.clock.monotonic()
    return await recall(context.repeats, context.store, owners=context.keys, at=at, now=now)


async def test_a_wait_whose_end_was_stored_and_whose_reply_the_crash_took_is_not_run_again(world: World) -> None:
    lost = poster(world, prefer="wait")
    await lost.run()
    assert world.only.is_terminal
    again = born_again(world, after_seconds=10)
    assert await recalled(again) == 1
    repeat = poster(again, prefer="wait")
    await repeat.run()
    assert repeat.json["id"] == world.only.id
    meant = poster(again, prefer="wait")
    await meant.run()
    assert meant.json["id"] != world.only.id


async def test_what_ended_before_the_crash_was_answered_and_its_like_is_a_new_one(world: World) -> None:
    long = poster(world, body=BODY + b"\n")  # open for as long as we look
    await long.run()
    answered = poster(world, prefer="wait")
    await answered.run()
    world.clock.advance(2.1)
    newest = poster(world, token=BOB.text)  # still open: the process lived on
    await newest.run()
    again = born_again(world, after_seconds=1)
    assert await recalled(again) == 2
    expected = ((poster(again, prefer="wait"), None), (poster(again, token=BOB.text), newest))
    for peer, first in (*expected, (poster(again, body=BODY + b"\n"), long)):
        await peer.run()
        if first is None:
            assert peer.json["id"] not in world.store.predictions
        else:
            assert peer.json["id"] == first.json["id"]


async def test_what_ended_long_before_the_start_was_answered_though_nothing_followed(world: World) -> None:
    await poster(world, prefer="wait").run()
    again = born_again(world, after_seconds=15.1)
    assert await recalled(again) == 0
    meant = poster(again)
    await meant.run()
    assert meant.json["id"] != world.only.id


async def test_after_a_crash_more_than_a_page_is_recalled(world: World) -> None:
    for number in range(130):
        await poster(world, body=BODY + b" " * number).run()
    repeats = Repeats()
    at, now = world.clock.now(), world.clock.monotonic()
    assert await recall(repeats, world.store, owners=["alice", "bob"], at=at, now=now) == 130  # type: ignore[arg-type]


async def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(most=3)
    for number in range(10):
        posting = Posting(f"f{number}", lambda: True, tells_retries=False)
        repeats.begin(posting)
        posting.settle(f"p{number}")
        repeats.end(posting, is_broken=True, now=0.0)
    found = []
    for number in range(10):
        asking = Posting(f"f{number}", lambda: False, tells_retries=False)
        found.append(await repeats.earlier(asking, is_retry=False, now=1.0))
    assert found == [None] * 7 + ["p7", "p8", "p9"]
    assert repeats._under_way == {}


def another_process(world: World, folder: Path) -> World:
    """One that shares the store, and knows nothing of the first one's connections."""
    return World(folder, engine=world.engine, store=world.store, clock=world.clock, ids=world.ids, is_shared=True)


async def test_a_post_that_says_it_is_a_repeat_is_found_by_another_process(world: World, tmp_path: Path) -> None:
    first = poster(world, x_stainless_retry_count="0")
    await first.run()
    other = another_process(world, tmp_path)
    again = poster(other, x_stainless_retry_count="1")
    await again.run()
    assert again.json["id"] == first.json["id"]
    assert (b"turnout-repeat", b"true") in again.sent[0]["headers"]


async def test_other_posts_are_new_to_another_process(world: World, tmp_path: Path) -> None:
    first = poster(world, x_stainless_retry_count="0")
    await first.run()
    other = another_process(world, tmp_path)
    silent = poster(other)  # it does not say that it is a repeat
    first_try = poster(other, x_stainless_retry_count="0")
    somebody_else = poster(other, BOB.text, x_stainless_retry_count="1")
    other_body = poster(other, body=BODY.replace(b"hi", b"ho"), x_stainless_retry_count="1")
    for peer in (silent, first_try, somebody_else, other_body):
        await peer.run()
    assert len({peer.json["id"] for peer in (first, silent, first_try, somebody_else, other_body)}) == 5


async def test_what_was_posted_minutes_ago_is_not_meant(world: World, tmp_path: Path) -> None:
    first = poster(world, x_stainless_retry_count="0")
    await first.run()
    other = another_process(world, tmp_path)
    world.clock.advance(ANSWERED_SECONDS + 1)
    again = poster(other, x_stainless_retry_count="1")
    await again.run()
    assert again.json["id"] != first.json["id"]
