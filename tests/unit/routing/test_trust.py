"""Trust: it sees an outage at once, is not shaken by chance, forgives in silence, and not what was always so."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.trust import PRIOR, Trust


def trained(chance: float, count: int, *, seed: int = 1, every: float = 1.0) -> tuple[Trust, float]:
    trust, drawn, now = Trust(), random.Random(seed), 0.0
    for _ in range(count):
        now += every
        trust.add(is_good=drawn.random() < chance, at=now, now=now)
    return trust, now


def test_nobody_knows_an_offer_nobody_tried() -> None:
    assert Trust().estimate(0.0) == pytest.approx(PRIOR, abs=0.03)
    assert Trust().outcomes(0.0) == 0.0


@pytest.mark.parametrize("chance", [0.2, 0.55, 0.9, 0.99])
def test_what_stays_as_it_is_becomes_known(chance: float) -> None:
    found = [trust.estimate(now) for trust, now in (trained(chance, 600, seed=seed) for seed in range(20))]
    assert sum(found) / len(found) == pytest.approx(chance, abs=0.03)
    assert all(abs(one - chance) < 0.2 for one in found)


def test_an_outage_is_seen_within_a_few_attempts() -> None:
    trust, now = trained(0.99, 300)
    for _ in range(6):
        trust.add(is_good=False, at=now, now=now)
    assert trust.estimate(now) < 0.45


def test_one_failure_among_many_is_no_outage() -> None:
    trust, now = trained(1.0, 300)
    trust.add(is_good=False, at=now, now=now)
    assert trust.estimate(now) > 0.85


def test_a_minute_and_a_half_of_silence_after_an_outage_is_hope() -> None:
    trust, now = trained(0.99, 300)
    for _ in range(10):
        now += 1
        trust.add(is_good=False, at=now, now=now)
    assert trust.estimate(now) < 0.3
    assert trust.estimate(now + 90) > 0.6


def test_what_was_always_bad_is_not_forgiven_for_silence() -> None:
    trust, now = trained(0.3, 600)
    assert trust.estimate(now + 90) < 0.5


def test_attempts_that_should_have_ended_count_before_they_do() -> None:
    trust, now = trained(0.99, 300)
    before = trust.estimate(now)
    assert trust.estimate(now, pending_failures=6) < 0.45
    assert trust.estimate(now) == before  # nothing was learned by asking


def test_what_is_told_late_weighs_less() -> None:
    told_now, told_late = trained(0.99, 50)[0], trained(0.99, 50)[0]
    told_now.add(is_good=False, at=50.0, now=50.0)
    told_late.add(is_good=False, at=-70.0, now=50.0)
    assert told_late.estimate(50.0) > told_now.estimate(50.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 500)), max_size=60), st.integers(0, 12))
def test_it_is_always_a_probability_and_every_failure_lowers_it(past: list[tuple[bool, float]], pending: int) -> None:
    trust, now = Trust(), 0.0
    for is_good, pause in past:
        now += pause
        trust.add(is_good=is_good, at=now, now=now)
    before = trust.estimate(now)
    assert 0 < before < 1
    assert 0 < trust.estimate(now, pending_failures=pending) <= before + 1e-9
