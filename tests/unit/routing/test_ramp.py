"""The return of an offer that was away: how fast, in which order, and whom it never keeps waiting."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.errors import Blame
from gateway.contract.prediction import Prediction
from gateway.routing.ramp import AWAY_SECONDS, RAMP_SECONDS, UNKNOWN_PER_SECOND, Place, Ramps
from gateway.testing import ManualClock
from tests.unit.routing.fakes import BEGINNING
from tests.unit.routing.making import World, catalog, section

OFFER = "acme/up@a"
STEADY = 50.0


def place(number: int) -> Place:
    return BEGINNING + timedelta(seconds=number), f"p{number:05}"


class Herd:
    """Predictions that wait for one offer, and ask again when they were told to, and a little later."""

    def __init__(self, places: Sequence[Place], *, capacity: float | None = STEADY, seed: int = 1) -> None:
        self.clock = ManualClock(BEGINNING)
        self.ramps = Ramps(self.clock)
        self.gone: list[tuple[float, Place]] = []
        self._capacity = capacity
        self._draw = random.Random(seed)
        self._waiting = [(0.0, one) for one in places]

    def stay_away(self, seconds: float) -> None:
        self.ramps.away(OFFER)
        for _, one in self._waiting:
            self.ramps.wait(OFFER, one, seconds=seconds)
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        # Each wakes within a second, in no order: the breaker tells them to look again after that.
        self._waiting = [(now + self._draw.uniform(0, 1), one) for _, one in self._waiting]

    def come(self, *places: Place) -> None:
        self._waiting += [(self.clock.monotonic(), one) for one in places]

    def go(self, seconds: float) -> None:
        """Let time pass; whoever's turn it is goes."""
        end = self.clock.monotonic() + seconds
        heapq.heapify(self._waiting)
        while self._waiting and self._waiting[0][0] <= end:
            at, one = heapq.heappop(self._waiting)
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            wait = self.ramps.turn_seconds(OFFER, place=one, capacity_per_second=self._capacity)
            if wait == 0:
                self.ramps.admit(OFFER, one)
                self.gone.append((self.clock.monotonic(), one))
            else:
                self.ramps.wait(OFFER, one, seconds=wait)
                heapq.heappush(self._waiting, (self.clock.monotonic() + wait + self._draw.uniform(0, 0.03), one))
        self.clock.advance(max(0.0, end - self.clock.monotonic()))

    def busiest_second(self) -> int:
        times = [at for at, _ in self.gone]
        return max(sum(1 for other in times if at <= other < at + 1.0) for at in times)


def test_a_thousand_that_waited_go_bit_by_bit_the_oldest_first_and_are_all_gone_within_a_minute() -> None:
    herd = Herd([place(number) for number in random.Random(2).sample(range(1000), 1000)])
    herd.stay_away(20)
    began = herd.clock.monotonic()
    herd.go(60)
    assert len(herd.gone) == 1000
    assert herd.busiest_second() <= 1.2 * STEADY
    in_first = [one for at, one in herd.gone if at < began + 1]
    assert 1 <= len(in_first) <= 0.2 * STEADY, "it begins with a tenth"
    # Those that happened to wake before the oldest had looked can be early by a second's worth.
    positions = [int(one[1][1:]) for _, one in herd.gone]
    assert max(abs(position - rank) for rank, position in enumerate(positions)) <= len(in_first) + 5


def test_it_reaches_the_usual_rate_when_its_time_is_over_and_is_then_forgotten() -> None:
    herd = Herd([place(number) for number in range(2000)])
    herd.stay_away(20)
    began = herd.clock.monotonic()
    herd.go(RAMP_SECONDS)
    last = sum(1 for at, _ in herd.gone if at >= began + RAMP_SECONDS - 1)
    assert 0.8 * STEADY <= last <= 1.2 * STEADY
    herd.go(60)
    assert len(herd.gone) == 2000
    turns = [
        herd.ramps.turn_seconds(OFFER, place=place(9000 + number), capacity_per_second=STEADY) for number in range(50)
    ]
    assert turns == [0.0] * 50


def test_a_lone_prediction_never_waits() -> None:
    for capacity in (0.01, 1.0, STEADY, None):
        herd = Herd([place(0)], capacity=capacity)
        herd.stay_away(300)
        herd.go(1.0)
        assert [one for _, one in herd.gone] == [place(0)]
        for number in range(1, 30):
            herd.clock.advance(1.01)
            assert herd.ramps.turn_seconds(OFFER, place=place(number), capacity_per_second=capacity) == 0.0
            herd.ramps.admit(OFFER, place(number))


def test_who_came_later_waits_behind_those_who_wait() -> None:
    herd = Herd([place(number) for number in range(1, 100)])
    herd.stay_away(20)
    herd.go(1.0)
    herd.come(place(500), place(0))  # one that came now, and one that was with another provider until now
    herd.go(60)
    order = [one for _, one in herd.gone]
    assert order[-1] == place(500)
    assert order.index(place(0)) < 20


