"""The server's time as it is known here: how sure it is, and what steps of either clock do to it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from gateway.contract.clock import SLEW
from gateway.store._redis_clock import DRIFT, LONGEST_SECONDS, MOST_READINGS, ServerClock, ServerTime

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()


class Machine:
    """A machine whose clocks go as a test says."""

    def __init__(self) -> None:
        self.passed = 1_000.0
        self.shown = datetime(2020, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> datetime:
        raise AssertionError("what this machine believes is nothing to anybody")

    def wall(self) -> datetime:
        return self.shown


def ask(time: ServerTime, machine: Machine, truth: float, *, there: float, back: float) -> None:
    """One round trip; `truth` is how far the server is ahead."""
    sent = machine.passed
    machine.passed += there
    shown = machine.passed + truth
    machine.passed += back
    time.note(sent, machine.passed, shown)


@pytest.mark.parametrize("seed", range(20))
def test_the_truth_is_never_farther_away_than_it_says(seed: int) -> None:
    draw = random.Random(seed)
    machine = Machine()
    time = ServerTime(machine.monotonic)
    truth, drift = NOON, draw.uniform(-DRIFT, DRIFT)
    for _ in range(300):
        pause = draw.expovariate(1.0)
        machine.passed += pause
        truth += pause * drift
        if draw.random() < 0.3:
            ask(time, machine, truth, there=draw.expovariate(50), back=draw.expovariate(50))
        if time.is_known:
            error = machine.passed + NOON - NOON + truth - time.seconds()
            sure = time.seconds() - time.surely_before(machine.passed)
            assert abs(error) <= sure + 1e-6
            assert time.surely_before(machine.passed + 2) <= machine.passed + 2 + truth + 1e-6
    assert time.steps == 0, "nobody set it"


def test_the_shortest_round_trip_is_believed() -> None:
    machine = Machine()
    time = ServerTime(machine.monotonic)
    ask(time, machine, NOON, there=0.001, back=0.001)
    ask(time, machine, NOON, there=0.9, back=0.001)
    assert time.seconds() - machine.passed == pytest.approx(NOON, abs=0.0001)
    assert time.steps == 0


def test_an_answer_that_lay_frozen_moves_nothing() -> None:
    machine = Machine()
    time = ServerTime(machine.monotonic)
    ask(time, machine, NOON, there=0.001, back=0.001)
    ask(time, machine, NOON, there=60.0, back=0.001)
    assert time.seconds() - machine.passed == pytest.approx(NOON, abs=0.001)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 0.5])
def test_a_server_that_was_set_is_believed_at_once(step: float) -> None:
    machine = Machine()
    time = ServerTime(machine.monotonic)
    for _ in range(MOST_READINGS):
        ask(time, machine, NOON, there=0.001, back=0.001)
    ask(time, machine, NOON + step, there=0.01, back=0.01)
    assert time.steps == 1
    assert time.seconds() - machine.passed == pytest.approx(NOON + step, abs=0.02)


def test_old_readings_are_given_up_as_soon_as_there_is_a_new_one() -> None:
    machine = Machine()
    time = ServerTime(machine.monotonic)
    ask(time, machine, NOON, there=0, back=0)
    machine.passed += LONGEST_SECONDS + 1
    ask(time, machine, NOON + 1, there=0.01, back=0.01)
    assert time.seconds() - machine.passed == pytest.approx(NOON + 1, abs=0.02)


def test_the_clock_must_be_begun_before_it_is_read() -> None:
    with pytest.raises(RuntimeError, match="before the store was reached"):
        ServerClock(Machine()).now()
    with pytest.raises(RuntimeError, match="not been asked"):
        ServerTime(lambda: 0.0).seconds()


def test_a_step_of_this_machine_changes_nothing_but_its_own_face() -> None:
    machine = Machine()
    time, clock = ServerTime(machine.monotonic), ServerClock(machine)
    ask(time, machine, NOON, there=0, back=0)
    clock.follow(time)
    before = clock.now()
    machine.shown += timedelta(hours=5)
    machine.passed += 1
    assert clock.now() - before == timedelta(seconds=1)
    assert clock.wall() == machine.shown
    assert clock.monotonic() == machine.passed


def test_a_step_of_the_server_is_taken_up_slowly_and_never_backwards() -> None:
    machine = Machine()
    time, clock = ServerTime(machine.monotonic), ServerClock(machine)
    ask(time, machine, NOON, there=0, back=0)
    clock.follow(time)
    for step in (60.0, -60.0):
        before, passed = clock.now(), machine.passed
        ask(time, machine, NOON + step, there=0.001, back=0.001)
        machine.passed += 100
        took = machine.passed - passed
        assert (clock.now() - before).total_seconds() == pytest.approx(took * (1 + SLEW * (1 if step > 0 else -1)))


def test_it_goes_over_to_another_server_without_a_jump() -> None:
    machine = Machine()
    first, second, clock = ServerTime(machine.monotonic), ServerTime(machine.monotonic), ServerClock(machine)
    ask(first, machine, NOON, there=0, back=0)
    ask(second, machine, NOON + 5, there=0, back=0)
    clock.follow(first)
    before = clock.now()
    clock.follow(second)
    assert clock.now() == before
    machine.passed += 10_000
    assert (clock.now() - before).total_seconds() == pytest.approx(10_005)
