"""Results are had while their provider keeps them: tried again until then, the first to expire first, and believed
only if they are what they say."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.artifact import collect
from gateway.artifact.collect import Collector
from gateway.artifact.content import contradiction
from gateway.artifact.fetch import Turns
from gateway.contract.errors import ResultLost
from tests.unit.artifact.fakes import PNG, attempt, file, prediction, serving_files
from tests.unit.artifact.test_collect import Room

AWAY = file(b"", status="503 Away")
SIGN_IN = file(b"<!DOCTYPE html><title>Sign in</title>", "content-type: text/html")


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with serving_files() as server:
        room = Room(tmp_path, server)

        async def pause(seconds: float) -> None:
            room.pauses.append(seconds)
            room.clock.advance(seconds)

        room.fetcher.pause = pause
        yield room
        await room.fetcher.aclose()


async def collect_until(room: Room, output: Any, seconds: float) -> Any:
    return await room.collector.collect(
        prediction(), attempt(), output, trusted_hosts=(), direct_hosts=(room.server.host,),
        until=room.clock.now() + timedelta(seconds=seconds),
    )  # fmt: skip


async def test_what_is_away_for_a_minute_is_had_when_it_is_back(room: Room) -> None:
    url = room.server.put("/a.png", *[AWAY] * 13, file(PNG))
    link = await collect_until(room, url, 600)
    assert await room.content(link) == PNG
    rounds = [pause for pause in room.pauses if pause >= 2]
    assert rounds == [2.0, 5.0, 10.0, 20.0], "ever more rarely"


async def test_what_stays_away_is_lost_when_its_time_is_over_and_not_much_later(room: Room) -> None:
    url = room.server.put("/a.png", AWAY)
    with pytest.raises(ResultLost, match="503"):
        await collect_until(room, url, 90)
    assert 45 <= room.clock.monotonic() <= 90


async def test_what_is_gone_is_lost_at_once(room: Room) -> None:
    url = room.server.put("/a.png", file(b"", status="410 Gone"))
    with pytest.raises(ResultLost):
        await collect_until(room, url, 3_600)
    assert len(room.server.requests) == 1


async def test_after_its_time_it_is_still_tried_once(room: Room) -> None:
    assert await room.content(await collect_until(room, room.server.put("/a.png", file(PNG)), -10)) == PNG


async def test_of_those_that_wait_the_first_to_expire_goes_first() -> None:
    turns, order = Turns(1), []
    gate = asyncio.Event()

    async def take(name: str, expires: float) -> None:
        async with turns.turn(expires):
            order.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(take("holds it", 0.0))]
    await asyncio.sleep(0)
    for name, expires in (("keeps", 1e9), ("soon", 5.0), ("later", 50.0), ("canceled", 1.0)):
        tasks.append(asyncio.create_task(take(name, expires)))
        await asyncio.sleep(0)
    tasks.pop().cancel()
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["holds it", "soon", "later", "keeps"]


async def test_a_turn_handed_to_one_that_is_canceled_at_that_moment_is_not_lost() -> None:
    turns = Turns(1)

    async def take() -> None:
        async with turns.turn(0.0):
            await asyncio.sleep(0)

    for _ in range(50):
        holder, waiter = asyncio.create_task(take()), asyncio.create_task(take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(holder, waiter, return_exceptions=True)
    async with asyncio.timeout(1):
        await take()


async def test_a_page_in_place_of_a_picture_is_no_result(room: Room) -> None:
    url = room.server.put("/a.png", SIGN_IN)
    with pytest.raises(ResultLost, match="a web page came in its place"):
        await room.collect(url)
    assert not any(
        place.name == "content" for place in await asyncio.to_thread(lambda: list(room.artifacts._path.rglob("*")))
    )


async def test_a_page_that_gives_way_to_the_picture_is_waited_for(room: Room) -> None:
    url = room.server.put("/a.png", SIGN_IN, file(PNG))
    assert await room.content(await room.collect(url)) == PNG


@pytest.mark.parametrize(
    ("declared", "name", "head", "why"),
    [
        ("image/png", "a.png", PNG, ""),
        ("image/png", "a", b"\n <HTML>", "a web page came in its place"),
        ("text/html", "a.mp4", b"<!doctype html>", "a web page came in its place"),
        ("text/html", "report", b"<!doctype html>", ""),
        ("application/json; charset=utf-8", "a.png", b'{"error": "expired"}', "a message came in its place"),
        ("application/problem+json", "a.mp4", b'{"status": 404}', "a message came in its place"),
        ("text/xml", "a.webp", b"<?xml version='1.0'?><Error>", "a message came in its place"),
        ("application/json", "a.json", b"{}", ""),
        ("application/json", "a.png", PNG, ""),
        ("image/svg+xml", "a.svg", b"<?xml version='1.0'?><svg>", ""),
        ("video/mp4", "a", b"", "it is empty"),
        ("text/plain", "a.txt", b"", ""),
        ("application/octet-stream", "a.wav", b"RIFF", ""),
    ],
)
def test_what_belies_a_type(declared: str, name: str, head: bytes, why: str) -> None:
    assert contradiction(declared, name, head) == why


async def test_an_output_of_too_many_files_is_lost_before_one_is_fetched(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MOST_FILES", 3)
    with pytest.raises(ResultLost, match="names 4 files, and at most 3"):
        await room.collect([room.server.url(f"/{n}.png") for n in range(4)])
    assert room.server.requests == []


async def test_all_files_of_one_output_together_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MOST_FULL_FILES", 1)
    monkeypatch.setattr(room.artifacts, "max_file_bytes", 1_000)
    big = base64.b64encode(b"x" * 450)  # 600 bytes
    urls = [room.server.put(f"/{n}", file(big)) for n in range(4)]
    room.fetcher._turns = Turns(1)  # one after the other
    with pytest.raises(ResultLost, match="all files together"):
        await room.collect(urls)


async def test_the_collector_takes_the_same_files_whatever_its_time(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG))
    collector = Collector(room.artifacts, room.fetcher)
    first = await collect_until(room, url, 60)
    again = await collector.collect(prediction(), attempt(), url, trusted_hosts=(), direct_hosts=(room.server.host,))
    assert first == again
