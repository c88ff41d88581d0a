"""Deliveries arrive once they can, keep their bytes, id and order, and a dead receiver costs nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import msgspec
import pytest

from gateway.contract.observer import Observer
from gateway.delivery.outbox import MAX_HELD, Outbox
from gateway.delivery.slot import MAX_IN_FLIGHT, MAX_SUSPECT_IN_FLIGHT
from gateway.delivery.webhook import Outcome, Result, Sender
from gateway.net.target import Guard
from gateway.store.protocol import GIVEN_BACK, Delivery, Store
from gateway.testing import ManualClock
from tests.unit.delivery.fakes import START, FakeStore, receiving, running, saying

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = Outcome(result=Result.DELIVERED, seconds=0.0, status=200)
DEAD = Outcome(result=Result.UNREACHED, seconds=15.0, error="no answer")


class Notes(Observer):
    def __init__(self) -> None:
        self.tries: list[tuple[str, str]] = []

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        self.tries.append((event, outcome))


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = FakeStore(self.clock)
        self.notes = Notes()

    @contextlib.asynccontextmanager
    async def running(self, sender: Any, *, known: Iterable[str] = (), **options: Any) -> AsyncIterator[Outbox]:
        """`known` are hosts that have answered before."""
        outbox = Outbox(
            cast(Store, self.store),
            sender,
            worker="w1",
            clock=self.clock,
            draw=lambda: 0.5,
            observer=self.notes,
            **options,
        )
        async with running(outbox, known=known):
            yield outbox

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[Outbox]:
        """Over real sockets."""
        sender = Sender(Guard(["127.0.0.1"], allow_http=True), (SECRET,), self.clock, timeout_seconds=2)
        async with self.running(sender) as outbox:
            yield outbox
        await sender.aclose()

    async def until_tried(self, id: str, tries: int) -> Delivery:
        await self.store.until(lambda: self.store.rows[id].tries >= tries)
        return self.store.rows[id]


@pytest.fixture
def world() -> World:
    return World()


class Script:
    """A sender in the hands of the test: it notes what begins, and ends it when told."""

    def __init__(self, judge: Callable[[Delivery], Outcome] = lambda delivery: OK, *, held: bool = False) -> None:
        self.begun: list[Delivery] = []
        self.peak = 0
        self.on_way = 0
        self._judge = judge
        self._gates: dict[str, asyncio.Event] = {}
        self._held = held
        self.began = asyncio.Event()

    def gate(self, id: str) -> asyncio.Event:
        return self._gates.setdefault(id, asyncio.Event())

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        self.begun.append(delivery)
        self.began.set()
        self.on_way += 1
        self.peak = max(self.peak, self.on_way)
        try:
            if self._held:
                await self.gate(delivery.id).wait()
            return self._judge(delivery)
        finally:
            self.on_way -= 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                self.began.clear()
                await self.began.wait()


async def settle() -> None:
    """Let everything that can go on without time or news go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_bug_in_one_round_does_not_end_all_deliveries(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim = world.store.claim_deliveries
    rounds = 0

    async def claim_or_stumble(*args: Any, **options: Any) -> list[Delivery]:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise RuntimeError("a bug")
        return await claim(*args, **options)

    monkeypatch.setattr(world.store, "claim_deliveries", claim_or_stumble)
    script = Script()
    world.store.put(1, "https://a.example/")
    async with world.running(script) as outbox:
        await settle()
        outbox.wake()
        await script.until(1)
    assert "a round of the outbox failed" in caplog.text


async def test_retries_carry_the_same_bytes_and_id_until_a_2xx(world: World) -> None:
    async with receiving(saying("500 Broken"), saying("302 Away"), saying("204 No Content")) as receiver:
        id = world.store.put(1, receiver.url, body=b'{"a": 1,  "b":"\xc3\xa9"}')
        async with world.sending() as outbox:
            row = await world.until_tried(id, 1)
            assert (row.ended, row.last_status, (row.due_at - world.clock.now()).total_seconds()) == (None, 500, 2.0)
            for seconds, tries in ((2, 2), (10, 3)):
                world.clock.advance(seconds - world.clock.monotonic())
                outbox.wake()
                row = await world.until_tried(id, tries)
    assert (row.ended, row.last_status, row.tries) == ("delivered", 204, 3)
    assert {got.body for got in receiver.received} == {b'{"a": 1,  "b":"\xc3\xa9"}'}
    assert {got.headers["webhook-id"] for got in receiver.received} == {id}
    assert len({got.headers["webhook-signature"] for got in receiver.received}) == 3
    stamps = [int(got.headers["webhook-timestamp"]) for got in receiver.received]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 2, 10]
    assert world.notes.tries == [("completed", "retry"), ("completed", "retry"), ("completed", "delivered")]


