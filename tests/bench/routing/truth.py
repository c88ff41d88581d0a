"""What simulated offers are really like, moment by moment, and the weather they stand in. Routes nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

PREFIX = "bench/model@"


class Truth(NamedTuple):
    """
    One offer at one moment, as nobody but the oracle knows it. Seconds, and dollars per prediction.

    A job takes a lognormal time around `median_seconds`; with probability `slow_share` it takes `slow_factor` times as
    long. A failure is known after `failure_seconds`, and costs `failure_billed` of the price.
    """

    dollars: float
    median_seconds: float
    sigma: float = 0.25
    success: float = 0.99
    failure_seconds: float = 2.0
    failure_billed: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    billed_factor: float = 1.0  # of what its price list says
    cold_seconds: float = 0.0  # it sleeps after `warm_seconds` without work, and takes so long to wake
    warm_seconds: float = math.inf
    most_per_second: float = math.inf  # beyond it a submit is refused

    @property
    def mean_seconds(self) -> float:
        """Of a job that succeeds, warm."""
        usual = self.median_seconds * math.exp(self.sigma * self.sigma / 2)
        return usual * (1 - self.slow_share + self.slow_share * self.slow_factor)

    @property
    def mean_dollars(self) -> float:
        """Of an attempt, whether it succeeds or not."""
        billed = self.dollars * self.billed_factor
        return billed * (self.success + (1 - self.success) * self.failure_billed)

    def share_within(self, seconds: float) -> float:
        """Of jobs that succeed, those that take no longer."""
        if seconds <= 0:
            return 0.0
        usual = _normal(math.log(seconds / self.median_seconds) / self.sigma)
        slow = _normal(math.log(seconds / (self.median_seconds * self.slow_factor)) / self.sigma)
        return (1 - self.slow_share) * usual + self.slow_share * slow


class Weather(NamedTuple):
    """One world: its offers by name, and what comes in. `at` is the truth of every offer at a moment."""

    name: str
    at: Callable[[float], dict[str, Truth]]
    per_second: float
    deadline_seconds: float
    within_seconds: float  # what the goal asks for
    listed: dict[str, float]  # dollars by the price list, which need not be what is billed


class Luck(NamedTuple):
    """One prediction's luck with one offer: the same for every strategy that sends it there."""

    success: float  # from [0, 1)
    time: float  # standard normal
    slow: float  # from [0, 1)


def lucks(seed: int, offer: str, count: int) -> list[Luck]:
    drawn = random.Random(f"{seed} {offer}")
    return [Luck(drawn.random(), drawn.gauss(0.0, 1.0), drawn.random()) for _ in range(count)]


def weather_of(
    name: str,
    at: Callable[[float], dict[str, Truth]],
    per_second: float,
    deadline_seconds: float,
    within_seconds: float,
) -> Weather:
    """`at` names offers by their providers; in a world they have the ids of offers."""

    def known(now: float) -> dict[str, Truth]:
        return {PREFIX + provider: truth for provider, truth in at(now).items()}

    listed = {offer: truth.dollars for offer, truth in known(0.0).items()}
    return Weather(name, known, per_second, deadline_seconds, within_seconds, listed)


def _weather(
    name: str,
    at: Callable[[float], dict[str, Truth]],
    *,
    per_second: float = 4.0,
    deadline_seconds: float = 120.0,
    within_seconds: float = 20.0,
) -> Weather:
    return weather_of(name, at, per_second, deadline_seconds, within_seconds)


# -- the worlds -------------------------------------------------------------------------------------------------

_CHEAP = Truth(dollars=0.010, median_seconds=14.0, failure_billed=0.5)
_MIDDLE = Truth(dollars=0.016, median_seconds=9.0, failure_billed=0.5)
_DEAR = Truth(dollars=0.030, median_seconds=5.0, failure_billed=0.5)


