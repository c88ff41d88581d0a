"""Each rule that drops an offer: it drops, says so in its code, and lets the fitting one pass."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract.route import BreakerState
from policies.document import Fallback, Keep, Policy
from policies.evaluate import evaluate
from policies.keep import READY_PATIENCE_SECONDS
from tests.unit.policies.making import OTHER_VERSION, candidate, codes, demand, draws, kept

PRICED = Keep(max_price="0.01")


@pytest.mark.parametrize(
    ("code", "keep", "misfit", "fit"),
    [
        ("version", Keep(), {"offer": {"version": OTHER_VERSION}}, {}),
        (
            "capability",
            Keep(capabilities=("stream",)),
            {},
            {"offer": {"capabilities": frozenset({"stream", "cancel"})}},
        ),
        ("quality", Keep(quality="full"), {"offer": {"quality": "reduced"}}, {"offer": {"quality": "full"}}),
        (
            "version",
            Keep(version="equivalent"),
            {"offer": {"version": OTHER_VERSION, "equivalent": "fast"}},
            {"offer": {"equivalent": "slow"}},
        ),
        ("region", Keep(regions=("eu",)), {"offer": {"region": "us"}}, {"offer": {"region": "eu"}}),
        ("region", Keep(regions=("eu",)), {"offer": {"region": None}}, {"offer": {"region": "eu"}}),
        ("price", PRICED, {"dollars": 0.010000001}, {"dollars": 0.01}),
        ("price_unknown", Keep(max_price="1", unknown_price="drop"), {"dollars": None}, {"dollars": 0}),
        ("success", Keep(min_success=0.9), {"success": 0.89}, {"success": 0.9}),
        ("success", Keep(min_success=0.9), {"success": 0.0}, {"success": None}),
        ("deadline", Keep(), {"expected_seconds": 601}, {"expected_seconds": 599}),
        ("deadline", Keep(), {"expected_seconds": 601}, {"expected_seconds": None}),
        ("breaker", Keep(), {"breaker": BreakerState.OPEN, "breaker_until_seconds": 9.0}, {}),
        ("breaker", Keep(), {"breaker": BreakerState.OPEN, "breaker_until_seconds": None}, {}),
        (
            "breaker",
            Keep(),
            {"breaker": BreakerState.PROBING, "breaker_until_seconds": 1.0},
            {"breaker": BreakerState.PROBING, "breaker_until_seconds": 0.0},
        ),
        ("rate_limit", Keep(), {"limited_for_seconds": 0.2}, {"limited_for_seconds": 0.0}),
        (
            "concurrency",
            Keep(),
            {"offer": {"concurrency": 3}, "in_flight": 3},
            {"offer": {"concurrency": 3}, "in_flight": 2},
        ),
        ("concurrency", Keep(), {"full": True}, {"full": False}),
        ("not_ready", Keep(), {"ready": False}, {"ready": True}),
    ],
)
def test_a_misfit_is_dropped_with_its_reason_and_a_fit_is_kept(
    code: str, keep: Keep, misfit: dict[str, Any], fit: dict[str, Any]
) -> None:
    policy = Policy(name="p", keep=keep)
    plan = evaluate(policy, [candidate("misfit", **misfit), candidate("fit", **fit)], demand(), draw=draws(0.5))
    assert kept(plan) == ["fit"]
    assert codes(plan, "misfit") == [code]
    assert all(reason.text for choice in plan.choices for reason in choice.reasons)


def test_only_these_and_never_those() -> None:
    policy = Policy(name="p", keep=Keep(providers=("a", "b"), without=("b",)))
    plan = evaluate(policy, [candidate("a"), candidate("b"), candidate("c")], demand(), draw=draws(0.5))
    assert kept(plan) == ["a"]
    assert codes(plan, "b") == codes(plan, "c") == ["provider"]


def test_what_failed_already_is_never_tried_again_for_the_same_prediction() -> None:
    offers = [candidate("a"), candidate("b")]
    plan = evaluate(Policy(name="p"), offers, demand(attempts=1), excluded=frozenset({"acme/up@a"}), draw=draws(0.5))
    assert kept(plan) == ["b"]
    assert codes(plan, "a") == ["excluded"]


def test_what_the_prediction_asks_for_adds_to_what_the_policy_asks_for() -> None:
    policy = Policy(name="p", keep=Keep(capabilities=("cancel",)))
    offers = [
        candidate("cancel", offer={"capabilities": frozenset({"cancel"})}),
        candidate("both", offer={"capabilities": frozenset({"cancel", "stream"})}),
    ]
    assert kept(evaluate(policy, offers, demand(capabilities=frozenset({"stream"})), draw=draws(0.5))) == ["both"]


def test_an_unknown_price_passes_a_limit_unless_the_policy_drops_it() -> None:
    assert kept(evaluate(Policy(name="p", keep=PRICED), [candidate("a", dollars=None)], demand(), draw=draws(0.5)))


def test_a_reason_that_lasts_hides_those_that_pass() -> None:
    barred = candidate("a", dollars=1.0, limited_for_seconds=2.0, breaker=BreakerState.OPEN, breaker_until_seconds=3.0)
    plan = evaluate(Policy(name="p", keep=PRICED), [barred], demand(), draw=draws(0.5))
    assert codes(plan, "a") == ["price"]
    assert plan.wait_seconds is None


def test_passing_reasons_are_all_told_and_the_longest_is_waited_for() -> None:
    barred = candidate("a", limited_for_seconds=2.0, breaker=BreakerState.OPEN, breaker_until_seconds=3.0)
    plan = evaluate(Policy(name="p"), [barred], demand(), draw=draws(0.5))
    assert codes(plan, "a") == ["breaker", "rate_limit"]
    assert plan.wait_seconds == 3.0


@pytest.mark.parametrize(("left", "expected"), [(600.0, 2.0), (2.5, 2.0), (2.0, None), (1.0, None)])
def test_nothing_to_try_now_means_waiting_for_the_earliest_that_ends_within_the_deadline(
    left: float, expected: float | None
) -> None:
    offers = [
        candidate("slow", breaker=BreakerState.OPEN, breaker_until_seconds=40.0),
        candidate("soon", limited_for_seconds=2.0),
        candidate("held", breaker=BreakerState.OPEN, breaker_until_seconds=None),
    ]
    plan = evaluate(Policy(name="p"), offers, demand(deadline_seconds=left), draw=draws(0.5))
    assert plan.kept == ()
    assert plan.wait_seconds == expected


def test_nobody_waits_while_something_can_be_tried() -> None:
    offers = [candidate("a"), candidate("b", limited_for_seconds=1.0)]
    assert evaluate(Policy(name="p"), offers, demand(), draw=draws(0.5)).wait_seconds is None


def test_a_provider_that_starts_is_waited_for_with_patience_that_ends() -> None:
    offers = [candidate("local", ready=False)]

    def wait(idle_seconds: float) -> float | None:
        return evaluate(Policy(name="p"), offers, demand(idle_seconds=idle_seconds), draw=draws(0.5)).wait_seconds

    assert wait(READY_PATIENCE_SECONDS - 1) is not None
    assert wait(READY_PATIENCE_SECONDS) is None


def test_a_fallback_is_exempt_from_the_price_and_from_no_other_rule() -> None:
    policy = Policy(
        name="p",
        keep=Keep(max_price="0.01", unknown_price="drop", regions=("eu",), capabilities=("stream",)),
        fallback=Fallback(provider="local"),
    )
    stream = {"region": "eu", "capabilities": frozenset({"stream"})}

    def local(dollars: float | None, **offer: Any) -> list[str]:
        offers = [candidate("a", offer=stream), candidate("local", dollars=dollars, offer={**stream, **offer})]
        plan = evaluate(policy, offers, demand(), draw=draws(0.5))
        return kept(plan)[1:] + codes(plan, "local")

    assert local(5.0) == local(None) == ["local", "fallback"]
    assert local(0, version=OTHER_VERSION) == ["version"]
    assert local(0, capabilities=frozenset()) == ["capability"]
    assert local(0, region="us") == ["region"]


# -- quality and equivalence ------------------------------------------------------------------------------------------


def test_full_quality_drops_the_fallback_too_if_it_is_reduced() -> None:
    local = candidate("local", offer={"is_fallback": True, "quality": "reduced"})
    full = evaluate(Policy(name="p", keep=Keep(quality="full")), [candidate("a"), local], demand(), draw=draws(0.5))
    assert (kept(full), codes(full, "local")) == (["a"], ["quality"])
    plan = evaluate(Policy(name="p"), [candidate("a"), local], demand(), draw=draws(0.5))
    assert [(choice.provider, choice.quality) for choice in plan.kept] == [("a", "full"), ("local", "reduced")]


OWN = candidate("own", offer={"equivalent": "fast"})
TWIN = candidate("twin", offer={"version": OTHER_VERSION, "equivalent": "fast"})
COUSIN = candidate("cousin", offer={"version": OTHER_VERSION, "equivalent": "slow"})
STRANGER = candidate("stranger", offer={"version": OTHER_VERSION})
FAMILY = [OWN, TWIN, COUSIN, STRANGER]
EQUIVALENT = Policy(name="p", keep=Keep(version="equivalent"), fallback=Fallback(provider=""))


def test_another_version_serves_where_it_is_equivalent_to_an_offer_of_the_demanded_one() -> None:
    plan = evaluate(EQUIVALENT, FAMILY, demand(), draw=draws(0.5))
    assert sorted(kept(plan)) == ["own", "twin"]
    assert codes(plan, "cousin") == codes(plan, "stranger") == ["version"]
    assert plan.choices[-1].reasons[0].text.endswith("and equivalent to none of fast")


def test_it_takes_an_offer_of_the_demanded_version_to_be_equivalent_to() -> None:
    assert kept(evaluate(EQUIVALENT, [TWIN, COUSIN, STRANGER], demand(), draw=draws(0.5))) == []
    # One that cannot serve just now still says what is as good.
    broken = candidate("own", offer={"equivalent": "fast"}, breaker=BreakerState.OPEN)
    assert kept(evaluate(EQUIVALENT, [broken, TWIN], demand(), draw=draws(0.5))) == ["twin"]


def test_a_request_that_pins_its_version_gets_no_other() -> None:
    plan = evaluate(EQUIVALENT, FAMILY, demand(is_pinned=True), draw=draws(0.5))
    assert kept(plan) == ["own"]
    assert codes(plan, "twin") == ["version"]


def test_versions_are_taken_as_declared_where_the_policy_says_nothing() -> None:
    declared = Policy(name="p", fallback=Fallback(provider=""))
    assert kept(evaluate(declared, FAMILY, demand(), draw=draws(0.5))) == ["own"]
