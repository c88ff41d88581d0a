"""
The houses of a simulated world, whose truth is known, and what comes in. Every strategy meets the same arrivals and the
same luck, so that two of them differ by their choices alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque

from gateway.rehearsal.play import RETRY_AFTER_SECONDS, Books, Coming, Ended, Router
from gateway.rehearsal.play import play as played
from tests.bench.routing.truth import Luck, Truth, Weather, lucks

MOST_ATTEMPTS = 4
REFUSAL_SECONDS = 0.1  # a 429 comes back quickly


class House:
    """
    The offers of one world, with what they remember: who is warm, and what they took in the last second.

    A `gateway.rehearsal.play.House`.
    """

    def __init__(self, weather: Weather, seed: int, count: int) -> None:
        self._weather = weather
        self._lucks = {offer: lucks(seed, offer, count) for offer in weather.listed}
        self._busy: Counter[str] = Counter()
        self._idle_since: dict[str, float] = dict.fromkeys(weather.listed, -math.inf)
        self._awake_at: dict[str, float] = dict.fromkeys(weather.listed, -math.inf)
        self._taken: dict[str, deque[float]] = {offer: deque() for offer in weather.listed}
        self._closed_until: dict[str, float] = dict.fromkeys(weather.listed, -math.inf)

    def truth(self, offer: str, now: float) -> Truth:
        return self._weather.at(now)[offer]

    def truths(self, now: float) -> dict[str, Truth]:
        return self._weather.at(now)

    def is_full(self, offer: str, now: float) -> bool:
        """So many in the last second, or it has said that it takes none for another while, and means it."""
        if now < self._closed_until[offer]:
            return True
        taken = self._taken[offer]
        while taken and taken[0] <= now - 1.0:
            taken.popleft()
        return len(taken) >= self.truth(offer, now).most_per_second

    def is_cold(self, offer: str, now: float) -> bool:
        return not self._busy[offer] and now - self._idle_since[offer] > self.truth(offer, now).warm_seconds

    def start_seconds(self, offer: str, now: float) -> float:
        """How long a job that comes now waits until it runs."""
        if self.is_cold(offer, now):
            return self.truth(offer, now).cold_seconds
        return max(self._awake_at[offer] - now, 0.0)

    def take(self, prediction: int, offer: str, now: float) -> Ended:
        truth, luck = self.truth(offer, now), self._lucks[offer][prediction]
        if self.is_full(offer, now):
            if now >= self._closed_until[offer]:
                self._closed_until[offer] = now + RETRY_AFTER_SECONDS
            return Ended(prediction, offer, now, now + REFUSAL_SECONDS, False, True, 0.0, 0.0)
        start = self.start_seconds(offer, now)
        self._awake_at[offer] = now + start
        self._taken[offer].append(now)
        self._busy[offer] += 1
        return _fate(truth, luck, prediction, offer, now, start)

    def stopped(self, ended: Ended, until: float) -> Ended:
        """It is billed as a failure is."""
        billed = self.truth(ended.offer, ended.begun).failure_billed if ended.is_good else 1.0
        start = min(ended.start_seconds, until - ended.begun)
        return ended._replace(now=until, is_good=False, dollars=ended.dollars * billed, start_seconds=start)

    def leave(self, ended: Ended) -> None:
        if not ended.is_refusal:
            self._busy[ended.offer] -= 1
            self._idle_since[ended.offer] = ended.now


def _fate(truth: Truth, luck: Luck, prediction: int, offer: str, now: float, start: float) -> Ended:
    billed = truth.dollars * truth.billed_factor
    if luck.success >= truth.success:
        end = now + start + truth.failure_seconds
        return Ended(prediction, offer, now, end, False, False, start, billed * truth.failure_billed)
    slow = truth.slow_factor if luck.slow < truth.slow_share else 1.0
    seconds = truth.median_seconds * math.exp(truth.sigma * luck.time) * slow
    return Ended(prediction, offer, now, now + start + seconds, True, False, start, billed)


def arrivals(weather: Weather, seed: int, count: int) -> list[float]:
    drawn, now, found = random.Random(f"{seed} arrivals"), 0.0, []
    for _ in range(count):
        now += drawn.expovariate(weather.per_second)
        found.append(now)
    return found


def play(house: House, weather: Weather, router: Router, *, seed: int, count: int) -> Books:
    """`count` predictions, each with up to MOST_ATTEMPTS attempts before its deadline."""
    came = arrivals(weather, seed, count)
    return played(house, router, [Coming(at, weather.deadline_seconds, MOST_ATTEMPTS) for at in came])
