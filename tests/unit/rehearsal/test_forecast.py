"""Forecasts: today's policy replays as it was, another is foretold, and the error against what happens is small."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from msgspec.structs import replace

from gateway.rehearsal.forecast import Outcome, change, figures, rehearse
from gateway.rehearsal.history import WhatIf
from policies.document import Limits, Match, Policy
from tests.bench.routing.foresight import foresee, record, spread
from tests.bench.routing.ours import catalog_of
from tests.bench.routing.regret import policy_of
from tests.bench.routing.truth import PREFIX, WORLDS, Weather


def world(name: str) -> Weather:
    return next(weather for weather in WORLDS if weather.name == name)


def named(kind: str, weather: Weather) -> Policy:
    return policy_of(kind, weather)


@pytest.mark.parametrize(
    ("name", "rehearsed"), [("bimodal", "latency"), ("bimodal", "cost"), ("flapping", "cost"), ("price change", "goal")]
)
def test_the_forecast_is_near_what_then_happens(name: str, rehearsed: str) -> None:
    weather = world(name)
    found = foresee(weather, spread(weather), named(rehearsed, weather), seed=3, count=900)
    assert abs(found.dollars_error) < 0.12
    assert abs(found.p50_error) < 0.12
    assert abs(found.misses_error) < 0.02


def test_of_what_was_hardly_recorded_it_says_so() -> None:
    weather = world("price change")
    trace = record(weather, named("latency", weather), seed=3, count=300)
    cheapest = replace(named("cost", weather), name="cheapest")
    today = named("latency", weather)
    found = rehearse(trace, catalog_of(weather), today=[today], candidate=[cheapest], default=today.name)
    assert f"{PREFIX}cheap" in found.thin
    assert f"{PREFIX}dear" not in found.thin


def test_todays_policy_replays_as_it_was_recorded() -> None:
    weather = world("flapping")
    policy = named("latency", weather)
    trace = record(weather, policy, seed=3, count=600)
    found = rehearse(trace, catalog_of(weather), today=[policy], candidate=[policy], default=policy.name)
    recorded, today = figures(found.recorded), figures(found.today)
    assert found.today == found.candidate
    assert today.dollars.value == pytest.approx(recorded.dollars.value, rel=0.06)
    assert today.p50.value == pytest.approx(recorded.p50.value, rel=0.05)
    assert today.predictions == recorded.predictions == 600


def test_what_if_a_provider_were_gone_or_dearer() -> None:
    weather = world("price change")
    policy = named("cost", weather)
    trace = record(weather, policy, seed=3, count=500)

    def supposed(what_if: WhatIf) -> Outcome:
        return rehearse(
            trace, catalog_of(weather), today=[policy], candidate=[policy], default=policy.name, what_if=what_if
        ).candidate

    gone = supposed(WhatIf(dead=frozenset({"cheap"})))
    assert gone.served[f"{PREFIX}cheap"] == 0
    assert gone.served.total() == 500
    dearer = supposed(WhatIf(prices={"cheap": 10.0}))
    assert dearer.served[f"{PREFIX}cheap"] < 100
    assert dearer.served[f"{PREFIX}middle"] > 300


def test_a_policy_takes_over_only_what_it_is_for() -> None:
    weather = world("price change")
    today = spread(weather)
    trace = record(weather, today, seed=3, count=300)
    labelled = (
        replace(one, labels={"tier": "gold"} if number >= 200 else {}) for number, one in enumerate(trace.asked)
    )
    trace = replace(trace, asked=tuple(labelled))
    gold = replace(named("latency", weather), name="gold", match=Match(labels={"tier": "gold"}))
    found = rehearse(trace, catalog_of(weather), today=[today], candidate=[gold], default=today.name)
    served = found.candidate.served
    assert 130 <= served[f"{PREFIX}dear"] <= 180  # a third of 200, and nearly all of 100
    assert 45 <= served[f"{PREFIX}cheap"] <= 90


def test_a_deadline_of_the_policys_is_the_new_policys_and_a_callers_is_kept() -> None:
    weather = world("price change")
    policy = named("cost", weather)
    trace = record(weather, policy, seed=3, count=60)
    hasty = replace(policy, limits=Limits(deadline_seconds=1.0))
    found = rehearse(trace, catalog_of(weather), today=[policy], candidate=[hasty], default=policy.name)
    assert all(math.isinf(seconds) for seconds in found.candidate.seconds)
    trace = replace(trace, asked=tuple(replace(one, deadline_seconds=2.0) for one in trace.asked))
    patient = replace(policy, limits=Limits(deadline_seconds=600.0))
    found = rehearse(trace, catalog_of(weather), today=[policy], candidate=[patient], default=policy.name)
    assert all(math.isinf(seconds) for seconds in found.candidate.seconds)


def test_intervals_hold_the_value_and_pairs_cancel_their_luck() -> None:
    slow = tuple(float(n % 17) for n in range(400))
    one = Outcome((0.01,) * 400, slow, Counter(x=400), 400)
    other = Outcome((0.02,) * 400, tuple(seconds + 1 for seconds in slow), Counter(x=400), 400)
    made = figures(one)
    for interval in (made.dollars, made.p50, made.p95, made.misses):
        assert interval.low <= interval.value <= interval.high
    dollars, p50, _, misses = change(one, other)
    assert (dollars.value, dollars.low, dollars.high) == tuple(pytest.approx(4.0) for _ in range(3))
    assert (p50.low, p50.high) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (misses.low, misses.high) == (0.0, 0.0)


def test_of_nothing_there_is_nothing() -> None:
    made = figures(Outcome((), (), Counter(), 0))
    assert made.predictions == 0
    assert math.isnan(made.p50.value)