async def test_410_ends_a_delivery_at_once(world: World) -> None:
    async with receiving(saying("410 Gone")) as receiver:
        id = world.store.put(1, receiver.url)
        async with world.sending():
            row = await world.until_tried(id, 1)
    assert (row.ended, row.last_status) == ("gone", 410)


async def test_event_that_is_not_final_is_sent_once(world: World) -> None:
    async with receiving(saying("500 Broken")) as receiver:
        id = world.store.put(1, receiver.url, event="logs", is_final=False)
        async with world.sending():
            row = await world.until_tried(id, 1)
    assert (row.ended, row.tries) == ("exhausted", 1)


async def test_event_claimed_before_a_crash_is_not_sent_after_what_came_later(world: World) -> None:
    script = Script()
    id = world.store.put(1, "https://a.example/", event="start", is_final=False, fence=1)
    async with world.running(script):
        row = await world.until_tried(id, 1)
    assert (row.ended, script.begun) == ("exhausted", [])


async def test_final_delivery_claimed_before_a_crash_is_sent_again(world: World) -> None:
    script = Script()
    id = world.store.put(1, "https://a.example/", fence=1)
    async with world.running(script):
        assert (await world.until_tried(id, 1)).ended == "delivered"
    assert len(script.begun) == 1


async def test_schedule_ends_exhausted_with_every_slot_tried(world: World) -> None:
    script = Script(lambda delivery: Outcome(result=Result.REFUSED, seconds=0.1, status=400))
    id = world.store.put(1, "https://a.example/")
    async with world.running(script, schedule_seconds=(0, 2, 10)) as outbox:
        for tries in (1, 2, 3):
            row = await world.until_tried(id, tries)
            world.clock.advance(100)
            outbox.wake()
    assert (row.ended, len(script.begun)) == ("exhausted", 3)
    assert world.notes.tries[-1] == ("completed", "exhausted")


async def test_wake_sends_at_once_what_was_just_written(world: World) -> None:
    async with receiving() as receiver, world.sending() as outbox:
        await settle()
        id = world.store.put(1, receiver.url)
        outbox.wake()
        async with asyncio.timeout(2):
            await world.until_tried(id, 1)


async def test_one_receiver_of_one_caller_holds_four_slots_and_others_go_on(world: World) -> None:
    script = Script(held=True)
    slow = [world.store.put(n, "https://slow.example/") for n in range(40)]
    quick = [world.store.put(100 + n, f"https://quick{n}.example/") for n in range(20)]
    other = world.store.put(200, "https://slow.example/", owner="bob")
    for id in (*quick, other):
        script.gate(id).set()
    async with world.running(script, known=["slow.example"]):
        await world.store.until(lambda: all(world.store.rows[id].ended for id in quick))
        await settle()
        assert script.on_way == 4
        assert {row.owner for row in script.begun if "slow" in row.url} >= {"ada"}
        for id in slow:
            script.gate(id).set()
        await world.store.until(lambda: all(row.ended for row in world.store.rows.values()))


