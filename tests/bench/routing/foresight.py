"""
How far a rehearsal's forecast is from what then really happens: traffic of one policy is recorded in a world whose
truth is known, another policy is rehearsed against it, and then really played, with other luck. Prints nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import timedelta
from typing import NamedTuple

from gateway.contract.money import NANOS
from gateway.rehearsal.forecast import Figures, Outcome, figures, rehearse
from gateway.rehearsal.play import Ended, Pick, Router
from gateway.rehearsal.trace import FAILED, GOOD, REFUSED, STOPPED, Asked, Trace, Tried
from gateway.testing.virtual import START
from policies.document import Limits, Policy, Rank
from tests.bench.routing.ours import MODEL, catalog_of, turnout
from tests.bench.routing.truth import PREFIX, Weather
from tests.bench.routing.world import House, arrivals, play


class Foresight(NamedTuple):
    """Forecast and truth; errors as shares of the truth, of misses as a difference."""

    world: str
    recorded: str  # under which policy
    rehearsed: str
    forecast: Figures
    truth: Figures

    @property
    def dollars_error(self) -> float:
        return self.forecast.dollars.value / self.truth.dollars.value - 1

    @property
    def p50_error(self) -> float:
        return self.forecast.p50.value / self.truth.p50.value - 1

    @property
    def p95_error(self) -> float:
        return self.forecast.p95.value / self.truth.p95.value - 1

    @property
    def misses_error(self) -> float:
        return self.forecast.misses.value - self.truth.misses.value


class _Recording:
    """A router whose attempts are written down."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.ends: defaultdict[int, list[Ended]] = defaultdict(list)

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | float | None:
        return self._router.choose(prediction, now, came=came, tried=tried)

    def begun(self, prediction: int, offer: str, now: float) -> None:
        self._router.begun(prediction, offer, now)

    def ended(self, ended: Ended) -> None:
        self.ends[ended.prediction].append(ended)
        self._router.ended(ended)


def spread(weather: Weather) -> Policy:
    """An even share for everybody: what tells most of all of them."""
    shares = {offer.removeprefix(PREFIX): 1.0 for offer in weather.listed}
    return Policy(
        name="spread",
        rank=Rank(by="weighted", shares=shares),
        limits=Limits(deadline_seconds=weather.deadline_seconds),
    )


def foresee(weather: Weather, recorded: Policy, rehearsed: Policy, *, seed: int, count: int) -> Foresight:
    trace = record(weather, recorded, seed=seed, count=count)
    found = rehearse(
        trace, catalog_of(weather), today=[recorded], candidate=[rehearsed], default=recorded.name, seed=seed
    )
    other = seed + 1_000
    books = play(
        House(weather, other, count), weather, turnout(weather, rehearsed, seed=other), seed=other, count=count
    )
    truth = Outcome(books.dollars, books.seconds, books.served, books.attempts.total())
    return Foresight(weather.name, recorded.name, rehearsed.name, figures(found.candidate), figures(truth))


def record(weather: Weather, policy: Policy, *, seed: int, count: int) -> Trace:
    """What the ledger would hold."""
    recording = _Recording(turnout(weather, policy, seed=seed))
    books = play(House(weather, seed, count), weather, recording, seed=seed, count=count)
    came = arrivals(weather, seed, count)
    listed = {offer: round(dollars * NANOS) for offer, dollars in weather.listed.items()}
    model = catalog_of(weather).get(MODEL)
    assert model is not None
    asked = tuple(
        Asked(
            id=f"{number}",
            at=at - came[0],
            model=MODEL,
            version=model.default_version,
            policy=policy.name,
            deadline_seconds=weather.deadline_seconds,
            status="failed" if math.isinf(books.seconds[number]) else "succeeded",
            seconds=None if math.isinf(books.seconds[number]) else books.seconds[number],
            tried=tuple(_tried(ended, came[0], listed) for ended in recording.ends[number]),
            expected=listed,
        )
        for number, at in enumerate(came)
    )
    return Trace(begun_at=START + timedelta(seconds=came[0]), asked=asked)


def _tried(ended: Ended, first: float, listed: dict[str, int]) -> Tried:
    how = GOOD if ended.is_good else REFUSED if ended.is_refusal else STOPPED if ended.is_stopped else FAILED
    return Tried(
        offer=ended.offer,
        at=ended.begun - first,
        how=how,
        seconds=ended.seconds,
        start_seconds=ended.start_seconds,
        nanos=round(ended.dollars * NANOS),
        expected_nanos=listed[ended.offer],
    )
