"""What one decision costs: processor time of a plan over many candidates, under each measure. Prints nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from gateway.contract.errors import Blame
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request
from gateway.routing.breaker import Breakers
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.testing import ManualClock
from policies.document import Fallback, Goal, Policy, Rank
from tests.bench.routing import theirs
from tests.bench.routing.ours import MODEL, catalog_of
from tests.bench.routing.truth import Truth, weather_of

CANDIDATES = 20
ROUNDS = 7
PLANS = 200
BAR_MICROSECONDS = 50.0
RANKS = {
    "cost": Rank(by="cost"),
    "latency": Rank(by="latency"),
    "health": Rank(by="health"),
    "blend": Rank(by="blend"),
    "goal": Rank(by="goal", goal=Goal(success=0.99, within="30s")),
}


class Cost(NamedTuple):
    """Microseconds of processor time for one decision, the best of several rounds."""

    what: str
    microseconds: float


def costs() -> list[Cost]:
    found = [Cost(name, _measured(_ours(rank))) for name, rank in RANKS.items()]
    if theirs.is_here():
        found.append(Cost("LiteLLM, latency", _measured(_theirs())))
    return found


def _measured(decide: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(PLANS):
            decide()
        best = min(best, (time.process_time() - begun) / PLANS)
    return best * 1e6


def _truths(now: float) -> dict[str, Truth]:
    return {f"p{n}": Truth(dollars=round(0.01 + n / 1_000, 4), median_seconds=5 + n / 3) for n in range(CANDIDATES)}


WEATHER = weather_of("many", _truths, 1.0, 600.0, 30.0)


def _ours(rank: Rank) -> Callable[[], object]:
    """Everything is known of everybody; between two decisions the one chosen has one more under way, as in life."""
    clock, drawn = ManualClock(), random.Random(3)
    board = Board(clock)
    catalog = catalog_of(WEATHER)
    model = catalog.get(MODEL)
    assert model is not None
    for number, offer in enumerate(WEATHER.listed):
        for _ in range(20):
            flight = board.attempt_begun(offer)
            seconds = 5 + number / 3 + drawn.random()
            board.attempt_ended(flight, queue_seconds=0.1, run_seconds=seconds, total_seconds=seconds, blame=None)
        flight = board.attempt_begun(offer)
        board.attempt_ended(flight, total_seconds=1.0, blame=Blame.PROVIDER)
    clock.advance(1.0)
    policy = Policy(name="bench", rank=rank, fallback=Fallback(provider=""))
    planner = Planner(
        catalog=lambda: catalog,
        board=board,
        breakers=Breakers(clock=clock, draw=drawn.random, observer=Observer()),
        policies=lambda: (policy,),
        default=policy.name,
        draw=drawn.random,
    )
    now = clock.now()
    request = Request(model=MODEL, version=model.default_version, is_pinned=False, input={"prompt": "a cat"})
    asked = Prediction(
        id="p" * 26,
        owner="bench",
        request=request,
        created_at=now,
        deadline_at=now + timedelta(seconds=600),
        stream_token="",
    )
    return lambda: planner.plan(asked, excluded=frozenset(), now=now)


def _theirs() -> Callable[[], object]:
    from gateway.rehearsal.play import Ended

    router = theirs.LatencyBased(WEATHER)
    offers = list(WEATHER.listed)
    for number, offer in enumerate(offers):
        router.begun(0, offer, 0.0)
        router.ended(Ended(0, offer, 0.0, 5 + number / 3, True, False, 0.0, 0.0))
    return lambda: router.pick(offers, 1.0)