async def test_no_more_than_256_are_on_their_way_in_all(world: World) -> None:
    script = Script(held=True)
    ids = [world.store.put(n, f"https://r{n}.example/") for n in range(300)]
    async with world.running(script, known=[f"r{n}.example" for n in range(300)]):
        await script.until(MAX_IN_FLIGHT)
        await settle()
        assert len(script.begun) == MAX_IN_FLIGHT
        for id in ids:
            script.gate(id).set()
        await world.store.until(lambda: all(row.ended for row in world.store.rows.values()))
    assert script.peak == MAX_IN_FLIGHT


async def test_receivers_that_failed_last_time_cannot_take_every_slot(world: World) -> None:
    dead = {f"https://dead{n}.example/" for n in range(80)}
    script = Script(lambda delivery: DEAD if delivery.url in dead else OK, held=True)
    first = [world.store.put(n, url) for n, url in enumerate(sorted(dead))]
    async with world.running(script) as outbox:
        for id in first:
            script.gate(id).set()
        await world.store.until(lambda: all(world.store.rows[id].tries == 1 for id in first))
        for id in first:
            script.gate(id).clear()
        world.clock.advance(2 - world.clock.monotonic())
        outbox.wake()
        await script.until(80 + MAX_SUSPECT_IN_FLIGHT)
        await settle()
        assert script.on_way == MAX_SUSPECT_IN_FLIGHT
        healthy = [world.store.put(200 + n, f"https://well{n}.example/") for n in range(40)]
        for id in healthy:
            script.gate(id).set()
        outbox.wake()
        await world.store.until(lambda: all(world.store.rows[id].ended == "delivered" for id in healthy))


async def test_dead_receiver_is_shut_out_then_probed_then_served(world: World) -> None:
    alive = False
    script = Script(lambda delivery: OK if alive else DEAD)
    ids = [world.store.put(n, "https://dead.example/") for n in range(30)]
    async with world.running(script) as outbox:
        await world.store.until(lambda: all(world.store.rows[id].tries == 1 for id in ids))
        assert 5 <= len(script.begun) <= 8
        assert all(world.store.rows[id].ended is None for id in ids)
        world.clock.advance(10 - world.clock.monotonic())
        outbox.wake()
        await world.store.until(lambda: all(world.store.rows[id].tries == 2 for id in ids))
        assert len(script.begun) <= 8
        alive = True
        world.clock.advance(3_000 - world.clock.monotonic())
        outbox.wake()
        await world.store.until(lambda: all(world.store.rows[id].ended == "delivered" for id in ids))
    assert {row.id for row in script.begun} >= set(ids)


async def test_a_retry_asked_for_by_hand_reaches_a_receiver_that_was_shut_out(world: World) -> None:
    alive = False
    script = Script(lambda delivery: OK if alive else DEAD)
    ids = [world.store.put(n, "https://dead.example/") for n in range(8)]
    async with world.running(script) as outbox:
        await world.store.until(lambda: all(world.store.rows[id].tries == 1 for id in ids))
        alive = True
        world.clock.advance(10 - world.clock.monotonic())  # it would be shut for longer
        await outbox.retry("ada", "other.example")
        await outbox.retry("bob", "dead.example")
        outbox.wake()
        await world.store.until(lambda: all(world.store.rows[id].tries == 2 for id in ids))
        assert [row.ended for row in world.store.rows.values()] == [None] * 8
        world.clock.advance(20 - world.clock.monotonic())
        await outbox.retry("ada", "dead.example")
        outbox.wake()
        await world.store.until(lambda: all(world.store.rows[id].ended == "delivered" for id in ids))


