"""
Plays predictions through a router in virtual time, one attempt after another, and keeps the books. It knows no
provider: what comes of an attempt is the house's to say. No clock, no socket, no loop.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

MOST_ATTEMPTS = 20
RETRY_AFTER_SECONDS = 1.0
LEAST_WAIT_SECONDS = 0.05


class Ended(NamedTuple):
    """One attempt, as the router is told of it. A refusal is one for its rate."""

    prediction: int
    offer: str
    begun: float
    now: float
    is_good: bool
    is_refusal: bool
    start_seconds: float  # until it ran
    dollars: float
    is_stopped: bool = False  # by the plan: it goes on with another

    @property
    def seconds(self) -> float:
        return self.now - self.begun


class Pick(NamedTuple):
    offer: str
    until_seconds: float = math.inf  # it is stopped after so long


class Router(Protocol):
    """Chooses for one prediction after another. Times are seconds from the beginning."""

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | float | None:
        """Whom to try, or in how many seconds to ask again, or None: nobody is left."""
        ...

    def begun(self, prediction: int, offer: str, now: float) -> None: ...

    def ended(self, ended: Ended) -> None: ...


class House(Protocol):
    """All offers, and what comes of attempts at them."""

    def take(self, prediction: int, offer: str, now: float) -> Ended:
        """What will come of an attempt that begins now."""
        ...

    def stopped(self, ended: Ended, until: float) -> Ended:
        """The same, had it been stopped before its end."""
        ...

    def leave(self, ended: Ended) -> None:
        """It is over now."""
        ...


class Coming(NamedTuple):
    """One prediction: when it comes, and how long somebody waits for it."""

    at: float
    deadline_seconds: float
    attempts: int = MOST_ATTEMPTS  # at most


class Books(NamedTuple):
    """What a run came to."""

    dollars: tuple[float, ...]  # by prediction
    seconds: tuple[float, ...]  # to the result, by prediction; inf: there was none before the deadline
    attempts: Counter[str]
    refusals: int
    served: Counter[str]

    @property
    def misses(self) -> int:
        return sum(1 for seconds in self.seconds if math.isinf(seconds))


def play(house: House, router: Router, coming: Sequence[Coming]) -> Books:
    """
    Who failed is not tried again, and who refused not before RETRY_AFTER_SECONDS.

    An attempt that is under way at the deadline is stopped there.
    """
    return _Play(house, router, coming).run()


class _Play:
    def __init__(self, house: House, router: Router, coming: Sequence[Coming]) -> None:
        self._house = house
        self._router = router
        self._coming = coming
        self._queue: list[tuple[float, int, int, Ended | None]] = []  # when, in turn, whose, what ends
        self._serial = itertools.count()
        self._tried: dict[int, tuple[str, ...]] = {}
        self._refused: dict[int, dict[str, float]] = {}  # by whom, and when it may be asked again
        self._seconds = [math.inf] * len(coming)
        self._dollars = [0.0] * len(coming)
        self._attempts: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._refusals = 0

    def run(self) -> Books:
        for prediction, one in enumerate(self._coming):
            self._put(one.at, prediction, None)
        while self._queue:
            now, _, prediction, ended = heapq.heappop(self._queue)
            if ended is not None:
                self._end(ended)
                if ended.is_good:
                    self._seconds[prediction] = now - self._coming[prediction].at
                    self._served[ended.offer] += 1
                    continue
            self._next(prediction, now)
        return Books(tuple(self._dollars), tuple(self._seconds), self._attempts, self._refusals, self._served)

    def _put(self, at: float, prediction: int, ended: Ended | None) -> None:
        heapq.heappush(self._queue, (at, next(self._serial), prediction, ended))

    def _next(self, prediction: int, now: float) -> None:
        one, tried = self._coming[prediction], self._tried.get(prediction, ())
        deadline = one.at + one.deadline_seconds
        if now >= deadline or len(tried) >= one.attempts:
            return
        refused = self._refused.get(prediction, {})
        out = tuple(offer for offer in tried if refused.get(offer, math.inf) > now)
        choice = self._router.choose(prediction, now, came=one.at, tried=out)
        if choice is None and refused:
            choice = min(refused.values()) - now
        if choice is None:
            return
        if not isinstance(choice, Pick):
            self._put(min(now + max(choice, LEAST_WAIT_SECONDS), deadline), prediction, None)
            return
        offer = choice.offer
        self._tried[prediction] = (*tried, offer)
        self._attempts[offer] += 1
        self._router.begun(prediction, offer, now)
        ended = self._house.take(prediction, offer, now)
        until = min(deadline, now + choice.until_seconds)
        if ended.now > until:
            ended = self._house.stopped(ended, until)._replace(is_stopped=until < deadline)
        self._put(ended.now, prediction, ended)

    def _end(self, ended: Ended) -> None:
        self._house.leave(ended)
        self._dollars[ended.prediction] += ended.dollars
        if ended.is_refusal:
            self._refusals += 1
            self._refused.setdefault(ended.prediction, {})[ended.offer] = ended.now + RETRY_AFTER_SECONDS
        self._router.ended(ended)
