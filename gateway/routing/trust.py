"""
How likely an offer's next attempt succeeds: a filter over two states, in order and out of order, and what is usual.

A share of successes cannot tell an outage from bad luck: it sees the one too late and punishes the other too long. Two
states can: a few failures in a row make an outage likely, one or two successes after it make it unlikely again, and in
silence it passes by itself.
"""

from __future__ import annotations

import math

PRIOR = 0.95  # of an offer nobody has tried
PRIOR_OUTCOMES = 2.0  # that it counts for
OUT_OF_ORDER = 0.08  # succeed then
# Seconds: how long an offer is in order, and how long an outage lasts, in the mean.
UP_SECONDS = 1_800.0
DOWN_SECONDS = 45.0
# What is usual is learned from so many outcomes, and they count half after so long.
OUTCOMES = 200.0
HALF_LIFE_SECONDS = 3_600.0

_USUALLY_DOWN = DOWN_SECONDS / (DOWN_SECONDS + UP_SECONDS)
_RATE = 1 / DOWN_SECONDS + 1 / UP_SECONDS


class Trust:
    """One offer's. Times are the monotonic clock's."""

    __slots__ = ("_all", "_at", "_down", "_good")

    def __init__(self) -> None:
        self._good = self._all = 0.0  # outcomes in order, decayed
        self._down = _USUALLY_DOWN  # the probability that it is out of order
        self._at = 0.0

    def add(self, *, is_good: bool, at: float, now: float) -> None:
        """One outcome, of the moment `at`: one that is told late counts as much less as it is old."""
        self._pass(now)
        weight = 2.0 ** (min(at - now, 0.0) / HALF_LIFE_SECONDS)
        self._down = self._after(self._down, is_good)
        learned = weight * (1.0 - self._down)
        keep = 1.0 - learned / OUTCOMES
        self._all = self._all * keep + learned
        self._good = self._good * keep + (learned if is_good else 0.0)

    def estimate(self, now: float, *, pending_failures: int = 0) -> float:
        """
        The probability that the next one succeeds.

        `pending_failures`: attempts that should have ended long ago, and will hardly end well.
        """
        self._pass(now)
        down = self._down
        for _ in range(pending_failures):
            down = self._after(down, is_good=False)
        return down * OUT_OF_ORDER + (1.0 - down) * self._usual

    def outcomes(self, now: float) -> float:
        """How many outcomes it stands on."""
        self._pass(now)
        return self._all

    @property
    def _usual(self) -> float:
        return (self._good + PRIOR * PRIOR_OUTCOMES) / (self._all + PRIOR_OUTCOMES)

    def _after(self, down: float, is_good: bool) -> float:
        """Bayes' rule."""
        up, out = (self._usual, OUT_OF_ORDER) if is_good else (1.0 - self._usual, 1.0 - OUT_OF_ORDER)
        return down * out / (down * out + (1.0 - down) * up)

    def _pass(self, now: float) -> None:
        past = now - self._at
        if past <= 0:
            return
        self._down = _USUALLY_DOWN + (self._down - _USUALLY_DOWN) * math.exp(-past * _RATE)
        keep = 2.0 ** (-past / HALF_LIFE_SECONDS)
        self._good *= keep
        self._all *= keep
        self._at = now