async def test_last_chance_of_a_delivery_is_tried_even_while_its_receiver_is_shut_out(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    for n in range(5):
        world.store.put(n, "https://dead.example/")
    async with world.running(script) as outbox:
        await world.store.until(lambda: all(row.tries == 1 for row in world.store.rows.values()))
        last = world.store.put(9, "https://dead.example/", tries=12)
        before = len(script.begun)
        outbox.wake()
        row = await world.until_tried(last, 13)
    assert (row.ended, row.last_error, len(script.begun)) == ("exhausted", "no answer", before + 1)


async def test_a_prediction_s_later_event_waits_for_the_first_try_of_its_earlier_one(world: World) -> None:
    script = Script(held=True)
    ids = [
        world.store.put(n, "https://a.example/", prediction="p", sequence=n, event=event, is_final=event == "completed")
        for n, event in enumerate(("start", "output", "completed"))
    ]
    other = world.store.put(9, "https://a.example/", prediction="q")
    async with world.running(script, known=["a.example"]):
        for n, id in enumerate(ids):
            await script.until(n + 2)
            await settle()
            assert [row.sequence for row in script.begun if row.prediction == "p"] == list(range(n + 1))
            script.gate(id).set()
        script.gate(other).set()
        await world.store.until(lambda: all(row.ended for row in world.store.rows.values()))


async def test_store_outage_is_outlived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.delivery.outbox.BACKOFF_SECONDS", (0.01, 0.02))
    script = Script(held=True)
    first = world.store.put(1, "https://a.example/")
    async with world.running(script) as outbox:
        await script.until(1)
        world.store.is_out = True
        outbox.wake()
        script.gate(first).set()
        while world.store.refusals < 4:
            world.store.refused.clear()
            await world.store.refused.wait()
        second = world.store.put(2, "https://b.example/")
        script.gate(second).set()
        world.store.is_out = False
        await world.store.until(lambda: all(row.ended == "delivered" for row in world.store.rows.values()))
    assert [row.id for row in script.begun] == [first, second]


async def test_stale_fence_changes_nothing(world: World) -> None:
    script = Script(lambda delivery: DEAD, held=True)
    id = world.store.put(1, "https://a.example/")
    async with world.running(script):
        await script.until(1)
        (mine,) = script.begun
        await world.store.finish_delivery(mine, ended="delivered", status=200)
        after = world.store.rows[id]
        script.gate(id).set()
        await settle()
    assert world.store.rows[id] == after


async def test_claim_that_is_nearly_over_is_given_back_and_claimed_anew_instead_of_sent(world: World) -> None:
    script = Script(held=True)
    ids = [world.store.put(n, "https://slow.example/") for n in range(5)]
    async with world.running(script, known=["slow.example"]):
        await script.until(4)
        world.clock.advance(45 - world.clock.monotonic())  # of a claim of 60
        for id in ids:
            script.gate(id).set()
        await world.store.until(lambda: all(row.ended for row in world.store.rows.values()))
    assert [delivery.fence for delivery in script.begun] == [1, 1, 1, 1, GIVEN_BACK + 1]


async def test_drain_lets_what_is_on_its_way_end_and_begins_nothing(world: World) -> None:
    script = Script(held=True)
    ids = [world.store.put(n, "https://slow.example/") for n in range(6)]
    async with world.running(script, known=["slow.example"]) as outbox:
        await script.until(4)
        draining = asyncio.create_task(outbox.drain(5))
        await settle()
        for id in ids:
            script.gate(id).set()
        await draining
    assert sorted(row.ended or "" for row in world.store.rows.values()) == ["", "", *["delivered"] * 4]
    assert len(script.begun) == 4


async def test_drain_cuts_off_what_takes_too_long(world: World) -> None:
    script = Script(held=True)
    world.store.put(1, "https://slow.example/")
    async with world.running(script) as outbox:
        await script.until(1)
        async with asyncio.timeout(2):
            await outbox.drain(0.01)
    assert (script.on_way, world.store.rows["msg_" + "1".zfill(26)].ended) == (0, None)


async def test_after_a_drain_another_worker_has_everything_within_a_second(world: World) -> None:
    mine, others = Script(held=True), Script()
    ids = [world.store.put(n, "https://a.example/", **_started(n)) for n in range(12)]
    async with world.running(mine, known=["a.example"]) as outbox:
        await mine.until(4)
        draining = asyncio.create_task(outbox.drain(10))
        await settle()
        async with world.running(others), asyncio.timeout(1):
            await world.store.until(lambda: sum(row.ended == "delivered" for row in world.store.rows.values()) == 8)
        for id in ids:
            mine.gate(id).set()
        await draining
    assert {row.id for row in mine.begun}.isdisjoint(row.id for row in others.begun)
    assert [row.ended for row in world.store.rows.values()] == ["delivered"] * 12


def _started(n: int) -> dict[str, Any]:
    """Of what is not final every second one: that it was given back is no reason to drop it."""
    return {"event": "start", "is_final": False} if n % 2 else {}


async def test_one_that_waits_is_seen_by_a_worker_that_is_idle_within_a_second(world: World) -> None:
    script = Script()
    id = world.store.put(1, "https://a.example/")
    [claimed] = await world.store.claim_deliveries("gone", limit=1, lease_seconds=60)
    async with world.running(script):
        await settle()
        await world.store.release_deliveries([claimed])
        async with asyncio.timeout(2):
            await world.store.until(lambda: world.store.rows[id].ended == "delivered")


async def test_what_comes_after_one_on_its_way_is_given_back_after_it(world: World) -> None:
    script = Script(held=True)
    first = world.store.put(1, "https://a.example/", prediction="p", event="start", is_final=False)
    second = world.store.put(2, "https://a.example/", prediction="p", sequence=1)
    async with world.running(script) as outbox:
        await script.until(1)
        draining = asyncio.create_task(outbox.drain(5))
        await settle()
        assert world.store.rows[second].due_at > world.clock.now(), "somebody else could send it first"
        script.gate(first).set()
        await draining
    assert [row.id for row in script.begun] == [first]
    [again] = await world.store.claim_deliveries("other", limit=9, lease_seconds=60)
    assert (again.id, again.may_have_been_sent) == (second, False)


async def test_a_try_that_was_begun_is_not_given_back(world: World) -> None:
    script = Script(held=True)
    id = world.store.put(1, "https://a.example/", event="start", is_final=False)
    async with world.running(script) as outbox:
        await script.until(1)
        await outbox.drain(0.01)
    assert await world.store.claim_deliveries("other", limit=9, lease_seconds=60) == []
    world.clock.advance(61 - world.clock.monotonic())
    others = Script()
    async with world.running(others):
        await world.store.until(lambda: world.store.rows[id].ended == "exhausted")
    assert others.begun == [], "it is sent at most once"


async def test_a_try_that_is_cut_off_before_it_began_is_given_back(world: World) -> None:
    script, others = Script(), Script()
    id = world.store.put(1, "https://a.example/", event="start", is_final=False)
    looked = asyncio.Event()

    async def look(id: str) -> None:
        looked.set()
        await asyncio.Event().wait()

    async with world.running(script, look=look) as outbox:
        await looked.wait()
        await outbox.drain(0.01)
    async with world.running(others):
        await world.store.until(lambda: world.store.rows[id].ended == "delivered")
    assert (script.begun, len(others.begun)) == ([], 1)


async def test_what_a_claim_brings_during_a_drain_is_given_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, asked, goes = world.store.claim_deliveries, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **named: Any) -> list[Delivery]:
        asked.set()
        await goes.wait()
        return await claim(*args, **named)

    monkeypatch.setattr(world.store, "claim_deliveries", slow)
    script = Script()
    world.store.put(1, "https://a.example/")
    async with world.running(script) as outbox:
        await asked.wait()
        draining = asyncio.create_task(outbox.drain(5))
        await settle()
        goes.set()
        await draining
        assert len(await claim("other", limit=9, lease_seconds=60)) == 1
    assert script.begun == []


