"""Receivers that fail for days, ask for patience, or share their host with somebody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.contract.host import host_of
from gateway.delivery.lane import MAX_WAITING
from gateway.delivery.outbox import Outbox
from gateway.delivery.schedule import next_due
from gateway.delivery.webhook import Outcome, Result
from tests.unit.delivery.fakes import START
from tests.unit.delivery.test_outbox import DEAD, OK, Script, World, settle

URL = "https://hooks.example/x"
HOST = host_of(URL)
DAY = 86_400.0
REFUSED = Outcome(result=Result.REFUSED, seconds=0.1, status=404)


@pytest.fixture
def world() -> World:
    return World()


async def fail_for(world: World, outbox: Outbox, script: Script, days: float, first: int = 0) -> int:
    """A new event every twelve hours, and none of them arrives."""
    number = first
    end = world.clock.monotonic() + days * DAY
    while world.clock.monotonic() < end:
        id = world.store.put(number, URL)
        outbox.wake()
        await world.store.until(lambda id=id: world.store.rows[id].tries >= 1)  # type: ignore[misc]
        await settle()
        world.clock.advance(DAY / 2)
        number += 1
    return number


@pytest.mark.parametrize("outcome", [DEAD, REFUSED])
async def test_after_five_days_of_only_failures_nothing_is_tried_until_somebody_asks(
    world: World, outcome: Outcome
) -> None:
    script = Script(lambda delivery: outcome)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 5.5)
        begun = len(script.begun)
        id = world.store.put(number, URL)
        outbox.wake()
        await world.store.until(lambda: world.store.rows[id].ended is not None)
        assert world.store.rows[id].ended == "exhausted"
        assert "for days" in (world.store.rows[id].last_error or "")
        assert len(script.begun) == begun, "it was tried all the same"
        (standing,) = outbox.standings()
        assert (standing.host, standing.is_disabled, standing.failing_since) == (HOST, True, START)
        script._judge = lambda delivery: OK
        await outbox.retry("ada", HOST)
        id = world.store.put(number + 1, URL)
        outbox.wake()
        await world.store.until(lambda: world.store.rows[id].ended == "delivered")
        assert outbox.standings() == []


async def test_a_restart_forgets_no_day_of_it(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 4.5)
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 1.0, first=number)
        assert outbox.standings()[0].is_disabled


async def test_one_that_arrives_in_between_begins_the_count_anew(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 4.5)
        script._judge = lambda delivery: OK
        world.clock.advance(3_600)
        world.store.put(number, URL)
        outbox.wake()
        await world.store.until(lambda: any(row.ended == "delivered" for row in world.store.rows.values()))
        await settle()
        script._judge = lambda delivery: DEAD
        await fail_for(world, outbox, script, 1.5, first=number + 1)
        assert not outbox.standings()[0].is_disabled


async def test_one_that_somebody_asked_for_begins_the_count_anew_also_after_a_restart(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 4.5)
        await outbox.retry("ada", HOST)
    async with world.running(script) as outbox:
        await fail_for(world, outbox, script, 1.5, first=number)
        assert not outbox.standings()[0].is_disabled


async def test_a_record_that_nobody_has_touched_for_long_counts_for_nothing(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        number = await fail_for(world, outbox, script, 1.0)
    world.clock.advance(10 * DAY)
    async with world.running(script) as outbox:
        await fail_for(world, outbox, script, 0.5, first=number)
        assert not outbox.standings()[0].is_disabled


async def test_a_store_that_is_out_while_it_fails_costs_no_delivery(world: World) -> None:
    script = Script(lambda delivery: DEAD)
    async with world.running(script) as outbox:
        setting = world.store.setting

        async def out(name: str, default: str) -> str:
            world.store.is_out = True
            try:
                return await setting(name, default)
            finally:
                world.store.is_out = False

        world.store.setting = out  # type: ignore[method-assign]
        id = world.store.put(1, URL)
        outbox.wake()
        await world.store.until(lambda: world.store.rows[id].tries == 1)


async def test_an_owners_dead_receiver_does_not_hold_back_another_owners_at_the_same_host(world: World) -> None:
    """Both speak to one big host, by addresses of their own; the dead one's backlog is older, and long."""

    def judge(delivery: Any) -> Outcome:
        return OK if delivery.owner == "bob" else DEAD

    script = Script(judge, held=True)
    for number in range(400):
        world.store.put(number, URL, owner="ada")
    async with world.running(script, known=[HOST]) as outbox:
        await script.until(4)
        for delivery in list(script.begun):
            script.gate(delivery.id).set()  # four fail, and the lane is narrow
        await script.until(5)
        await settle()
        held = [delivery for delivery in script.begun if not script.gate(delivery.id).is_set()]
        assert len(held) == 1, "one try of the dead receiver hangs"
        assert len(outbox._lanes["ada", HOST].waiting) >= MAX_WAITING
        id = world.store.put(1_000, URL, owner="bob")
        script.gate(id).set()
        world.clock.advance(1.5)
        outbox.wake()
        await world.store.until(lambda: world.store.rows[id].ended == "delivered")
        assert not script.gate(held[0].id).is_set(), "and still hangs"


@pytest.mark.parametrize(
    ("retry_after", "least", "most"), [(None, 60, 60), (30.0, 60, 60), (90.0, 90, 90), (900.0, 120, 120)]
)
def test_who_is_slow_or_asks_for_patience_has_a_minute(retry_after: float | None, least: float, most: float) -> None:
    due = next_due(1, START, START, 0.5, retry_after, is_slow=True)
    assert due is not None
    assert least <= (due - START).total_seconds() <= most


def test_a_gap_that_is_longer_anyway_stays() -> None:
    due = next_due(6, START, START, 0.5, is_slow=True)
    assert due is not None
    assert (due - START).total_seconds() == 1_800


async def test_a_slow_one_is_put_off_for_a_minute_and_a_broken_one_for_two_seconds(world: World) -> None:
    slow = Outcome(result=Result.UNREACHED, seconds=15.0, error="no answer within 15 s", is_slow=True)
    broken = Outcome(result=Result.UNREACHED, seconds=0.0, error="the connection broke")
    for outcome, seconds in ((slow, 60.0), (broken, 2.0)):
        script = Script(lambda delivery, outcome=outcome: outcome)  # type: ignore[misc]
        async with world.running(script) as outbox:
            id = world.store.put(int(seconds), f"https://h{seconds:g}.example/")
            outbox.wake()
            await world.store.until(lambda id=id: world.store.rows[id].tries == 1)  # type: ignore[misc]
            assert (world.store.rows[id].due_at - world.clock.now()).total_seconds() == pytest.approx(seconds)
        await asyncio.sleep(0)
