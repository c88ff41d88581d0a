"""What holds of every plan, whatever the policy and the candidates are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.contract.money import NANOS
from gateway.contract.route import BreakerState, Candidate, Offer, Plan, Signals
from policies.document import Fallback, Keep, Policy, Rank, Weights
from policies.evaluate import evaluate
from policies.keep import Demand
from policies.rank import NEAR
from tests.unit.policies.making import OTHER_VERSION, VERSION, draws

# A plan of few offers is read as it is: to look for a smaller one would take longer than a test may.
QUICK = settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))

PROVIDERS = ("a", "b", "c", "local")
REGIONS = ("eu", "us")
CAN = ("stream", "cancel")
MEASURES = st.sampled_from(["cost", "latency", "health", "blend", "ordered", "weighted"])

Value = TypeVar("Value")


def mostly(usual: Value, else_: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    """So that plans have several candidates left: where everything is dropped there is little to see."""
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), else_)


numbers = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=8)
seconds = st.none() | st.floats(0.01, 5_000)
prices = st.none() | st.integers(0, 10 * NANOS)


@st.composite
def signals(draw: st.DrawFn) -> Signals:
    state = draw(mostly(BreakerState.CLOSED, st.sampled_from(BreakerState)))
    return Signals(
        samples=draw(st.integers(0, 60)),
        total_p50=draw(seconds),
        total_p95=draw(seconds),
        success=draw(st.none() | st.floats(0, 1)),
        in_flight=draw(st.integers(0, 5)),
        breaker=state,
        breaker_until_seconds=draw(seconds) if state is not BreakerState.CLOSED else None,
        limited_for_seconds=draw(mostly(0.0, st.just(3.0))),
    )


@st.composite
def candidates(draw: st.DrawFn, min_size: int = 0) -> list[Candidate]:
    """Several offers of few providers, some down, slow, dear, unknown, of another version."""
    providers = draw(st.lists(st.sampled_from(PROVIDERS), min_size=min_size, max_size=5))
    count: dict[str, int] = {}
    made = []
    for provider in providers:
        number = count[provider] = count.get(provider, 0) + 1
        id = f"acme/up@{provider}" + (f"#{number}" if number > 1 else "")
        measured = draw(signals())
        made.append(
            Candidate(
                offer=Offer(
                    id=id,
                    model="acme/up",
                    provider=provider,
                    name="up",
                    version=draw(mostly(VERSION, st.just(OTHER_VERSION))),
                    region=draw(st.none() | st.sampled_from(REGIONS)),
                    capabilities=draw(st.frozensets(st.sampled_from(CAN))),
                    is_fallback=provider == "local" and draw(st.booleans()),
                    concurrency=draw(mostly(None, st.integers(1, 4))),
                    quality=draw(st.sampled_from(["full", "reduced"])),
                    equivalent=draw(st.sampled_from([None, "fast", "slow"])),
                ),
                signals=measured,
                expected_nanos=draw(prices),
                expected_seconds=measured.total_p50,
                provider_ready=draw(mostly(True, st.just(False))),
            )
        )
    return made


def some(words: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), unique=True).map(tuple)


keeps = st.builds(
    Keep,
    providers=mostly((), some(PROVIDERS)),
    without=mostly((), some(PROVIDERS)),
    regions=mostly((), some(REGIONS)),
    capabilities=mostly((), some(CAN)),
    quality=mostly("reduced", st.just("full")),
    version=st.sampled_from(["declared", "equivalent"]),
    max_price=mostly("", st.sampled_from(["0", "0.5", "5"])),
    unknown_price=st.sampled_from(["keep", "drop"]),
    min_success=mostly(0.0, st.sampled_from([0.5, 1.0])),
)
ranks = st.builds(
    Rank,
    by=MEASURES,
    weights=st.builds(Weights, cost=st.floats(0, 9), latency=st.floats(0, 9), health=st.floats(0.1, 9)),
    order=some(PROVIDERS),
    shares=st.dictionaries(st.sampled_from([*PROVIDERS, "a#1", "a#2"]), st.floats(0, 100)),
    sticky=st.sampled_from(["", "key", "label:session"]),
    explore=st.sampled_from([0.0, 0.05, 0.5]),
)
fallbacks = st.sampled_from(["", "local", "a", "a#2"]).map(lambda name: Fallback(provider=name))
policies = st.builds(Policy, name=st.just("p"), keep=keeps, rank=ranks, fallback=fallbacks)
demands = st.builds(
    Demand,
    version=st.just(VERSION),
    is_pinned=mostly(False, st.just(True)),
    key=st.sampled_from(["app", "batch"]),
    labels=st.sampled_from([{}, {"session": "one"}, {"session": "two"}]),
    deadline_seconds=mostly(9_000.0, st.floats(-5, 9_000)),
    attempts=st.integers(0, 2),
)


def kept_offers(plan: Plan) -> set[str]:
    return {choice.offer for choice in plan.kept}


@QUICK
@given(policies, candidates(), demands, numbers)
def test_the_same_inputs_make_the_same_plan(
    policy: Policy, offers: list[Candidate], demand: Demand, drawn: list[float]
) -> None:
    one, other = (evaluate(policy, offers, demand, draw=draws(*drawn)) for _ in range(2))
    assert one == other


@QUICK
@given(policies, candidates(), demands, numbers, st.data())
def test_every_candidate_is_in_the_plan_once_with_a_reason_kept_before_dropped(
    policy: Policy, offers: list[Candidate], demand: Demand, drawn: list[float], data: st.DataObject
) -> None:
    ids = [candidate.offer.id for candidate in offers]
    excluded = frozenset(data.draw(st.lists(st.sampled_from(ids))) if ids else ())
    plan = evaluate(policy, offers, demand, excluded=excluded, draw=draws(*drawn))
    assert sorted(choice.offer for choice in plan.choices) == sorted(ids)
    assert all(choice.reasons and all(reason.text for reason in choice.reasons) for choice in plan.choices)
    standing = [(not choice.kept, choice.kept and choice.is_fallback) for choice in plan.choices]
    assert standing == sorted(standing), "kept, then fallbacks, then dropped"
    assert excluded.isdisjoint(kept_offers(plan))


# -- cost -------------------------------------------------------------------------------------------------------------

CHEAPEST = Policy(name="cheapest", rank=Rank(by="cost", explore=0), fallback=Fallback(provider=""))


def priced(nanos: Sequence[int | None]) -> list[Candidate]:
    return [
        Candidate(
            offer=Offer(id=f"acme/up@p{i}", model="acme/up", provider=f"p{i}", name="up", version=VERSION),
            signals=Signals(samples=50, total_p50=float(i + 1), success=1 - i / 100),
            expected_nanos=price,
            expected_seconds=None,
        )
        for i, price in enumerate(nanos)
    ]


def first(offers: Sequence[Candidate], draw: Callable[[], float]) -> Candidate:
    plan = evaluate(CHEAPEST, offers, Demand(version=VERSION, deadline_seconds=600), draw=draw)
    return next(offer for offer in offers if offer.offer.id == plan.kept[0].offer)


@given(st.lists(st.integers(0, 10 * NANOS), min_size=1, max_size=6), st.integers(1, 10 * NANOS), numbers)
def test_a_dearer_candidate_never_changes_the_cheapest(nanos: list[int], more: int, drawn: list[float]) -> None:
    offers = priced(nanos)
    before = first(offers, draws(*drawn))
    cheapest = min(nanos)
    dearer = priced([*nanos, int(cheapest * (1 + NEAR)) + more])
    for order in (dearer, [dearer[-1], *dearer[:-1]]):
        assert first(order, draws(*drawn)).offer == before.offer


@given(st.lists(prices, min_size=1, max_size=6), st.integers(0, 12), numbers, st.sampled_from(["cost", "blend"]))
def test_scaling_all_prices_changes_no_order(
    nanos: list[int | None], power: int, drawn: list[float], measure: str
) -> None:
    # By powers of two, of which floating point is exact: no near-equals are parted by a last digit.
    policy = replace(CHEAPEST, rank=replace(CHEAPEST.rank, by=measure))
    scaled = [None if price is None else price * 2**power for price in nanos]
    plans = [
        evaluate(policy, priced(each), Demand(version=VERSION, deadline_seconds=600), draw=draws(*drawn))
        for each in (nanos, scaled)
    ]
    assert [choice.offer for choice in plans[0].choices] == [choice.offer for choice in plans[1].choices]


@given(st.lists(st.integers(0, NANOS), min_size=1, max_size=6), st.integers(1, 1_000), numbers)
def test_another_currency_changes_no_order_by_cost(nanos: list[int], factor: int, drawn: list[float]) -> None:
    # Nothing so close to the edge of near that the last digit of the scaled price decides.
    assume(all(abs(a - b * (1 + NEAR)) > 1e-6 * b for a, b in itertools.permutations(nanos, 2)))
    plans = [
        evaluate(CHEAPEST, priced(each), Demand(version=VERSION, deadline_seconds=600), draw=draws(*drawn))
        for each in (nanos, [price * factor for price in nanos])
    ]
    assert [choice.offer for choice in plans[0].choices] == [choice.offer for choice in plans[1].choices]


# -- tighter ----------------------------------------------------------------------------------------------------------


def closer(data: st.DataObject, part: str, keep: Keep, fallback: Fallback) -> Keep:
    """`keep` with this part made tighter, or left as tight as it is."""

    def fewer(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(data.draw(st.lists(st.sampled_from(words), min_size=1, unique=True)))

    def more(words: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*words, *data.draw(some(known)))))

    match part:
        case "providers" if not keep.providers and not fallback.provider:
            # Whoever has no fallback and then names its provider lets it in: he wants it, and not less of all.
            changed: tuple[str, ...] | str | float = ()
        case "providers":
            changed = fewer(keep.providers or PROVIDERS)
        case "without":
            changed = more(keep.without, PROVIDERS)
        case "regions":
            changed = fewer(keep.regions or REGIONS)
        case "capabilities":
            changed = more(keep.capabilities, CAN)
        case "max_price":
            prices = ["0", "0.5", "5", ""]
            changed = data.draw(st.sampled_from(prices[: prices.index(keep.max_price) + 1]))
        case "min_success":
            changed = data.draw(st.floats(keep.min_success, 1))
        case _:
            changed = TIGHT[part]
    return replace(keep, **{part: changed})


TIGHT = {"quality": "full", "version": "declared", "unknown_price": "drop"}
LOOSE = Keep(quality="reduced", version="equivalent", unknown_price="keep", max_price="5")


@pytest.mark.parametrize("part", Keep.__struct_fields__)
@settings(QUICK, max_examples=50)
@given(policy=policies, offers=candidates(min_size=1), demand=demands, drawn=numbers, data=st.data())
def test_tightening_a_constraint_never_adds_a_candidate(
    part: str, policy: Policy, offers: list[Candidate], demand: Demand, drawn: list[float], data: st.DataObject
) -> None:
    loose = replace(policy.keep, **{part: getattr(LOOSE, part)}) if part in TIGHT else policy.keep
    policy = replace(policy, keep=loose)
    tight = replace(policy, keep=closer(data, part, loose, policy.fallback))
    before = evaluate(policy, offers, demand, draw=draws(*drawn))
    assert kept_offers(evaluate(tight, offers, demand, draw=draws(*drawn))) <= kept_offers(before)


@QUICK
@given(policies, candidates(min_size=1), demands, numbers, st.floats(0, 9_000))
def test_less_time_never_adds_a_candidate(
    policy: Policy, offers: list[Candidate], demand: Demand, drawn: list[float], less: float
) -> None:
    hurried = replace(demand, deadline_seconds=demand.deadline_seconds - less)
    before = evaluate(policy, offers, demand, draw=draws(*drawn))
    assert kept_offers(evaluate(policy, offers, hurried, draw=draws(*drawn))) <= kept_offers(before)
