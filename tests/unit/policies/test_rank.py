"""The order of what is kept: by cost, latency, health, blend and by hand; ties, exploration, and their shares."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.money import Price
from gateway.contract.route import BreakerState, Candidate
from policies.document import Policy, Rank, Weights
from policies.evaluate import evaluate
from tests.unit.policies.making import candidate, codes, demand, draws, kept, never, share

CALM = {"explore": 0.0}


def ranked(by: str, offers: list[Candidate], draw: Any = never, **rank: Any) -> list[str]:
    policy = Policy(name="p", rank=Rank(by=by, **{**CALM, **rank}))  # type: ignore[arg-type]
    return kept(evaluate(policy, offers, demand(), draw=draw))


def test_by_cost_the_cheapest_is_first_and_an_unknown_price_behind_every_known_one() -> None:
    offers = [candidate("unknown", dollars=None), candidate("dear", dollars=9), candidate("cheap", dollars=0.001)]
    assert ranked("cost", offers) == ["cheap", "dear", "unknown"]


def test_the_reason_of_the_cheapest_names_its_price_and_the_next() -> None:
    policy = Policy(name="p", rank=Rank(by="cost", explore=0))
    offers = [candidate("dear", dollars=0.001), candidate("cheap", dollars=0.0004)]
    first = evaluate(policy, offers, demand(), draw=never).choices[0]
    assert [(r.code, r.text) for r in first.reasons] == [("cheapest", "$0.0004 expected, next $0.001 expected")]
    assert first.score == 0.0004


def test_a_free_offer_is_cheaper_than_one_that_costs_next_to_nothing() -> None:
    assert ranked("cost", [candidate("dust", dollars=1e-9), candidate("free", dollars=0)]) == ["free", "dust"]


@pytest.mark.parametrize(("quantile", "first"), [("p50", "spiky"), ("p95", "even")])
def test_by_latency_the_asked_quantile_decides(quantile: str, first: str) -> None:
    offers = [candidate("even", total_p50=2.0, total_p95=2.5), candidate("spiky", total_p50=1.0, total_p95=30.0)]
    assert ranked("latency", offers, quantile=quantile)[0] == first


def test_seconds_that_only_half_of_the_attempts_keep_count_double() -> None:
    offers = [candidate("fails", total_p50=1.0, success=0.5), candidate("holds", total_p50=1.2, success=1.0)]
    assert ranked("latency", offers) == ["holds", "fails"]


def test_without_data_an_offer_stands_behind_the_median_of_its_siblings_and_before_the_slow() -> None:
    offers = [candidate("slow", total_p50=9.0), candidate("new", samples=0), candidate("a", total_p50=1.0)]
    offers.append(candidate("b", total_p50=1.3))
    assert ranked("latency", offers) == ["a", "b", "new", "slow"]


def test_what_holds_all_the_load_counts_as_somewhat_slower() -> None:
    busy = candidate("busy", total_p50=1.0, in_flight=500)
    assert ranked("latency", [busy, candidate("idle", total_p50=1.03)]) == ["idle", "busy"]
    assert ranked("latency", [busy, candidate("slow", total_p50=2.0)]) == ["busy", "slow"]


def test_of_those_that_are_about_as_fast_the_better_is_drawn_more_often() -> None:
    chance = random.Random(7)
    offers = [candidate("fast", total_p50=1.0), candidate("near", total_p50=1.05), candidate("far", total_p50=1.25)]
    firsts = [ranked("latency", offers, chance.random)[0] for _ in range(2_000)]
    assert share(firsts, "fast") == pytest.approx(1 / (1 + math.exp(-1)), abs=0.04)
    assert share(firsts, "far") == 0.0


def test_by_health_the_share_of_successes_decides_and_what_is_probed_comes_last() -> None:
    offers = [
        candidate("probed", success=1.0, breaker=BreakerState.PROBING, breaker_until_seconds=0.0),
        candidate("bad", success=0.6),
        candidate("good", success=0.99),
    ]
    assert ranked("health", offers) == ["good", "bad", "probed"]


def test_a_blend_weighs_each_term_as_a_share_of_the_worst() -> None:
    cheap = candidate("cheap", dollars=0.001, total_p50=10.0, success=0.9)
    quick = candidate("quick", dollars=0.010, total_p50=1.0, success=0.9)
    assert ranked("blend", [quick, cheap], weights=Weights(cost=3, latency=1)) == ["cheap", "quick"]
    assert ranked("blend", [quick, cheap], weights=Weights(cost=1, latency=3)) == ["quick", "cheap"]


def test_only_the_proportion_of_the_weights_matters() -> None:
    offers = [candidate("a", dollars=0.01, total_p50=1.0), candidate("b", dollars=0.003, total_p50=2.0)]
    assert ranked("blend", offers, weights=Weights(cost=1, latency=2)) == ranked(
        "blend", offers, weights=Weights(cost=100, latency=200)
    )


def test_in_a_blend_an_unknown_price_is_as_bad_as_the_worst_and_never_free() -> None:
    offers = [candidate("unknown", dollars=None), candidate("dear", dollars=5), candidate("cheap", dollars=1)]
    assert ranked("blend", offers, draws(0.5), weights=Weights(cost=1))[0] == "cheap"


def test_an_order_by_hand_is_kept_and_the_unnamed_come_after_it() -> None:
    offers = [candidate(name) for name in ("z", "b", "a")]
    assert ranked("ordered", offers, order=("a", "b")) == ["a", "b", "z"]


def test_neighbours_in_a_long_order_by_hand_are_no_ties() -> None:
    names = [f"p{number}" for number in range(30)]
    offers = [candidate(name) for name in reversed(names)]
    assert ranked("ordered", offers, order=tuple(names)) == names


# -- ties ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["cost", "latency", "health", "blend", "ordered"])
def test_equals_share_by_draw_whatever_the_list_says(by: str) -> None:
    chance = random.Random(7)
    offers = [candidate(name, total_p50=1.0, success=1.0) for name in "abc"]
    firsts = [ranked(by, offers, chance.random)[0] for _ in range(900)]
    assert all(0.27 < share(firsts, name) < 0.40 for name in "abc")


def test_what_is_within_five_per_cent_is_a_tie_and_says_so_and_what_is_not_is_none() -> None:
    offers = [candidate("a", dollars=0.100), candidate("b", dollars=0.105), candidate("c", dollars=0.106)]
    policy = Policy(name="p", rank=Rank(by="cost", explore=0))
    plan = evaluate(policy, offers, demand(), draw=draws(0.9, 0.1))
    assert kept(plan) == ["b", "a", "c"]
    assert codes(plan, "a") == ["next", "tie"]
    assert codes(plan, "b") == ["cheapest", "tie"]
    assert codes(plan, "c") == ["next"]


def test_among_equals_the_less_loaded_is_likelier_in_proportion() -> None:
    chance = random.Random(11)
    offers = [candidate("busy", in_flight=3), candidate("idle", in_flight=0)]
    firsts = [ranked("cost", offers, chance.random)[0] for _ in range(2_000)]
    assert share(firsts, "busy") == pytest.approx(0.2, abs=0.03)  # weights 1/4 and 1


def test_a_draw_of_nought_is_no_trouble() -> None:
    assert sorted(ranked("cost", [candidate("a"), candidate("b")], draws(0.0))) == ["a", "b"]


# -- exploration ----------------------------------------------------------------------------------------------------


def firsts(offers: list[Candidate], *, times: int = 4_000, by: str = "latency", seed: int = 3) -> list[str]:
    chance = random.Random(seed)
    return [ranked(by, offers, chance.random, explore=0.1)[0] for _ in range(times)]


def test_offers_without_data_share_the_exploration_and_no_more() -> None:
    offers = [candidate("known", total_p50=1.0)] + [candidate(name, samples=0) for name in ("new", "newer")]
    drawn = firsts(offers)
    assert share(drawn, "new") == pytest.approx(0.2, abs=0.02)  # nobody has tried either: four times as often
    assert share(drawn, "newer") == pytest.approx(0.2, abs=0.02)
    offers = [candidate("known", total_p50=1.0)] + [candidate(name, samples=1) for name in ("new", "newer")]
    assert share(firsts(offers), "new") == pytest.approx(0.05, abs=0.012)


def test_the_reason_says_that_it_was_explored() -> None:
    policy = Policy(name="p", rank=Rank(by="latency", explore=0.1))
    plan = evaluate(policy, [candidate("a", total_p50=1.0), candidate("b", samples=2)], demand(), draw=draws(0.05))
    assert kept(plan) == ["b", "a"]
    assert codes(plan, "b")[0] == "explored"


@pytest.mark.parametrize(
    ("in_flight", "samples", "wanted"), [(0, 4, True), (1, 3, True), (2, 0, False), (0, 5, False), (1, 4, False)]
)
def test_at_most_two_explore_at_once_and_five_samples_are_enough(in_flight: int, samples: int, wanted: bool) -> None:
    offers = [candidate("known", total_p50=1.0), candidate("new", samples=samples, in_flight=in_flight)]
    assert (share(firsts(offers, times=200), "new") > 0) is wanted


def test_a_prediction_that_failed_once_is_no_ground_for_experiments() -> None:
    policy = Policy(name="p", rank=Rank(by="latency", explore=0.5))
    offers = [candidate("known", total_p50=1.0), candidate("new", samples=0)]
    assert kept(evaluate(policy, offers, demand(attempts=1), draw=never)) == ["known", "new"]


def test_by_cost_a_known_price_teaches_nothing_and_one_that_hangs_on_run_time_does() -> None:
    known = candidate("known", dollars=0.001)
    assert share(firsts([known, candidate("dear", dollars=9, samples=0)], by="cost", times=500), "dear") == 0
    timed = candidate("timed", dollars=None, samples=0, offer={"price": Price(per_second=1_000)})
    assert share(firsts([known, timed], by="cost"), "timed") == pytest.approx(0.4, abs=0.03)
    mystery = candidate("mystery", dollars=None, samples=0, offer={"price": Price()})
    assert share(firsts([known, mystery], by="cost", times=500), "mystery") == 0


def test_one_that_is_well_known_and_not_the_best_is_no_experiment_however_long_it_was_not_heard_of() -> None:
    known = candidate("known", dollars=0.001, success=1.0)
    dear = candidate("dear", dollars=9, success=0.96, unheard_seconds=3_600.0)
    assert share(firsts([known, dear], by="blend", times=400), "dear") == 0
    failed = candidate("failed", dollars=9, success=0.3, unheard_seconds=3_600.0)
    assert share(firsts([known, failed], by="blend", times=400), "failed") > 0


def test_an_order_by_hand_is_not_explored_against() -> None:
    offers = [candidate("a"), candidate("b", samples=0)]
    assert ranked("ordered", offers, explore=0.5, order=("a", "b")) == ["a", "b"]


def test_what_may_be_probed_again_gets_its_share_though_it_ranks_last() -> None:
    probing = candidate("back", total_p50=9.0, success=0.3, breaker=BreakerState.PROBING, breaker_until_seconds=0.0)
    assert share(firsts([candidate("known", total_p50=1.0), probing]), "back") == pytest.approx(0.1, abs=0.015)


# -- whatever comes ----------------------------------------------------------------------------------------------------

_signals = st.fixed_dictionaries(
    {
        "dollars": st.one_of(st.none(), st.floats(0, 100)),
        "total_p50": st.one_of(st.none(), st.floats(0, 1e5)),
        "total_p95": st.one_of(st.none(), st.floats(0, 1e5)),
        "success": st.one_of(st.none(), st.floats(0, 1)),
        "samples": st.integers(0, 100),
        "in_flight": st.integers(0, 10_000),
        "limited_for_seconds": st.sampled_from([0.0, 0.0, 5.0]),
        "breaker": st.sampled_from(list(BreakerState)),
        "breaker_until_seconds": st.sampled_from([None, 0.0, 7.0]),
    }
)


@given(
    st.lists(_signals, max_size=8),
    st.sampled_from(["cost", "latency", "health", "blend", "ordered"]),
    st.floats(0, 0.999999),
    st.permutations(range(8)),
)
def test_every_candidate_stands_in_the_plan_once_with_a_reason_and_its_fate_hangs_on_no_place_in_the_list(
    many: list[dict[str, Any]], by: Any, drawn: float, shuffle: list[int]
) -> None:
    offers = [candidate(f"p{number}", **signals) for number, signals in enumerate(many)]
    policy = Policy(name="p", rank=Rank(by=by, order=("p2", "p0")))
    plan = evaluate(policy, offers, demand(), draw=lambda: drawn)
    assert sorted(choice.provider for choice in plan.choices) == sorted(c.offer.provider for c in offers)
    assert all(choice.reasons and all(r.code and r.text for r in choice.reasons) for choice in plan.choices)
    assert [choice.kept for choice in plan.choices] == sorted((c.kept for c in plan.choices), reverse=True)
    moved = [offers[place] for place in shuffle if place < len(offers)]
    again = evaluate(policy, moved, demand(), draw=lambda: drawn)
    assert sorted(kept(again)) == sorted(kept(plan))
    assert again.wait_seconds == plan.wait_seconds
