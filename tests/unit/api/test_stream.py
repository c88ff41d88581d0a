"""Streams: stored events only, ids on each, resumable, never silent for long, over with `done`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from replicate.stream import EventSource

from gateway.api.stream import event_bytes
from gateway.contract.prediction import Status
from gateway.store.protocol import StoredEvent
from tests.unit.api.fakes import BEGIN, FILES_VERSION, Peer, World, replace

UNIX = int(BEGIN.timestamp())


async def started(world: World) -> str:
    await world.post()
    return f"/stream/{world.only.stream_token}"


async def test_all_events_come_in_order_without_a_key_and_done_closes(world: World) -> None:
    path = await started(world)
    world.add_events(world.only.id, ("output", "Hel"), ("logs", "a\nb"), ("output", "lo"), ("done", "{}"))
    reply = await world.nobody.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert reply.text == (
        ": hi\n\n"
        f"id: {UNIX}:0\nevent: output\ndata: Hel\n\n"
        f"id: {UNIX}:1\nevent: logs\ndata: a\ndata: b\n\n"
        f"id: {UNIX}:2\nevent: output\ndata: lo\n\n"
        f"id: {UNIX}:3\nevent: done\ndata: {{}}\n\n"
    )
    assert world.engine.watchers == 0


async def test_the_official_client_reads_it(world: World) -> None:
    path = await started(world)
    world.add_events(world.only.id, ("output", "one\ntwo"), ("output", ""), ("logs", "l"), ("done", "{}"))
    source = EventSource(None, await world.nobody.get(path))  # type: ignore[arg-type]
    assert [(event.event.value, event.data) for event in source] == [
        ("output", "one\ntwo"),
        ("output", ""),
        ("logs", "l"),
        ("done", "{}"),
    ]


@pytest.mark.parametrize(
    ("last", "first_shown"),
    [(f"{UNIX}:0", 1), (f"{UNIX}:2", 3), ("0:1", 2), ("junk", 0), (":1", 0), ("", 0), ("1:-1", 0)],
)
async def test_it_resumes_after_the_last_event_that_was_seen(world: World, last: str, first_shown: int) -> None:
    path = await started(world)
    world.add_events(world.only.id, ("output", "a"), ("output", "b"), ("output", "c"), ("done", "{}"))
    reply = await world.nobody.get(path, headers={"last-event-id": last})
    shown = [line for line in reply.text.splitlines() if line.startswith("id: ")]
    assert shown == [f"id: {UNIX}:{number}" for number in range(first_shown, 4)]


async def test_events_committed_while_it_waits_are_sent_and_silence_is_broken_every_15_seconds(world: World) -> None:
    path = await started(world)
    id = world.only.id
    waits = 0

    async def during_wait(id: str, seconds: float) -> bool:
        nonlocal waits
        waits += 1
        if waits == 6:
            world.add_events(id, ("output", "late"))
            return True
        if waits == 8:
            world.add_events(id, ("done", "{}"))
            return True
        world.clock.advance(min(seconds, 8.0))
        return False

    world.engine.during_wait = during_wait
    text = (await world.nobody.get(path)).text
    assert text.count(": still here\n\n") == 2  # 38 seconds of silence: 8, 7, 8, 7, 8
    assert text.endswith(
        f"event: output\ndata: late\n\nid: {int(world.clock.now().timestamp())}:1\nevent: done\ndata: {{}}\n\n"
    )
    assert id == world.only.id


async def test_more_events_than_one_batch_all_come(world: World) -> None:
    path = await started(world)
    world.add_events(world.only.id, *(("output", str(number)) for number in range(1203)), ("done", "{}"))
    text = (await world.nobody.get(path)).text
    assert text.count("event: output") == 1203
    assert text.count("event: done") == 1


async def test_names_the_clients_do_not_know_are_left_out(world: World) -> None:
    path = await started(world)
    world.add_events(world.only.id, ("metric", "x"), ("done", "{}"))
    text = (await world.nobody.get(path)).text
    assert "metric" not in text
    assert "event: done" in text


async def test_a_reader_that_leaves_ends_the_stream(world: World) -> None:
    path = await started(world)
    never = asyncio.Event()

    async def during_wait(id: str, seconds: float) -> bool:
        await never.wait()
        return False

    world.engine.during_wait = during_wait
    peer = Peer(world, "GET", path)
    running = asyncio.create_task(peer.run())
    await world.engine.is_watched.wait()
    assert world.engine.watchers == 1
    peer.gone.set()
    await running
    assert world.engine.watchers == 0


async def test_a_reader_that_does_not_read_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.exchange.STALLED_SEND_SECONDS", 0.01)
    path = await started(world)
    peer = Peer(world, "GET", path)
    full = asyncio.Event()

    async def stuck(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            await full.wait()

    peer._send = stuck  # type: ignore[method-assign]
    await peer.run()
    assert world.engine.watchers == 0


async def test_a_shutdown_ends_streams_and_asks_to_come_back(world: World) -> None:
    path = await started(world)
    world.engine.is_draining = True
    assert (await world.nobody.get(path)).text == ": hi\n\nretry: 1000\n\n"


async def test_a_reader_that_has_seen_the_end_of_a_finished_prediction_is_not_kept(world: World) -> None:
    path = await started(world)
    world.add_events(world.only.id, ("done", "{}"))
    world.store.predictions[world.only.id] = replace(world.only, status=Status.SUCCEEDED)

    async def during_wait(id: str, seconds: float) -> bool:
        world.clock.advance(seconds)
        return False

    world.engine.during_wait = during_wait
    reply = await world.nobody.get(path, headers={"last-event-id": f"{UNIX}:0"})
    assert "event:" not in reply.text


async def test_streams_of_files_come_under_the_files_path_too_without_a_key(world: World) -> None:
    await world.post({"version": FILES_VERSION, "input": {}})
    world.add_events(world.only.id, ("output", "https://x.example/a.png"), ("done", "{}"))
    reply = await world.nobody.get(f"/v1/files/stream-{world.only.stream_token}")
    assert reply.status_code == 200
    assert "data: https://x.example/a.png" in reply.text


@pytest.mark.parametrize("token", ["x", "t" * 43, "..", "%00" * 20, "a" * 500])
async def test_an_unknown_token_is_a_404(world: World, token: str) -> None:
    for path in (f"/stream/{token}", f"/v1/files/stream-{token}"):
        assert (await world.nobody.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("data", "lines"),
    [("", 1), ("a", 1), ("a\nb", 2), ("a\r\nb", 2), ("a\rb", 2), ("\n", 2), ("a\nevent: done\n\nid: 9", 4)],
)
def test_no_text_can_end_its_event_or_begin_another(data: str, lines: int) -> None:
    event = StoredEvent(sequence=3, event="output", data=data, at=datetime(2023, 7, 24, 15, 24, 52, tzinfo=UTC))
    text = event_bytes(event).decode()
    assert text.startswith("id: 1690212292:3\nevent: output\n")
    assert text.endswith("\n\n")
    body = text.removesuffix("\n\n").split("\n")[2:]
    assert len(body) == lines
    assert all(line.startswith("data: ") for line in body)