@pytest.mark.parametrize("trouble", ["out", "silent"])
async def test_a_store_that_is_out_does_not_hold_a_drain_up(
    world: World, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*args: object) -> None:
        await asyncio.Event().wait()

    script = Script(held=True)
    for n in range(9):
        world.store.put(n, "https://a.example/")
    async with world.running(script, known=["a.example"]) as outbox:
        await script.until(4)
        if trouble == "out":
            world.store.is_out = True
        else:
            monkeypatch.setattr(world.store, "release_deliveries", silent)
        async with asyncio.timeout(2):
            await outbox.drain(0.2)


@pytest.mark.parametrize(("hosts", "is_suspect"), [(6, False), (12, True)])
async def test_full_lanes_hold_nobody_up(world: World, hosts: int, is_suspect: bool) -> None:
    script = Script(lambda delivery: OK if "well" in delivery.url else DEAD, held=True)
    dead = [world.store.put(n, f"https://dead{n // (900 // hosts)}.example/") for n in range(900)]
    async with world.running(script, known=[f"dead{n}.example" for n in range(hosts)]) as outbox:
        await script.until(4 * hosts)
        await settle()
        if is_suspect:
            for delivery in list(script.begun):
                script.gate(delivery.id).set()  # each fails once, and then its lane's next try hangs
            await script.until(4 * hosts + 1)
            await settle()
        for n in range(20):
            script.gate(world.store.put(1_000 + n, "https://well.example/")).set()
        outbox.wake()
        async with asyncio.timeout(2):
            await world.store.until(lambda: all(r.ended for r in world.store.rows.values() if "well" in r.url))
        held, _ = outbox.in_hand()
        assert held < MAX_HELD
    assert not any(world.store.rows[id].ended for id in dead)


