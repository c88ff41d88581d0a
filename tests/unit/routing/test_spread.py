"""
What other gateways fail at, played through planner, board and breakers together: the herd, starvation, the dead
host, the flood on a newcomer.
"""

from __future__ import annotations

import collections
import heapq
import random

import pytest

from gateway.contract.errors import Blame
from gateway.routing.record import Flight
from tests.unit.routing.making import World, catalog, section


def made(default: str, *, seed: int = 5) -> World:
    return World(catalog(section("a", "b", "c")), draw=random.Random(seed).random, default=default)


def warm(world: World, seconds: dict[str, float], times: int = 10) -> None:
    for provider, total in seconds.items():
        for _ in range(times):
            world.serve(f"acme/up@{provider}", total)
    world.clock.advance(1)


def first(world: World) -> str:
    return world.providers()[0]


def rush(world: World, times: int) -> collections.Counter[str]:
    """`times` predictions at once: all are planned before the first one ends."""
    shares: collections.Counter[str] = collections.Counter()
    for _ in range(times):
        provider = first(world)
        shares[provider] += 1
        world.board.attempt_begun(f"acme/up@{provider}")
    return shares


@pytest.mark.parametrize("policy", ["cheapest", "fastest", "steadiest", "balanced"])
@pytest.mark.parametrize("seed", range(5))
def test_three_hundred_at_once_on_three_equals_spread(policy: str, seed: int) -> None:
    world = made(policy, seed=seed)
    warm(world, {"a": 1.0, "b": 1.0, "c": 1.0})
    shares = rush(world, 300)
    assert max(shares.values()) <= 120, shares


@pytest.mark.parametrize("policy", ["fastest", "balanced"])
@pytest.mark.parametrize("seed", range(5))
def test_three_hundred_at_once_on_twenty_twentyone_and_twentytwo_milliseconds_leave_none_above_half(
    policy: str, seed: int
) -> None:
    world = made(policy, seed=seed)
    warm(world, {"a": 0.020, "b": 0.021, "c": 0.022})
    shares = rush(world, 300)
    assert max(shares.values()) <= 150, shares
    assert min(shares.values()) >= 30, shares


def test_plans_made_before_any_attempt_begins_spread_as_well() -> None:
    world = made("fastest")
    warm(world, {"a": 0.020, "b": 0.021, "c": 0.022})
    shares = collections.Counter(first(world) for _ in range(300))
    assert max(shares.values()) <= 150, shares


def serve_for(world: World, seconds: float, run: dict[str, float], *, per_second: int = 10) -> collections.Counter[str]:
    """Predictions at a steady rate, each taking its provider's time; returns how many went where."""
    shares: collections.Counter[str] = collections.Counter()
    ending: list[tuple[float, int, str, Flight]] = []
    end = world.clock.monotonic() + seconds
    while world.clock.monotonic() < end:
        while ending and ending[0][0] <= world.clock.monotonic():
            _, _, provider, flight = heapq.heappop(ending)
            world.board.attempt_ended(flight, total_seconds=run[provider], blame=None)
        provider = first(world)
        shares[provider] += 1
        flight = world.board.attempt_begun(f"acme/up@{provider}")
        heapq.heappush(ending, (world.clock.monotonic() + run[provider], shares.total(), provider, flight))
        world.clock.advance(1 / per_second)
    for _, _, provider, flight in ending:
        world.board.attempt_ended(flight, total_seconds=run[provider], blame=None)
    return shares


def test_one_timeout_does_not_starve_the_fastest() -> None:
    run = {"a": 0.010, "b": 0.060, "c": 0.080}
    world = made("fastest")
    serve_for(world, 5, run)
    world.serve("acme/up@a", 60.0, blame=Blame.PROVIDER)
    shares = serve_for(world, 30, run)
    assert shares["a"] > 0.8 * shares.total()


@pytest.mark.parametrize("policy", ["fastest", "steadiest", "balanced"])
def test_one_timeout_among_equals_costs_a_share_that_comes_back(policy: str) -> None:
    run = {"a": 1.0, "b": 1.0, "c": 1.0}
    world = made(policy)
    serve_for(world, 10, run)
    world.serve("acme/up@a", 60.0, blame=Blame.PROVIDER)
    serve_for(world, 30, run)
    shares = serve_for(world, 30, run)
    assert shares["a"] > 0.2 * shares.total(), shares


@pytest.mark.parametrize("policy", ["fastest", "steadiest", "balanced"])
def test_an_offer_whose_first_attempt_failed_is_not_written_off(policy: str) -> None:
    run = {"a": 1.0, "b": 1.0, "c": 1.0}
    world = made(policy)
    world.serve("acme/up@a", 60.0, blame=Blame.PROVIDER)
    serve_for(world, 120, run)
    shares = serve_for(world, 30, run)
    assert shares["a"] > 0.2 * shares.total(), shares


def test_a_slow_offer_that_became_fast_is_found_out() -> None:
    world = made("fastest")
    serve_for(world, 30, {"a": 2.0, "b": 1.0, "c": 9.0})
    shares = serve_for(world, 900, {"a": 0.1, "b": 1.0, "c": 9.0}, per_second=4)
    late = serve_for(world, 30, {"a": 0.1, "b": 1.0, "c": 9.0}, per_second=4)
    assert shares["a"] > 0
    assert late["a"] > 0.8 * late.total(), late


def test_a_newcomer_is_tried_but_never_by_more_than_two_at_once() -> None:
    world = made("fastest")
    warm(world, {"a": 1.0, "b": 1.0})
    shares: collections.Counter[str] = collections.Counter()
    for _ in range(2_000):
        provider = first(world)
        if provider == "c":
            world.board.attempt_begun("acme/up@c")  # and never ends
        shares[provider] += 1
    assert shares["c"] == 2


def test_a_dead_host_costs_no_prediction_and_soon_nothing_at_all() -> None:
    world = made("cheapest")
    attempts = {"a": 0, "b": 0, "c": 0}
    lost = 0
    for _ in range(300):
        world.clock.advance(0.05)
        excluded: frozenset[str] = frozenset()
        for _ in range(3):
            plan = world.planner.plan(world.prediction(), excluded=excluded, now=world.clock.now())
            choice = plan.kept[0]
            ticket = world.breakers.admit(choice.offer)
            assert ticket is not None
            attempts[choice.provider] += 1
            flight = world.board.attempt_begun(choice.offer)
            dead = choice.provider == "a"
            world.board.attempt_ended(flight, total_seconds=0.0, blame=Blame.PROVIDER if dead else None)
            if not dead:
                ticket.success()
                break
            ticket.failure(Blame.PROVIDER)
            excluded |= {choice.offer}
        else:
            lost += 1
    assert lost == 0
    assert attempts["a"] <= 6  # five that opened it, and a probe in fifteen seconds
