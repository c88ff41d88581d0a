"""Sketches: how exactly they know a quantile, how they forget, merge, and count those that are still under way."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.route import SHARES
from gateway.routing.sketch import GROWTH, Sketch, mean, mixture, quantiles, spread, widened, with_overdue

SECONDS = st.floats(min_value=0.002, max_value=80_000.0)


def sketch(values: list[float], *, half_life: float = 60.0, at: float = 0.0) -> Sketch:
    made = Sketch(half_life)
    for value in values:
        made.add(value, at=at)
    return made


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from(SHARES))
def test_a_quantile_is_that_of_the_values_within_one_bin(values: list[float], share: float) -> None:
    found = quantiles(sketch(values).bins, (share,))
    assert found is not None
    ordered = sorted(values)
    low = ordered[max(int(share * len(values) - 1e-9) - 1, 0)]
    high = ordered[min(int(share * len(values) + 1e-9) + 1, len(values) - 1)]
    assert low / GROWTH <= found[0] <= high * GROWTH


@given(st.lists(SECONDS, min_size=1, max_size=100))
def test_a_spread_ascends_and_the_mean_lies_within_it(values: list[float]) -> None:
    bins = sketch(values).bins
    told = spread(bins)
    assert len(told) == len(SHARES)
    assert all(low <= high for low, high in itertools.pairwise(told))
    found = mean(bins)
    assert found is not None
    assert min(values) / GROWTH <= found <= max(values) * GROWTH


def test_what_is_a_half_life_old_counts_half() -> None:
    made = Sketch(60.0)
    made.add(1.0, at=0.0)
    made.add(10.0, at=60.0)
    assert made.weight(60.0) == pytest.approx(1.5)
    assert made.weight(120.0) == pytest.approx(0.75)
    shares = quantiles(made.bins, (0.3, 0.4))
    assert shares is not None
    assert shares[0] < 2 < shares[1]  # a third is the old one


def test_an_outcome_told_late_counts_as_if_it_had_come_in_time() -> None:
    in_order, late = Sketch(60.0), Sketch(60.0)
    in_order.add(1.0, at=10.0)
    in_order.add(2.0, at=50.0)
    late.add(2.0, at=50.0)
    late.add(1.0, at=10.0)
    assert in_order.weight(60.0) == pytest.approx(late.weight(60.0))
    assert in_order.bins == pytest.approx(late.bins)


def test_a_year_of_seconds_neither_overflows_nor_forgets_the_present() -> None:
    made = Sketch(60.0)
    for day in range(365):
        made.add(5.0, at=day * 86_400.0)
    assert made.weight(364 * 86_400.0) == pytest.approx(1.0)
    assert len(made.bins) == 1


def test_a_mixture_weighs_its_parts_as_it_is_told() -> None:
    fast, slow = sketch([1.0] * 90).bins, sketch([100.0] * 3).bins
    mixed = mixture([(fast, 0.25), (slow, 0.75), ({}, 5.0)])
    found = quantiles(mixed, (0.2, 0.3))
    assert found is not None
    assert found[0] < 2 < 90 < found[1]


def test_widened_is_less_sure_and_no_worse_in_the_middle() -> None:
    bins = sketch([10.0] * 30).bins
    found = quantiles(widened(bins, 2.0), (0.1, 0.5, 0.9))
    assert found is not None
    assert found[0] == pytest.approx(5.0, rel=0.1)
    assert found[1] == pytest.approx(10.0, rel=0.1)
    assert found[2] == pytest.approx(20.0, rel=0.1)


def test_those_under_way_are_slower_than_their_age() -> None:
    values = [random.Random(1).uniform(1.0, 10.0) for _ in range(50)]
    bins = sketch(values).bins
    after = with_overdue(bins, 50.0, [8.0] * 10)
    assert sum(after.values()) == pytest.approx(60.0)
    before_p90, after_p90 = quantiles(bins, (0.9,)), quantiles(after, (0.9,))
    assert before_p90 is not None
    assert after_p90 is not None
    assert after_p90[0] >= before_p90[0]
    faster = sum(
        weight for number, weight in after.items() if number in bins and quantiles({number: 1.0}, (0.5,))[0] < 7
    )  # type: ignore[index]
    assert faster == pytest.approx(sum(1 for value in values if value < 7), abs=3)  # they stay what they are


def test_beyond_all_that_was_seen_it_is_twice_the_age() -> None:
    after = with_overdue(sketch([1.0]).bins, 1.0, [60.0])
    found = quantiles(after, (0.99,))
    assert found is not None
    assert found[0] == pytest.approx(120.0, rel=0.1)


def test_an_empty_distribution_has_no_quantiles() -> None:
    assert quantiles({}, (0.5,)) is None
    assert spread({}) == ()
    assert mean({}) is None
