"""
Plays one world's predictions through one strategy, in virtual time, and keeps the books. No clock, no socket, no loop.

Every strategy meets the same arrivals and the same luck, so that two of them differ by their choices alone.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, deque
from typing import NamedTuple, Protocol

from tests.bench.routing.truth import Luck, Truth, Weather, lucks

MOST_ATTEMPTS = 4
REFUSAL_SECONDS = 0.1  # a 429 comes back quickly
RETRY_AFTER_SECONDS = 1.0


class Ended(NamedTuple):
    """One attempt, as the strategy is told of it. A refusal is a 429."""

    prediction: int
    offer: str
    begun: float
    now: float
    is_good: bool
    is_refusal: bool
    start_seconds: float  # until it ran
    dollars: float
    is_stopped: bool = False  # by the strategy's own wish

    @property
    def seconds(self) -> float:
        return self.now - self.begun


class Pick(NamedTuple):
    offer: str
    until_seconds: float = math.inf  # it is stopped after so long


class Strategy(Protocol):
    """Chooses for one prediction after another. Times are the world's seconds."""

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | float | None:
        """Whom to try, or in how many seconds to ask again, or None: nobody is left."""
        ...

    def begun(self, prediction: int, offer: str, now: float) -> None: ...

    def ended(self, ended: Ended) -> None: ...


class Books(NamedTuple):
    """What a run came to."""

    dollars: float
    seconds: tuple[float, ...]  # to the result, by prediction; inf: there was none before the deadline
    attempts: Counter[str]
    refusals: int
    served: Counter[str]

    @property
    def misses(self) -> int:
        return sum(1 for seconds in self.seconds if math.isinf(seconds))


class House:
    """The offers of one world, with what they remember: who is warm, and what they took in the last second."""

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
        return (
            self.truth(offer, now).cold_seconds if self.is_cold(offer, now) else max(self._awake_at[offer] - now, 0.0)
        )

    def take(self, prediction: int, offer: str, now: float) -> Ended:
        """What will come of an attempt that begins now."""
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


def play(house: House, weather: Weather, strategy: Strategy, *, seed: int, count: int) -> Books:
    """
    `count` predictions, one after another as they arrive, each with up to MOST_ATTEMPTS attempts before its deadline.
    Who failed is not tried again, and who refused not before RETRY_AFTER_SECONDS.

    An attempt that is under way at the deadline is stopped there, and billed as a failure is.
    """
    return _Play(house, weather, strategy).run(arrivals(weather, seed, count))


class _Play:
    def __init__(self, house: House, weather: Weather, strategy: Strategy) -> None:
        self._house = house
        self._weather = weather
        self._strategy = strategy
        self._queue: list[tuple[float, int, int, Ended | None]] = []  # when, in turn, whose, what ends
        self._serial = itertools.count()
        self._tried: dict[int, tuple[str, ...]] = {}
        self._refused: dict[int, dict[str, float]] = {}  # by whom, and when it may be asked again
        self._seconds: list[float] = []
        self._dollars = 0.0
        self._attempts: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._refusals = 0

    def run(self, came: list[float]) -> Books:
        self._came = came
        self._seconds = [math.inf] * len(came)
        for prediction, at in enumerate(came):
            self._put(at, prediction, None)
        while self._queue:
            now, _, prediction, ended = heapq.heappop(self._queue)
            if ended is not None:
                self._end(ended, now)
                if ended.is_refusal:
                    self._refused.setdefault(prediction, {})[ended.offer] = now + RETRY_AFTER_SECONDS
                if ended.is_good and math.isinf(self._seconds[prediction]):
                    self._seconds[prediction] = now - came[prediction]
                    self._served[ended.offer] += 1
                    continue
            self._next(prediction, now)
        return Books(self._dollars, tuple(self._seconds), self._attempts, self._refusals, self._served)

    def _put(self, at: float, prediction: int, ended: Ended | None) -> None:
        heapq.heappush(self._queue, (at, next(self._serial), prediction, ended))

    def _next(self, prediction: int, now: float) -> None:
        came, tried = self._came[prediction], self._tried.get(prediction, ())
        deadline = came + self._weather.deadline_seconds
        if now >= deadline or len(tried) >= MOST_ATTEMPTS:
            return
        refused = self._refused.get(prediction, {})
        out = tuple(offer for offer in tried if refused.get(offer, math.inf) > now)
        choice = self._strategy.choose(prediction, now, came=came, tried=out)
        if choice is None and refused:
            choice = max(min(refused.values()) - now, REFUSAL_SECONDS)
        if choice is None:
            return
        if not isinstance(choice, Pick):
            self._put(min(now + choice, deadline), prediction, None)
            return
        offer = choice.offer
        self._tried[prediction] = (*tried, offer)
        self._attempts[offer] += 1
        self._strategy.begun(prediction, offer, now)
        ended = self._house.take(prediction, offer, now)
        until = min(deadline, now + choice.until_seconds)
        if ended.now > until:
            billed = self._house.truth(offer, now).failure_billed
            stopped = ended.dollars * (billed if ended.is_good else 1.0)
            ended = ended._replace(now=until, is_good=False, dollars=stopped, is_stopped=until < deadline)
        self._put(ended.now, prediction, ended)

    def _end(self, ended: Ended, now: float) -> None:
        self._house.leave(ended)
        self._dollars += ended.dollars
        self._refusals += ended.is_refusal
        self._strategy.ended(ended)
