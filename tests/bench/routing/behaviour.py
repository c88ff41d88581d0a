"""Exams 1 to 3: one timeout, a burst, a dead host. What a router does with them, in virtual time. Prints nothing."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from gateway.rehearsal.play import Ended, Pick, Router
from policies.document import Limits, Policy, Rank
from tests.bench.routing import ours
from tests.bench.routing.truth import PREFIX, Truth, Weather, weather_of
from tests.bench.routing.world import House, play

SETTLED_SECONDS = 30.0  # after which one timeout is to be forgotten
BURST = 300
PATIENCE_SECONDS = 60.0  # what a timeout costs
FAST = f"{PREFIX}fast"


Make = Callable[[Weather], Router]


class Mark(NamedTuple):
    """What came of an exam, and whether that is good enough."""

    said: str
    is_passed: bool


def turnout(weather: Weather) -> Router:
    policy = Policy(name="fastest", rank=Rank(by="latency"), limits=Limits(deadline_seconds=weather.deadline_seconds))
    return ours.turnout(weather, policy, seed=5)


# -- 1 -----------------------------------------------------------------------------------------------------------


def one_timeout(make: Make) -> Mark:
    """
    Two offers, one faster; after a minute a single attempt at it takes PATIENCE_SECONDS and fails.

    How much of what comes SETTLED_SECONDS later goes to it again, against what went there before.
    """
    weather = _weather({"fast": 0.6, "slow": 1.0})
    router = make(weather)
    before = _shares(router, weather, begin=0.0, seconds=60.0)
    unlucky = next(number for number in itertools.count(1_000_000) if _picked(router, number, 60.0) == FAST)
    router.begun(unlucky, FAST, 60.0)
    router.ended(Ended(unlucky, FAST, 60.0 - PATIENCE_SECONDS, 60.0, False, False, 0.0, 0.0))
    _shares(router, weather, begin=60.0, seconds=SETTLED_SECONDS)
    after = _shares(router, weather, begin=60.0 + SETTLED_SECONDS, seconds=30.0)
    fair, share = before[FAST] / before.total(), after[FAST] / after.total()
    return Mark(f"{after['fast']} of the next {after.total()} ({share:.0%}; before it {fair:.0%})", share >= 0.9 * fair)


# -- 2 -----------------------------------------------------------------------------------------------------------


def burst(make: Make) -> Mark:
    """BURST predictions at once over three offers that take 20, 21 and 22 ms: the share of the busiest."""
    seconds = {"one": 0.020, "two": 0.021, "three": 0.022}
    weather = _weather(seconds)
    router = make(weather)
    _shares(router, weather, begin=0.0, seconds=10.0)
    now = 20.0
    went: Counter[str] = Counter()
    for number in range(2_000_000, 2_000_000 + BURST):
        offer = _picked(router, number, now)
        router.begun(number, offer, now)
        went[offer] += 1
    said = " / ".join(str(went[PREFIX + provider]) for provider in seconds)
    return Mark(said, max(went.values()) <= BURST / 2)


# -- 3 -----------------------------------------------------------------------------------------------------------


def dead_host(make: Make, *, count: int = 1_000) -> Mark:
    """A host that refuses every connection beside a healthy one: predictions that fail for it."""
    dead = Truth(dollars=0.01, median_seconds=0.5, success=0.0, failure_seconds=0.001)
    well = Truth(dollars=0.01, median_seconds=1.0, sigma=0.1, success=1.0)
    weather = weather_of("dead host", lambda now: {"dead": dead, "well": well}, 10.0, 60.0, 60.0)
    books = play(House(weather, 5, count), weather, make(weather), seed=5, count=count)
    wasted = books.attempts[f"{PREFIX}dead"]
    said = f"{books.misses / count:.1%} of {count} failed; {wasted} attempts at the dead one"
    return Mark(said, books.misses == 0)


EXAMS: dict[str, Callable[[Make], Mark]] = {
    "one timeout on the faster of two: back within 30 s": one_timeout,
    "300 at once over three near-equals: none above half": burst,
    "a dead host beside a healthy one: none fails": dead_host,
}


def _weather(seconds: dict[str, float]) -> Weather:
    def at(now: float) -> dict[str, Truth]:
        return {
            offer: Truth(dollars=0.01, median_seconds=median, sigma=0.02, success=1.0)
            for offer, median in seconds.items()
        }

    return weather_of("steady", at, 10.0, 60.0, 60.0)


def _picked(router: Router, prediction: int, now: float) -> str:
    picked = router.choose(prediction, now, came=now, tried=())
    assert isinstance(picked, Pick)
    return picked.offer


def _shares(router: Router, weather: Weather, *, begin: float, seconds: float) -> Counter[str]:
    """Where a steady stream of predictions goes, each taking its offer's time."""
    went: Counter[str] = Counter()
    ending: list[tuple[float, int, Ended]] = []
    for number in itertools.count(int(begin * 100)):
        now = begin + went.total() / weather.per_second
        if now >= begin + seconds:
            break
        while ending and ending[0][0] <= now:
            router.ended(heapq.heappop(ending)[2])
        offer = _picked(router, number, now)
        went[offer] += 1
        router.begun(number, offer, now)
        end = now + weather.at(now)[offer].median_seconds
        heapq.heappush(ending, (end, number, Ended(number, offer, now, end, True, False, 0.0, 0.01)))
    for _, _, ended in sorted(ending):
        router.ended(ended)
    return went
