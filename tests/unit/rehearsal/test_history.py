"""Recorded offers: luck that is the same for both sides, outages that stay where they were, and what is supposed."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.contract.money import NANOS, Units
from gateway.rehearsal.history import NEIGHBOURS, History, WhatIf
from gateway.rehearsal.trace import FAILED, GOOD, REFUSED, STOPPED
from tests.unit.rehearsal.making import A, B, asked, tried


def test_where_it_was_really_sent_it_meets_what_it_met() -> None:
    ones = [asked(n, tried(at=float(n), seconds=1.0 + n)) for n in range(50)]
    house = History(ones)
    for number in range(50):
        ended = house.take(number, A, 1_000.0)
        assert (ended.now - 1_000.0, ended.is_good, ended.dollars) == (1.0 + number, True, 0.01)


def test_elsewhere_it_meets_what_others_met_there_about_that_time() -> None:
    ones = [asked(n, tried(B, at=float(n), how=FAILED if 300 <= n < 400 else GOOD)) for n in range(1_000)]
    stranger = asked(1_000, tried(A, at=350.0), at=350.0)
    house = History([*ones, stranger])
    outage = Counter(house.take(1_000, B, now).is_good for now in (330.0, 350.0, 370.0))
    assert outage == {False: 3}
    assert all(house.take(1_000, B, now).is_good for now in (100.0, 280.0, 430.0, 900.0))


def test_the_same_prediction_has_the_same_luck_in_every_run_of_a_seed() -> None:
    ones = [asked(n, tried(B, at=float(n), seconds=1.0 + n % 7)) for n in range(100)]
    ones += [asked(n, at=float(n)) for n in range(100, 200)]

    def lucks(seed: int) -> list[float]:
        house = History(ones, seed=seed)
        return [house.take(number, B, 50.0).seconds for number in range(100, 200)]

    assert lucks(1) == lucks(1) != lucks(2)
    assert len(set(lucks(1))) == 7


def test_like_is_drawn_for_like() -> None:
    small, large = Units(megapixels=1), Units(megapixels=64)
    ones = [asked(n, tried(B, at=float(n), seconds=2.0), facts=small) for n in range(50)]
    ones += [asked(n, tried(B, at=float(n), seconds=90.0), facts=large) for n in range(50, 100)]
    ones += [asked(100, facts=small), asked(101, facts=large), asked(102, facts=Units(megapixels=8))]
    house = History(ones)
    assert house.take(100, B, 10.0).seconds == 2.0
    assert house.take(101, B, 10.0).seconds == 90.0
    assert house.take(102, B, 10.0).seconds in (2.0, 90.0)  # of a size nobody has seen: any


def test_an_offer_of_which_nothing_was_recorded_is_as_the_others_are() -> None:
    house = History([asked(n, tried(A, at=float(n), seconds=3.0)) for n in range(20)])
    assert house.take(0, B, 5.0).seconds == 3.0
    assert house.attempts(A) == 20
    assert house.attempts(B) == 0


def test_a_bill_is_in_proportion_to_what_this_one_was_expected_to_cost() -> None:
    ones = [asked(n, tried(B, at=float(n), nanos=3 * NANOS // 100, expected_nanos=NANOS // 100)) for n in range(40)]
    ones.append(asked(40, expected={B: NANOS // 10}))
    assert History(ones).take(40, B, 5.0).dollars == pytest.approx(0.3)
    dearer = History(ones, what_if=WhatIf(prices={"b": 2.0}))
    assert dearer.take(40, B, 5.0).dollars == pytest.approx(0.6)
    assert dearer.expected_nanos(40, B) == NANOS // 5


def test_a_provider_that_is_supposed_to_be_gone_fails_whatever_it_is_sent() -> None:
    house = History([asked(n, tried(A, at=float(n))) for n in range(40)], what_if=WhatIf(dead=frozenset({"a"})))
    ended = house.take(3, A, 5.0)
    assert (ended.is_good, ended.dollars) == (False, 0.0)


def test_refusals_and_stops_are_what_they_were() -> None:
    ones = [asked(n, tried(B, at=float(n), how=REFUSED, nanos=0)) for n in range(40)]
    ones += [asked(40), asked(41, tried(A, at=0.0, how=STOPPED, nanos=NANOS // 400)), asked(42, tried(A, at=1.0))]
    house = History(ones)
    assert house.take(40, B, 5.0).is_refusal
    running = house.take(42, A, 5.0)
    stopped = house.stopped(running, 5.5)
    assert (stopped.is_good, stopped.now, stopped.dollars) == (False, 5.5, pytest.approx(0.01 * 0.25))


def test_neighbours_are_the_nearest_on_both_sides() -> None:
    house = History([asked(n, tried(A, at=float(n), seconds=float(n + 1))) for n in range(500)] + [asked(500)])
    drawn = [house.take(500, A, now).seconds - 1 for now in (0.0, 250.0, 499.0)]
    assert all(abs(at - now) <= NEIGHBOURS for at, now in zip(drawn, (0.0, 250.0, 499.0), strict=True))