def test_a_sleeper_holds_nobody_up() -> None:
    herd = Herd([place(number) for number in range(100, 150)])
    herd.ramps.away(OFFER)
    for number in range(100):
        herd.ramps.wait(OFFER, place(number), seconds=3000)  # canceled, say: never seen again
    herd.stay_away(20)
    herd.go(60)
    assert len(herd.gone) == 50


def test_when_only_sleepers_are_left_it_is_over() -> None:
    herd = Herd([])
    herd.stay_away(20)
    herd.ramps.wait(OFFER, place(0), seconds=3000)
    for _ in range(2):
        herd.ramps.turn_seconds(OFFER, place=place(9), capacity_per_second=STEADY)
        herd.clock.advance(RAMP_SECONDS + 1)
    for number in range(50):
        assert herd.ramps.turn_seconds(OFFER, place=place(9 + number), capacity_per_second=STEADY) == 0.0
        herd.ramps.admit(OFFER, place(9 + number))


def test_what_nobody_took_is_not_saved_up_for_a_rush() -> None:
    herd = Herd([place(0)])
    herd.stay_away(20)
    herd.go(15)
    herd.come(*(place(100 + number) for number in range(500)))
    herd.go(60)
    assert len(herd.gone) == 501
    assert herd.busiest_second() <= 1.2 * STEADY


def test_a_short_absence_is_none() -> None:
    herd = Herd([place(number) for number in range(100)])
    herd.stay_away(AWAY_SECONDS - 0.1 - 1.0)
    herd.go(1.0)
    assert len(herd.gone) == 100


def test_away_again_it_comes_back_as_slowly_as_before() -> None:
    herd = Herd([place(number) for number in range(200)])
    herd.stay_away(20)
    herd.go(2.0)
    gone = len(herd.gone)
    assert gone < 40
    herd.stay_away(1.0)
    herd.go(2.0)
    assert len(herd.gone) - gone < 40
    herd.go(60)
    assert sorted(one for _, one in herd.gone) == [place(number) for number in range(200)]


def test_without_a_limit_what_was_seen_before_is_the_usual_rate() -> None:
    def drained_seconds(per_second: int) -> float:
        herd = Herd([place(number) for number in range(1000)], capacity=None)
        for number in range(per_second * 20):
            herd.ramps.admit(OFFER, place(-1 - number))
            herd.clock.advance(1 / per_second)
        herd.stay_away(20)
        began = herd.clock.monotonic()
        herd.go(300)
        assert len(herd.gone) == 1000
        return herd.gone[-1][0] - began

    assumed = drained_seconds(int(UNKNOWN_PER_SECOND))
    assert drained_seconds(100) < 30 < assumed < 100
    assert drained_seconds(2) == pytest.approx(assumed, rel=0.02)


# -- in the plan ----------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    world = World(catalog(section("a")), draw=lambda: 0.5, limits={"a": 10})
    world.planner._ramps = Ramps(world.clock)
    world.serve(OFFER, 1.0)  # ten at once, a second each: ten a second
    return world


def waiting(world: World, number: int, **more: Any) -> Prediction:
    return replace(
        world.prediction(**more), id=f"{number:026}", created_at=world.clock.now() + timedelta(seconds=number)
    )


def break_and_mend(world: World, predictions: Sequence[Prediction]) -> None:
    for _ in range(5):
        ticket = world.breakers.admit(OFFER)
        assert ticket is not None
        ticket.failure(Blame.PROVIDER)
    for one in predictions:
        assert world.planner.plan(one, excluded=frozenset(), now=world.clock.now()).wait_seconds
    world.clock.advance(20)
    probe = world.breakers.admit(OFFER)
    assert probe is not None
    probe.success()


def test_the_plan_says_why_a_prediction_waits_and_until_when(world: World) -> None:
    predictions = [waiting(world, number) for number in range(5)]
    break_and_mend(world, predictions)
    plans = [world.planner.plan(one, excluded=frozenset(), now=world.clock.now()) for one in predictions]
    assert [bool(plan.kept) for plan in plans] == [True, False, False, False, False]
    reason = plans[1].choices[0].reasons[0]
    assert (reason.code, reason.text[:14]) == ("returning", "it was away; t")
    waits = [plan.wait_seconds for plan in plans[1:]]
    assert waits == sorted(waits, key=lambda wait: wait or 0.0)
    assert waits[0] == pytest.approx(0.87, abs=0.05)  # a tenth of ten a second, and growing


def test_the_oldest_goes_first_whoever_asks_first(world: World) -> None:
    predictions = [waiting(world, number) for number in range(5)]
    break_and_mend(world, predictions)
    kept = [
        bool(world.planner.plan(one, excluded=frozenset(), now=world.clock.now()).kept) for one in reversed(predictions)
    ]
    assert kept == [False, False, False, False, True]


def test_explaining_counts_nobody(world: World) -> None:
    predictions = [waiting(world, number) for number in range(2)]
    break_and_mend(world, predictions)
    for _ in range(3):
        explained = world.planner.explain("acme/up", input={}, now=world.clock.now())
        assert explained.choices[0].reasons[0].code == "returning"
    assert world.planner.plan(predictions[0], excluded=frozenset(), now=world.clock.now()).kept
