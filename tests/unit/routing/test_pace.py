"""The pace: any until it is refused, then near the limit, and never stuck below it."""

from __future__ import annotations

import math
from collections import deque

import pytest

from gateway.routing.pace import FORGOTTEN_SECONDS, Pace


class Limited:
    """A provider that takes so many a second, and refuses what is beyond."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.taken: deque[float] = deque()
        self.refused = 0

    def takes(self, now: float) -> bool:
        while self.taken and self.taken[0] <= now - 1:
            self.taken.popleft()
        if len(self.taken) >= self.per_second:
            self.refused += 1
            return False
        self.taken.append(now)
        return True


def sent(pace: Pace, limited: Limited, *, begin: float, seconds: float, every: float) -> int:
    """How many of a steady demand were taken."""
    good, now = 0, begin
    while now < begin + seconds:
        now += every
        if pace.wait_seconds(now) > 0:
            continue
        pace.admitted(now)
        if limited.takes(now):
            good += 1
        else:
            pace.refused(now + 0.05, begun=now)
    return good


def test_until_it_is_refused_it_is_free() -> None:
    pace = Pace()
    for now in range(100):
        pace.admitted(now / 100)
    assert pace.wait_seconds(1.0) == 0.0
    assert pace.per_second == math.inf


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_it_comes_near_the_limit_with_few_refusals(limit: int) -> None:
    pace, limited = Pace(), Limited(limit)
    sent(pace, limited, begin=0.0, seconds=60.0, every=0.3 / limit)  # it learns
    limited.refused = 0
    good = sent(pace, limited, begin=60.0, seconds=300.0, every=0.3 / limit)
    assert good > 0.75 * limit * 300
    assert limited.refused < 0.08 * good


def test_refusals_of_one_rush_are_one_lesson() -> None:
    pace = Pace()
    for number in range(20):
        pace.admitted(number / 100)
    pace.refused(0.3, begun=0.15)
    once = pace.per_second
    for number in range(5):
        pace.refused(0.31 + number / 100, begun=0.16)
    assert pace.per_second == once


def test_a_limit_that_was_raised_is_found() -> None:
    pace, limited = Pace(), Limited(1)
    sent(pace, limited, begin=0.0, seconds=120.0, every=0.1)
    limited.per_second = 4
    sent(pace, limited, begin=120.0, seconds=240.0, every=0.1)
    assert pace.per_second > 3


def test_a_limit_nobody_met_for_long_is_forgotten() -> None:
    pace = Pace()
    pace.admitted(0.0)
    pace.refused(0.1, begun=0.0)
    assert pace.wait_seconds(0.2) > 0
    assert pace.wait_seconds(0.2 + FORGOTTEN_SECONDS) == 0.0
    assert pace.per_second == math.inf
