"""The feed: what changed reaches everybody who listens, once; who does not read is let go, and costs nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.errors import StoreUnavailable, Throttled
from gateway.contract.prediction import Status
from gateway.dashboard import feed as module
from gateway.dashboard.feed import MOST_LISTENERS, MOST_ROWS, Feed
from gateway.dashboard.journal import Journal
from gateway.dashboard.row import row_of
from gateway.dashboard.shape import Overview
from gateway.testing import ManualClock
from tests.unit.dashboard.making import BASE, prediction
from tests.unit.dashboard.test_view import World


class Stage:
    """A feed whose ticks come when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TICK_SECONDS", 3_600)
        self.world = World()
        self.clock: ManualClock = self.world.clock
        self.journal: Journal = self.world.journal
        self.is_draining = False
        self.failure: Exception | None = None
        self.made = 0
        self.feed = Feed(
            self.journal,
            overview=self._overview,
            row=lambda one: row_of(one, now=self.clock.now(), base=BASE),
            is_draining=lambda: self.is_draining,
            clock=self.clock,
        )

    async def _overview(self) -> Overview:
        if self.failure is not None:
            raise self.failure
        self.made += 1
        return self.world.overview()

    async def tick(self, seconds: float = 0.25) -> None:
        self.clock.advance(seconds)
        await self.feed.tick()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def parsed(chunk: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in chunk.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def begun(stage: Stage) -> AsyncIterator[bytes]:
    stream = stage.feed.listen()
    [(event, _)] = parsed(await anext(stream))
    assert event == "overview"
    return stream


async def test_a_listener_has_the_overview_at_once_and_then_only_what_is_new(stage: Stage) -> None:
    stream = await begun(stage)
    await stage.tick()
    await anext(stream)  # the first of the feed's own
    for _ in range(8):
        await stage.tick()
    one = prediction(ended=None)
    stage.journal.prediction_created(one)
    stage.journal.committed(one, replace(one, status=Status.PROCESSING), ())
    stage.journal.local_backend_changed("crashed")
    await stage.tick(1.0)
    events = parsed(await anext(stream))
    assert [name for name, _ in events] == ["prediction", "happened", "overview"]
    assert (events[0][1]["id"], events[0][1]["status"]) == (one.id, "processing")
    assert events[1][1]["title"] == "The local backend is crashed"
    assert events[2][1]["totals"]["created"] == 1
    await stream.aclose()  # type: ignore[attr-defined]


async def test_the_overview_comes_at_most_once_a_second(stage: Stage) -> None:
    stream = await begun(stage)
    seen = 0
    for _ in range(40):
        stage.journal.prediction_created(prediction(ended=None))
        await stage.tick(0.25)
        seen += sum(name == "overview" for name, _ in parsed(await anext(stream)))
    assert seen == 10
    await stream.aclose()  # type: ignore[attr-defined]


async def test_silence_is_broken_by_a_comment_every_fifteen_seconds(stage: Stage) -> None:
    stream = await begun(stage)
    await stage.tick()
    await anext(stream)
    chunks = []
    waiting = asyncio.ensure_future(anext(stream))
    for _ in range(16):
        await stage.tick(1.0)
        await asyncio.sleep(0)
    chunks.append(await waiting)
    assert chunks == [b": still here\n\n"]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_who_does_not_read_is_dropped_with_a_last_word_and_the_others_go_on(stage: Stage) -> None:
    slow, quick = await begun(stage), await begun(stage)
    long = prediction(error="e" * 290, model="m" * 200, ended=None)
    for _ in range(40):
        for number in range(MOST_ROWS):
            stage.journal.prediction_created(replace(long, id=f"{number:026}"))
        await stage.tick()
        assert parsed(await anext(quick))
    assert parsed(await anext(slow)) == [("dropped", {"reason": "you read too slowly: connect again"})]
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    assert stage.feed.count == 1
    stage.journal.prediction_created(long)
    await stage.tick()
    assert parsed(await anext(quick))
    await quick.aclose()  # type: ignore[attr-defined]


async def test_of_very_many_changes_the_newest_are_told_once_each(stage: Stage) -> None:
    stream = await begun(stage)
    many = [prediction(ended=None) for _ in range(MOST_ROWS + 50)]
    for one in (*many, *many):
        stage.journal.prediction_created(one)
    await stage.tick()
    rows = [data["id"] for name, data in parsed(await anext(stream)) if name == "prediction"]
    assert rows == [one.id for one in many[-MOST_ROWS:]]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_stop_ends_every_stream(stage: Stage) -> None:
    stream = await begun(stage)
    stage.is_draining = True
    await stage.tick()
    assert parsed(await anext(stream))[-1] == ("dropped", {"reason": "the gateway is stopping"})
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert stage.feed.count == 0


async def test_with_nobody_listening_nothing_is_made(stage: Stage) -> None:
    stream = await begun(stage)
    await stream.aclose()  # type: ignore[attr-defined]
    made = stage.made
    stage.journal.prediction_created(prediction(ended=None))
    assert stage.journal.watch is None
    assert (stage.feed.count, stage.made) == (0, made)


async def test_one_listener_too_many_is_refused_and_a_place_comes_free(stage: Stage) -> None:
    streams = [await begun(stage) for _ in range(MOST_LISTENERS)]
    with pytest.raises(Throttled):
        stage.feed.listen()
    await streams.pop().aclose()  # type: ignore[attr-defined]
    streams.append(await begun(stage))
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    assert stage.feed.count == 0


async def test_a_stream_that_was_never_read_holds_no_place(stage: Stage) -> None:
    stream = stage.feed.listen()
    await stream.aclose()  # type: ignore[attr-defined]
    assert stage.feed.count == 0


async def test_a_store_that_is_out_does_not_end_the_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0)
    stream = await begun(stage)
    stage.failure = StoreUnavailable("the disk is full")
    stage.clock.advance(5)
    for _ in range(10):
        await asyncio.sleep(0)
    stage.failure = None
    stage.clock.advance(5)
    stage.journal.prediction_created(prediction(ended=None))
    assert parsed(await anext(stream))
    await stream.aclose()  # type: ignore[attr-defined]
