"""Two outboxes on one store: what one is asked to try again the other tries too, whatever it knows of the receiver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from gateway.contract.host import host_of
from gateway.delivery import outbox as outboxes
from gateway.delivery.lane import FAILURES_TO_OPEN
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Outcome, Result
from gateway.store.protocol import Delivery, Redelivery, Store
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore

HOOK = "https://hooks.example/one"
HOST = host_of(HOOK)
OK = Outcome(result=Result.DELIVERED, seconds=0.1, status=200)
LATE = Outcome(result=Result.UNREACHED, seconds=15.0, error="no answer within 15 s", is_slow=True)
HALF_A_DAY = 43_200.0


class Receiver:
    def __init__(self) -> None:
        self.is_alive = False
        self.tried: list[str] = []
        self.began = asyncio.Event()
        self.hangs: asyncio.Event | None = None

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        self.tried.append(delivery.prediction)
        self.began.set()
        is_alive, hangs = self.is_alive, self.hangs
        if hangs is not None:
            await hangs.wait()
        return OK if is_alive else LATE


class Pair:
    """`asked` is told to try again, and sends nothing; `sends` is another process, that hears only what is stored."""

    def __init__(self, ours: Store, theirs: Store, clock: ManualClock) -> None:
        self.clock, self.store = clock, ours
        self.receiver = Receiver()
        self.recorded = asyncio.Event()
        finish = theirs.finish_delivery

        async def finish_and_tell(*args: Any, **kwargs: Any) -> bool:
            done = await finish(*args, **kwargs)
            self.recorded.set()
            return done

        theirs.finish_delivery = finish_and_tell  # type: ignore[method-assign]
        self.asked = self._outbox(ours, "asked")
        self.sends = self._outbox(theirs, "sends")

    def _outbox(self, store: Store, worker: str) -> Outbox:
        return Outbox(store, self.receiver, worker=worker, clock=self.clock, draw=lambda: 0.5)

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.sends.run())
        try:
            yield
        finally:
            await self.sends.drain(1)
            await task

    async def ended(self) -> str:
        """A prediction with a webhook that is due."""
        prediction = toy.prediction(webhook=HOOK)
        await self.store.create(prediction)
        await self.store.apply(prediction.id, toy.succeeded())
        return prediction.id

    async def row(self, id: str) -> Delivery:
        [row] = await self.store.deliveries(id)
        return row

    async def until(self, ids: Sequence[str], holds: Callable[[Delivery], bool]) -> None:
        async with asyncio.timeout(10):
            for id in ids:
                while not holds(await self.row(id)):
                    await self.recorded.wait()
                    self.recorded.clear()

    async def retry(self, ids: Sequence[str], owner: str = "alice") -> list[Redelivery]:
        """As ops do."""
        await self.asked.retry(owner, HOST)
        told = [await self.store.redeliver(id) for id in ids]
        self.asked.wake()
        return told

    async def shut(self, rows: int = 8) -> list[str]:
        """As many have failed as it takes."""
        ids = [await self.ended() for _ in range(rows)]
        await self.until(ids, lambda row: row.tries == 1)
        assert len(self.receiver.tried) == FAILURES_TO_OPEN
        return ids


@pytest.fixture
async def pair(open_store: OpenStore, kind: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Pair:
    for name in ("HELD_SECONDS", "BUSY_SECONDS", "IDLE_SECONDS"):
        monkeypatch.setattr(outboxes, name, 0.02)  # whoever sends looks by himself; nobody wakes him
    ours = await open_store()
    return Pair(ours, ours if kind == "sqlite" else await open_store(), clock)


async def test_a_receiver_that_another_has_shut_out_is_tried_at_once(pair: Pair) -> None:
    async with pair.sending():
        ids = await pair.shut()
        pair.receiver.is_alive = True
        assert await pair.retry(ids) == [Redelivery.DUE] * len(ids)
        await pair.until(ids, lambda row: row.ended == "delivered")
    assert pair.clock.now() == toy.START, "it was the schedule's doing"


async def test_one_that_another_has_given_up_after_days_is_tried_and_not_only_listed(pair: Pair) -> None:
    async with pair.sending():
        ids: list[str] = []
        while "for days" not in ((await pair.row(ids[-1])).last_error or "" if ids else ""):
            assert len(ids) < 20
            pair.clock.advance(HALF_A_DAY)
            ids.append(await pair.ended())
            await pair.until(ids[-1:], lambda row: row.tries > 0)
        assert (await pair.row(ids[-1])).ended == "exhausted"
        pair.receiver.is_alive = True
        await pair.retry(ids)
        await pair.until(ids, lambda row: row.ended is not None)
        assert {(await pair.row(id)).ended for id in ids} == {"delivered"}


async def test_a_try_that_hangs_with_another_goes_again_as_soon_as_it_has_failed(pair: Pair) -> None:
    pair.receiver.hangs = asyncio.Event()
    async with pair.sending():
        id = await pair.ended()
        async with asyncio.timeout(10):
            await pair.receiver.began.wait()
        assert await pair.retry([id]) == [Redelivery.SENDING]
        pair.receiver.is_alive = True
        pair.receiver.hangs.set()
        await pair.until([id], lambda row: row.ended == "delivered")
    assert pair.receiver.tried == [id, id]
    assert pair.clock.now() == toy.START, "it waited for its minute"


async def test_what_is_dead_all_the_same_is_shut_out_again_after_as_few_tries(pair: Pair) -> None:
    async with pair.sending():
        ids = await pair.shut()
        await pair.retry(ids)
        # The first failure after an ask may be of a try that was begun before it: that one goes again.
        await pair.until(ids, lambda row: row.tries >= 1)
        assert len(pair.receiver.tried) <= 2 * FAILURES_TO_OPEN + 1


async def test_an_owner_asks_for_his_own_receiver_alone(pair: Pair) -> None:
    async with pair.sending():
        ids = await pair.shut()
        pair.receiver.is_alive = True
        await pair.retry(ids, owner="bob")
        await pair.until(ids, lambda row: row.tries == 1)
        assert len(pair.receiver.tried) == FAILURES_TO_OPEN
        assert {(await pair.row(id)).last_error for id in ids} == {"not tried: the receiver fails every time"}


async def test_an_ask_is_forgotten_after_a_day(pair: Pair) -> None:
    """Else each first failure ever after would count for nothing."""
    await pair.retry([])
    pair.clock.advance(2 * HALF_A_DAY + 1)
    async with pair.sending():
        id = await pair.ended()
        await pair.until([id], lambda row: row.tries == 1)
        assert (await pair.row(id)).due_at > pair.clock.now()
    assert pair.receiver.tried == [id]
