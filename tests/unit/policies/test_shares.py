"""Shares of the traffic: how large they come out, who is moved when they change, and what holds a caller to one."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from gateway.contract.route import Candidate, Plan
from policies.document import Fallback, Policy, Rank
from policies.evaluate import evaluate
from policies.keep import Code
from tests.unit.policies.making import candidate, demand, kept, never

COUNT = 4_000


def policy(shares: dict[str, float], sticky: str = "", name: str = "ab") -> Policy:
    return Policy(name=name, rank=Rank(by="weighted", shares=shares, sticky=sticky), fallback=Fallback(provider=""))


def second(provider: str) -> Candidate:
    return candidate(provider, offer={"id": f"acme/up@{provider}#2"})


OFFERS = [candidate("fal"), candidate("replicate")]


def drawn(made: Policy, offers: Sequence[Candidate], *, without: frozenset[str] = frozenset()) -> Counter[str]:
    draw = random.Random(7).random
    return Counter(evaluate(made, offers, demand(), excluded=without, draw=draw).kept[0].offer for _ in range(COUNT))


def session(made: Policy, offers: Sequence[Candidate], number: int, *, without: frozenset[str] = frozenset()) -> str:
    """The offer that a session gets; nothing may be drawn for it."""
    asked = demand(labels={"session": f"s{number}"}, key=f"k{number}")
    return evaluate(made, offers, asked, excluded=without, draw=never).kept[0].offer


def sessions(made: Policy, offers: Sequence[Candidate], **more: frozenset[str]) -> list[str]:
    return [session(made, offers, number, **more) for number in range(COUNT)]


def within_four_sigma(count: int, share: float) -> bool:
    return abs(count - COUNT * share) < 4 * (COUNT * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("sticky", ["", "key", "label:session"])
def test_each_gets_its_share_drawn_or_sticky(sticky: str) -> None:
    made = policy({"fal": 90, "replicate": 10}, sticky)
    counted = Counter(sessions(made, OFFERS)) if sticky else drawn(made, OFFERS)
    assert within_four_sigma(counted["acme/up@replicate"], 0.1), counted
    assert sum(counted.values()) == COUNT


def test_offers_of_one_name_share_it_and_one_that_is_named_has_its_own() -> None:
    offers = [candidate("fal"), second("fal"), candidate("replicate")]
    both = drawn(policy({"fal": 60, "replicate": 40}), offers)
    assert within_four_sigma(both["acme/up@fal"], 0.3), both
    assert within_four_sigma(both["acme/up@fal#2"], 0.3), both
    own = drawn(policy({"fal": 60, "fal#2": 10, "replicate": 30}), offers)
    assert within_four_sigma(own["acme/up@fal"], 0.6), own
    assert within_four_sigma(own["acme/up@fal#2"], 0.1), own
    first = drawn(policy({"fal#1": 80, "replicate": 20}), offers)
    assert within_four_sigma(first["acme/up@fal"], 0.8), first
    assert first["acme/up@fal#2"] == 0


def test_who_failed_is_passed_over_in_proportion() -> None:
    offers = [*OFFERS, candidate("together")]
    made = policy({"fal": 80, "replicate": 15, "together": 5})
    left = drawn(made, offers, without=frozenset({"acme/up@fal"}))
    assert left["acme/up@fal"] == 0
    assert within_four_sigma(left["acme/up@together"], 0.25), left


def test_the_order_behind_the_first_is_in_proportion_too() -> None:
    """Who has the plan of a failed first goes to the second: as if the first had not been there."""
    offers = [*OFFERS, candidate("together")]
    made, draw = policy({"fal": 80, "replicate": 15, "together": 5}), random.Random(3).random
    plans = [kept(evaluate(made, offers, demand(), draw=draw)) for _ in range(COUNT)]
    behind = Counter(plan[1] for plan in plans if plan[0] == "fal")
    assert 0.18 < behind["together"] / behind.total() < 0.32, behind


@pytest.mark.parametrize("sticky", ["", "key"])
def test_without_a_share_it_serves_only_when_nothing_else_is_left(sticky: str) -> None:
    offers = [candidate("none"), *OFFERS, candidate("zero")]
    made = policy({"fal": 1, "replicate": 1, "zero": 0}, sticky)
    for number in range(50):
        plan = evaluate(made, offers, demand(key=str(number)), draw=random.Random(number).random)
        assert set(kept(plan)[:2]) == {"fal", "replicate"}
        assert set(kept(plan)[2:]) == {"none", "zero"}
    gone = frozenset({"acme/up@fal", "acme/up@replicate"})
    left = Counter(
        evaluate(made, offers, demand(key=str(n)), excluded=gone, draw=random.Random(n).random).kept[0].provider
        for n in range(200)
    )
    assert left.keys() == {"none", "zero"}
    plan = evaluate(made, offers, demand(), excluded=gone, draw=random.Random(1).random)
    assert plan.kept[0].reasons[0].text == "no share, and no other has one"


# -- sticky -----------------------------------------------------------------------------------------------------------


def test_the_same_session_always_draws_the_same_whatever_the_order_of_the_list() -> None:
    offers = [*OFFERS, candidate("together"), second("fal")]
    made = policy({"fal": 3, "replicate": 2, "together": 1}, "label:session")
    for number in range(200):
        assert len({session(made, list(order), number) for order in itertools.permutations(offers)}) == 1


def test_an_offer_that_goes_away_moves_only_its_own() -> None:
    offers = [*OFFERS, candidate("together"), second("fal")]
    made = policy({"fal": 3, "replicate": 2, "together": 1}, "label:session")
    before = sessions(made, offers)
    for gone in offers:
        after = sessions(made, [offer for offer in offers if offer is not gone])
        moved = {was for was, now in zip(before, after, strict=True) if was != now}
        assert moved == {gone.offer.id}


def test_shares_that_change_move_as_few_as_can_be() -> None:
    before = sessions(policy({"fal": 90, "replicate": 10}, "label:session"), OFFERS)
    after = sessions(policy({"fal": 75, "replicate": 25}, "label:session"), OFFERS)
    moves = Counter((was, now) for was, now in zip(before, after, strict=True) if was != now)
    assert moves.keys() == {("acme/up@fal", "acme/up@replicate")}, "nobody goes the other way"
    assert within_four_sigma(moves.total(), 0.15), moves


def test_other_policies_try_things_out_on_other_sessions() -> None:
    shares = {"fal": 90, "replicate": 10}
    one, other = (sessions(policy(shares, "label:session", name), OFFERS) for name in ("one", "other"))
    both = sum(a == b == "acme/up@replicate" for a, b in zip(one, other, strict=True))
    assert within_four_sigma(both, 0.01), both


def test_without_the_label_it_is_drawn_and_says_so() -> None:
    made = policy({"fal": 1, "replicate": 1}, "label:session")
    draw = random.Random(5).random
    plans = [evaluate(made, OFFERS, demand(labels={"other": "x"}), draw=draw) for _ in range(100)]
    assert {plan.kept[0].provider for plan in plans} == {"fal", "replicate"}
    assert plans[0].kept[0].reasons[0].text.endswith("drawn, for want of a label session")


# -- explain ----------------------------------------------------------------------------------------------------------


def said(plan: Plan) -> list[tuple[str, str]]:
    return [(choice.reasons[0].code, choice.reasons[0].text) for choice in plan.kept]


def test_the_plan_says_the_share_and_what_holds_to_it() -> None:
    offers = [candidate("fal"), candidate("none")]
    shares = {"fal": 90.0, "replicate": 10.0}
    labelled = demand(labels={"session": "s"}, key="app")
    assert said(evaluate(policy(shares, "label:session"), offers, labelled, draw=never)) == [
        (Code.SHARE, "90 of 90 shares, sticky by label session"),
        (Code.NEXT, "no share, behind fal"),
    ]
    assert said(evaluate(policy(shares, "key"), offers, labelled, draw=never))[0][1] == "90 of 90 shares, sticky by key"
    plan = evaluate(policy(shares), [*OFFERS], labelled, draw=lambda: 0.5)
    assert said(plan)[0] == (Code.SHARE, "90 of 100 shares, drawn")
