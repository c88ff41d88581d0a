"""The plan as a whole: fallbacks, limits, which policy a prediction is for, and that a plan survives being stored."""

from __future__ import annotations

import msgspec

from gateway.contract.route import Plan
from policies.document import Fallback, Keep, Limits, Policy, Rank
from policies.evaluate import evaluate
from policies.reading import presets
from tests.unit.policies.making import candidate, codes, demand, draws, kept, never

CHEAPEST = Policy(name="p", rank=Rank(by="cost", explore=0))
LOCAL = candidate("local", dollars=0, offer={"is_fallback": True})


def test_the_fallback_is_last_and_marked_even_if_it_is_free() -> None:
    plan = evaluate(CHEAPEST, [LOCAL, candidate("a", dollars=1)], demand(), draw=never)
    assert [(choice.provider, choice.is_fallback) for choice in plan.kept] == [("a", False), ("local", True)]
    assert codes(plan, "local") == ["fallback"]


def test_if_only_the_fallback_is_left_it_is_used_and_still_marked() -> None:
    offers = [candidate("a", limited_for_seconds=5), LOCAL]
    plan = evaluate(CHEAPEST, offers, demand(), draw=never)
    assert [(choice.provider, choice.is_fallback) for choice in plan.kept] == [("local", True)]
    assert plan.wait_seconds is None


def test_a_model_that_only_the_local_backend_offers_is_served_by_it_and_by_no_fallback() -> None:
    plan = evaluate(CHEAPEST, [LOCAL], demand(), draw=never)
    assert [(choice.provider, choice.is_fallback) for choice in plan.kept] == [("local", False)]


def test_a_policy_without_fallback_rather_fails() -> None:
    policy = Policy(name="p", fallback=Fallback(provider=""))
    offers = [candidate("a", limited_for_seconds=5), LOCAL]
    plan = evaluate(policy, offers, demand(), draw=never)
    assert plan.kept == ()
    assert codes(plan, "local") == ["provider"]
    assert plan.wait_seconds == 5


def test_any_provider_may_be_the_fallback_and_the_one_the_policy_names_is_the_very_last() -> None:
    policy = Policy(name="p", rank=Rank(by="cost", explore=0), fallback=Fallback(provider="b"))
    offers = [candidate("b", dollars=0), LOCAL, candidate("a", dollars=3)]
    assert kept(evaluate(policy, offers, demand(), draw=never)) == ["a", "local", "b"]


def test_a_fallback_is_not_explored_and_draws_nothing() -> None:
    policy = Policy(name="p", rank=Rank(by="latency", explore=0.5))
    local = candidate("local", samples=0, offer={"is_fallback": True})
    plan = evaluate(policy, [candidate("a", total_p50=1.0), local], demand(), draw=draws(0.0))
    assert kept(plan) == ["a", "local"]


def test_local_only_takes_the_local_backend_as_its_first_choice_and_nobody_else() -> None:
    policy = next(policy for policy in presets() if policy.name == "local_only")
    plan = evaluate(policy, [candidate("a"), LOCAL, candidate("b")], demand(), draw=never)
    assert [(choice.provider, choice.is_fallback) for choice in plan.kept] == [("local", False)]


def test_no_offers_make_an_empty_plan() -> None:
    plan = evaluate(CHEAPEST, [], demand(), draw=never)
    assert plan.choices == ()
    assert plan.wait_seconds is None


def test_limits_are_handed_on() -> None:
    limits = Limits(attempts=3, attempt_seconds=20, pay_twice_up_to="0.05")
    plan = evaluate(Policy(name="mine", limits=limits), [candidate("a")], demand(), draw=never)
    assert (plan.policy, plan.max_attempts, plan.attempt_seconds, plan.pay_twice_up_to_nanos) == (
        "mine", 3, 20, 50_000_000,
    )  # fmt: skip
    assert evaluate(CHEAPEST, [candidate("a")], demand(), draw=never).attempt_seconds is None


def test_a_plan_comes_back_from_the_store_as_it_went_in() -> None:
    offers = [candidate("a", dollars=None), candidate("b", dollars=None), candidate("c"), LOCAL]
    plan = evaluate(Policy(name="p", rank=Rank(by="cost")), offers, demand(), draw=draws(0.3))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_keeping_a_marked_offer_by_name_lets_it_compete() -> None:
    policy = Policy(
        name="p", keep=Keep(providers=("local", "a")), rank=Rank(by="cost", explore=0), fallback=Fallback(provider="")
    )
    assert kept(evaluate(policy, [candidate("a", dollars=1), LOCAL], demand(), draw=never)) == ["local", "a"]


def test_the_fallback_may_be_one_offer_of_a_provider() -> None:
    offers = [candidate(name, offer={"id": f"acme/up@{id}"}) for name, id in (("b", "b"), ("b", "b#2"), ("a", "a"))]
    policy = Policy(name="p", rank=Rank(by="ordered", order=("b", "a")), fallback=Fallback(provider="b#2"))
    plan = evaluate(policy, offers, demand(), draw=never)
    assert [(choice.offer, choice.is_fallback) for choice in plan.kept] == [
        ("acme/up@b", False), ("acme/up@a", False), ("acme/up@b#2", True),
    ]  # fmt: skip
    first = Policy(name="p", rank=policy.rank, fallback=Fallback(provider="b#1"))
    plan = evaluate(first, offers, demand(), draw=never)
    assert [choice.offer for choice in plan.kept if choice.is_fallback] == ["acme/up@b"]


def test_the_named_offer_comes_after_those_that_are_marked_and_is_exempt_from_the_price() -> None:
    offers = [
        candidate("b", dollars=9, offer={"id": "acme/up@b#2"}), LOCAL, candidate("b", offer={"id": "acme/up@b"})
    ]  # fmt: skip
    policy = Policy(name="p", keep=Keep(max_price="0.05"), fallback=Fallback(provider="b#2"))
    plan = evaluate(policy, offers, demand(), draw=never)
    assert [choice.offer for choice in plan.kept] == ["acme/up@b", "acme/up@local", "acme/up@b#2"]