def _flapping(now: float) -> dict[str, Truth]:
    """The cheapest and the fastest take turns at failing nine of ten, a minute and a half of every five."""
    cheap_is_down, fast_is_down = now % 300 < 90, (now + 150) % 300 < 90
    return {
        "cheap": _CHEAP._replace(success=0.1, failure_seconds=6.0) if cheap_is_down else _CHEAP,
        "middle": _MIDDLE,
        "fast": _DEAR._replace(success=0.1, failure_seconds=6.0) if fast_is_down else _DEAR,
    }


def _degrading(now: float) -> dict[str, Truth]:
    """The fastest grows ten times slower and worse within twenty minutes, stays so for ten, and is well again."""
    phase = now % 2400
    worse = min(phase / 1200, 1.0) if phase < 1800 else 0.0
    fast = _DEAR._replace(median_seconds=5.0 * (1 + 9 * worse), success=0.99 - 0.5 * worse, failure_seconds=8.0)
    cheap = _CHEAP._replace(success=0.99 - 0.7 * worse, failure_seconds=8.0)
    return {"cheap": cheap, "middle": _MIDDLE, "fast": fast}


def _bimodal(now: float) -> dict[str, Truth]:
    """The best median hides a fifth of jobs that take ten times as long; the price list hides what failures cost."""
    return {
        "twofold": _DEAR._replace(median_seconds=4.0, slow_share=0.2, slow_factor=10.0),
        "steady": _MIDDLE._replace(median_seconds=7.0),
        "cheap": _CHEAP._replace(success=0.55, failure_billed=1.0, failure_seconds=10.0),
        "fair": _CHEAP._replace(dollars=0.013, success=0.97),
    }


def _cold(now: float) -> dict[str, Truth]:
    """Two that sleep after a minute and half a minute without work, and one that never does. One comes every 40 s."""
    return {
        "sleeper": _CHEAP._replace(median_seconds=4.0, cold_seconds=45.0, warm_seconds=60.0),
        "dozer": _CHEAP._replace(dollars=0.012, median_seconds=5.0, cold_seconds=30.0, warm_seconds=30.0),
        "awake": _DEAR._replace(median_seconds=8.0),
    }


def _limited(now: float) -> dict[str, Truth]:
    """The best takes two a second, the next best one; four come."""
    return {
        "best": Truth(dollars=0.008, median_seconds=5.0, most_per_second=2.0),
        "next": Truth(dollars=0.012, median_seconds=7.0, most_per_second=1.0),
        "rest": Truth(dollars=0.020, median_seconds=12.0),
    }


def _price(now: float) -> dict[str, Truth]:
    """What the cheapest bills is four times its list price from the twentieth minute on."""
    factor = 4.0 if 1200 <= now < 2000 else 1.0
    return {"cheap": _CHEAP._replace(billed_factor=factor), "middle": _MIDDLE, "dear": _DEAR}


def _outage(now: float) -> dict[str, Truth]:
    """The region of the two best is gone for ten minutes, and swallows what is sent there for twenty seconds."""
    is_gone = 600 <= now < 1200

    def here(truth: Truth) -> Truth:
        return truth._replace(success=0.0, failure_seconds=20.0, failure_billed=0.0) if is_gone else truth

    return {
        "east-cheap": here(_CHEAP),
        "east-fast": here(_DEAR._replace(median_seconds=4.0)),
        "west-cheap": _CHEAP._replace(dollars=0.014, median_seconds=16.0),
        "west-fast": _DEAR._replace(dollars=0.04, median_seconds=7.0),
    }


WORLDS: tuple[Weather, ...] = (
    _weather("flapping", _flapping),
    _weather("degrading", _degrading),
    _weather("bimodal", _bimodal, within_seconds=15.0),
    _weather("cold start", _cold, per_second=1 / 40, within_seconds=15.0),
    _weather("rate limited", _limited, within_seconds=12.0),
    _weather("price change", _price),
    _weather("regional outage", _outage),
)


def _normal(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2
