"""Receivers nobody has heard of yet, and that say nothing: how long the others wait for them. In virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import ParamSpec, cast

import pytest

from gateway.delivery.lane import Trust
from gateway.delivery.outbox import HELD_SECONDS, MAX_HELD, Outbox
from gateway.delivery.slot import MAX_IN_FLIGHT, MAX_SUSPECT_IN_FLIGHT, MAX_UNKNOWN_IN_FLIGHT, Slots
from gateway.delivery.webhook import Outcome, Result
from gateway.store.protocol import Delivery, Store
from gateway.testing import ManualClock, VirtualLoop, run_virtual
from tests.unit.delivery.fakes import FakeStore, running

TRY_SECONDS = 15.0
LATE = Outcome(result=Result.UNREACHED, seconds=TRY_SECONDS, error="no answer within 15 s", is_slow=True)
OK = Outcome(result=Result.DELIVERED, seconds=0.1, status=200)

Given = ParamSpec("Given")


def virtual(test: Callable[Given, Awaitable[None]]) -> Callable[Given, None]:
    @functools.wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run_virtual(main())

    return run


class Line:
    """Whoever is called dead says nothing until the time is over; all others answer in a tenth of a second."""

    def __init__(self) -> None:
        self.on_way = self.peak = 0

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        self.on_way += 1
        self.peak = max(self.peak, self.on_way)
        try:
            is_dead = "dead" in delivery.url
            await asyncio.sleep(TRY_SECONDS if is_dead else 0.1)
        finally:
            self.on_way -= 1
        return LATE if is_dead else OK


class Town:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock: ManualClock = loop.clock
        self.store = FakeStore(self.clock)
        self.line = Line()
        self._count = 0

    def put(self, host: str, rows: int = 1) -> str:
        for _ in range(rows):
            self._count += 1
            id = self.store.put(self._count, f"https://{host}/")
        return id

    @contextlib.asynccontextmanager
    async def running(self, *, known: Iterable[str] = ()) -> AsyncIterator[Outbox]:
        outbox = Outbox(
            cast(Store, self.store), self.line, worker="w", clock=self.clock, draw=lambda: 0.5, timeout_seconds=15.0
        )
        async with running(outbox, known=known):
            yield outbox

    async def arrival_seconds(self, id: str) -> float:
        await self.store.until(lambda: self.store.rows[id].ended is not None)
        row = self.store.rows[id]
        assert row.ended == "delivered"
        return (self.clock.now() - row.created_at).total_seconds()


@pytest.mark.parametrize(
    ("dead", "rows", "known"),
    [(64, 1, []), (64, 40, []), (MAX_UNKNOWN_IN_FLIGHT - 1, 5, []), (256, 5, ["well.example"])],
    ids=["64", "64 with a backlog each", "127", "256, and the healthy one has answered before"],
)
@virtual
async def test_a_healthy_receiver_waits_for_no_unknown_dead_one(dead: int, rows: int, known: list[str]) -> None:
    """All of theirs is due before its own. It may wait for one look into the store, and not for their timeout."""
    town = Town()
    for n in range(dead):
        town.put(f"dead{n}.example", rows)
    well = town.put("well.example")
    async with town.running(known=known) as outbox:
        assert await town.arrival_seconds(well) <= HELD_SECONDS
        held, _ = outbox.in_hand()
        assert held < MAX_HELD
    assert town.line.peak <= MAX_IN_FLIGHT


@virtual
async def test_nor_later_while_they_are_tried_again_and_again() -> None:
    """Ten minutes, each ten seconds one that is known and one that is new, and 64 that are dead."""
    town, late = Town(), []
    for n in range(64):
        town.put(f"dead{n}.example", 10)
    async with town.running() as outbox:
        for turn in range(60):
            healthy = town.put("well.example"), town.put(f"new{turn}.example")
            outbox.wake()
            late += [await town.arrival_seconds(id) for id in healthy]
            await asyncio.sleep(10 - sum(late[-2:]) / 2)
    assert max(late) <= HELD_SECONDS
    assert town.clock.monotonic() >= 595


@virtual
async def test_a_new_receiver_gets_one_until_it_has_answered_and_then_four_at_once() -> None:
    town = Town()
    last = town.put("new.example", 9)
    async with town.running() as outbox:
        # One, then four, then four, at a tenth of a second each.
        assert await town.arrival_seconds(last) <= 0.35
        assert town.line.peak == 4
        await asyncio.sleep(60)  # nothing of its lane is left
        last = town.put("new.example", 4)
        outbox.wake()
        assert await town.arrival_seconds(last) <= 0.15, "it was new once more"


def test_each_kind_has_its_bound_and_the_proven_always_find_a_quarter() -> None:
    slots = Slots()

    def fill(trust: Trust) -> int:
        taken = 0
        while slots.has_one(trust):
            slots.take(trust)
            taken += 1
        return taken

    assert fill(Trust.UNKNOWN) == MAX_UNKNOWN_IN_FLIGHT
    assert fill(Trust.SUSPECT) == MAX_SUSPECT_IN_FLIGHT
    assert fill(Trust.PROVEN) == MAX_IN_FLIGHT // 4
    slots.free(Trust.SUSPECT)
    assert (fill(Trust.UNKNOWN), fill(Trust.PROVEN), fill(Trust.SUSPECT)) == (0, 1, 0)
