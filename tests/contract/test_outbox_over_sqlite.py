"""The outbox over the real store and real sockets: what was committed arrives, also after a crash."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.contract.fact import CancelRequested, Happening, Notify
from gateway.contract.prediction import Prediction, Request, Status
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Sender
from gateway.net.target import Guard
from gateway.store.protocol import Delivery, Reduction
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.unit.delivery.fakes import START, Receiver, receiving, running, saying

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def end(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    ended = msgspec.structs.replace(
        prediction, status=Status.CANCELED, deliveries=prediction.deliveries + 1, revision=prediction.revision + 1
    )
    return Reduction(prediction=ended, effects=(Notify(event="completed"),), is_open=False)


def snapshot(prediction: Prediction) -> bytes:
    return f'{{"id":"{prediction.id}","status":"{prediction.status}"}}'.encode()


class World:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        self.path = folder / "turnout.db"
        self.recorded = asyncio.Event()

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(self.path, reduce=end, snapshot=snapshot, clock=self.clock)
        try:
            yield store
        finally:
            await store.aclose()

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a recorded try that makes `holds` true."""
        async with asyncio.timeout(10):
            while not await holds():
                self.recorded.clear()
                await self.recorded.wait()

    async def all_ended(self, store: SqliteStore, *ids: str) -> list[Delivery]:
        async def rows() -> list[Delivery]:
            return [row for id in ids for row in await store.deliveries(id)]

        async def holds() -> bool:
            return all(row.ended for row in await rows())

        await self.until(holds)
        return await rows()

    @contextlib.asynccontextmanager
    async def sending(self, store: SqliteStore) -> AsyncIterator[Outbox]:
        sender = Sender(Guard(["127.0.0.1"], allow_http=True), (SECRET,), self.clock, timeout_seconds=5)
        finish = store.finish_delivery

        async def finish_and_tell(*args: Any, **kwargs: Any) -> bool:
            done = await finish(*args, **kwargs)
            self.recorded.set()
            return done

        store.finish_delivery = finish_and_tell  # type: ignore[method-assign]
        outbox = Outbox(store, sender, worker="w", clock=self.clock, draw=lambda: 0.5)
        async with contextlib.aclosing(sender), running(outbox, drain_seconds=5):
            yield outbox

    def prediction(self, id: str, receiver: Receiver) -> Prediction:
        request = Request(model="a/b", version="0" * 64, is_pinned=False, input={}, webhook=receiver.url)
        return Prediction(
            id=id.ljust(26, "0"),
            owner="ada",
            request=request,
            created_at=self.clock.now(),
            deadline_at=self.clock.now() + timedelta(hours=1),
            stream_token=f"stream-{id}",
            deliveries=1,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_hundred_predictions_arrive_each_once_with_their_own_id(world: World) -> None:
    async with receiving() as receiver, world.store() as store, world.sending(store) as outbox:
        ids = []
        for n in range(100):
            created = await store.create(world.prediction(f"p{n:03}", receiver))
            ids.append(created.prediction.id)
            await store.apply(created.prediction.id, CancelRequested())
            outbox.wake()
        rows = await world.all_ended(store, *ids)
    assert [row.ended for row in rows] == ["delivered"] * 100
    assert len({got.headers["webhook-id"] for got in receiver.received}) == len(receiver.received) == 100
    assert {got.body for got in receiver.received} == {row.body for row in rows}


async def test_receiver_that_comes_back_gets_the_same_bytes_under_the_same_id(world: World) -> None:
    receives = receiving(saying("503 Away"), saying("200 OK"))
    async with receives as receiver, world.store() as store, world.sending(store) as outbox:
        created = await store.create(world.prediction("p", receiver))
        id = created.prediction.id
        await store.apply(id, CancelRequested())
        outbox.wake()

        async def is_tried() -> bool:
            return (await store.deliveries(id))[0].tries == 1

        await world.until(is_tried)
        world.clock.advance(2 - world.clock.monotonic())
        outbox.wake()
        (row,) = await world.all_ended(store, id)
    assert (row.ended, row.tries) == ("delivered", 2)
    assert len({(got.body, got.headers["webhook-id"]) for got in receiver.received}) == 1
    assert len(receiver.received) == 2


async def test_crash_between_send_and_record_repeats_the_end_and_drops_what_is_not_the_end(world: World) -> None:
    async with receiving() as receiver:
        async with world.store() as store:
            started = world.prediction("a", receiver)
            await store.create(started, effects=(Notify(event="start"),))
            ended = await store.create(world.prediction("b", receiver))
            await store.apply(ended.prediction.id, CancelRequested())
            claimed = await store.claim_deliveries("dead", limit=10, lease_seconds=60)
            assert len(claimed) == 2
        async with world.store() as store, world.sending(store):
            rows = await world.all_ended(store, started.id, ended.prediction.id)
    assert [(row.event, row.ended) for row in rows] == [("start", "exhausted"), ("completed", "delivered")]
    assert [got.headers["webhook-id"] for got in receiver.received] == [rows[1].id]
