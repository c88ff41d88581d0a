"""Exam 5: what each strategy loses in each world under each policy, beside an oracle's loss. Prints nothing."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from gateway.rehearsal.play import Books, Router
from policies.document import Goal, Limits, Policy, Rank
from tests.bench.routing import theirs
from tests.bench.routing.ours import turnout
from tests.bench.routing.strategy import SIMPLE, Oracle
from tests.bench.routing.truth import WORLDS, Weather
from tests.bench.routing.world import House, play

SUCCESS = 0.99  # what the goal asks for
MISS_IN_PRICES = 10.0  # a prediction without a result costs as much as so many of the dearest offer's
OURS = "turnout"
ORACLE = "oracle"
THEIRS = "LiteLLM"


class Row(NamedTuple):
    """One strategy in one world under one policy. `loss` in dollars, or in seconds for latency."""

    world: str
    policy: str
    strategy: str
    loss: float
    books: Books
    seconds: float  # of processor time that it took


def loss(books: Books, weather: Weather, policy: str) -> float:
    count = len(books.seconds)
    dearest = max(weather.listed.values())
    if policy == "latency":
        return sum(min(seconds, weather.deadline_seconds) for seconds in books.seconds) / count
    spent = sum(books.dollars) / count
    if policy == "cost":
        return spent + MISS_IN_PRICES * dearest * books.misses / count
    late = sum(1 for seconds in books.seconds if seconds > weather.within_seconds) / count
    return spent + MISS_IN_PRICES * dearest * max(late - (1 - SUCCESS), 0.0)


def policy_of(name: str, weather: Weather) -> Policy:
    limits = Limits(deadline_seconds=weather.deadline_seconds)
    if name == "goal":
        goal = Goal(success=SUCCESS, within=f"{weather.within_seconds:g}s")
        return Policy(name=name, rank=Rank(by="goal", goal=goal), limits=limits)
    return Policy(name=name, rank=Rank(by="cost" if name == "cost" else "latency"), limits=limits)


def examine(weather: Weather, policy: str, *, seed: int, count: int) -> list[Row]:
    """The oracle first, then ours, then the simple ones, each with the better of its two measures where it has two."""
    others = [*SIMPLE, *([THEIRS] if policy == "latency" and theirs.is_here() else [])]
    return [_row(weather, policy, name, seed, count) for name in (ORACLE, OURS, *others)]


def _row(weather: Weather, policy: str, name: str, seed: int, count: int) -> Row:
    found: list[Row] = []
    for by in ("cost", "latency") if policy == "goal" and name in SIMPLE else (policy,):
        house = House(weather, seed, count)
        begun = time.process_time()
        books = play(house, weather, _strategy(weather, house, name, by, policy, seed), seed=seed, count=count)
        spent = time.process_time() - begun
        found.append(Row(weather.name, policy, name, loss(books, weather, policy), books, spent))
    return min(found, key=lambda row: row.loss)


def _strategy(weather: Weather, house: House, name: str, by: str, policy: str, seed: int) -> Router:
    if name == ORACLE:
        miss = MISS_IN_PRICES * max(weather.listed.values())
        return Oracle(weather, house, by=by, within=weather.within_seconds, success=SUCCESS, miss_dollars=miss)
    if name == OURS:
        return turnout(weather, policy_of(policy, weather), seed=seed)
    if name == THEIRS:
        return theirs.LatencyBased(weather, seed=seed)
    return SIMPLE[name](weather, by=by, seed=seed)


def all_rows(*, seed: int, count: int, worlds: tuple[Weather, ...] = WORLDS) -> list[Row]:
    return [
        row
        for weather in worlds
        for policy in ("cost", "latency", "goal")
        for row in examine(weather, policy, seed=seed, count=count)
    ]


def regret(row: Row, oracle: Row) -> float:
    """How much more than the oracle it lost, as a share of the oracle's loss."""
    return row.loss / oracle.loss - 1 if oracle.loss else math.inf