async def test_a_retry_of_a_host_brings_its_whole_backlog_at_once_and_what_hangs_just_then(world: World) -> None:
    alive = False
    late = Outcome(result=Result.UNREACHED, seconds=15.0, error="no answer within 15 s", is_slow=True)
    script = Script(lambda delivery: OK if alive else late, held=True)
    ids = [world.store.put(n, "https://shared.example/") for n in range(150)]
    async with world.running(script, known=["shared.example"]) as outbox:
        await script.until(4)
        for delivery in list(script.begun):
            script.gate(delivery.id).set()
        await script.until(5)
        hanging = script.begun[-1]
        await outbox.retry("ada", "shared.example")
        for row in list(world.store.rows.values()):
            if row.tries:  # as the store's `redeliver` does with what nobody is sending
                world.store.rows[row.id] = msgspec.structs.replace(row, tries=0, due_at=world.clock.now())
        script.gate(hanging.id).set()
        await world.store.until(lambda: world.store.rows[hanging.id].tries == 1)
        alive = True
        for id in ids:
            script.gate(id).set()
        await outbox.retry("ada", "shared.example")
        outbox.wake()
        async with asyncio.timeout(5):
            await world.store.until(lambda: all(row.ended == "delivered" for row in world.store.rows.values()))
    assert world.clock.monotonic() == 0
    assert outbox.standings() == []


async def test_twenty_receivers_ten_of_them_dead_or_dripping_all_healthy_are_served(world: World) -> None:
    """Matrix T13 in the small: the healthy are done while the sick still hang."""
    sick = {f"https://sick{n}.example/" for n in range(10)}
    script = Script(held=True)
    for n in range(400):
        url = f"https://sick{n // 2 % 10}.example/" if n % 2 else f"https://well{n % 20 // 2}.example/"
        id = world.store.put(n, url)
        if url not in sick:
            script.gate(id).set()
    async with world.running(script, known=[f"sick{n}.example" for n in range(10)]):
        await world.store.until(
            lambda: all(row.ended == "delivered" for row in world.store.rows.values() if row.url not in sick)
        )
        assert script.on_way == 40
