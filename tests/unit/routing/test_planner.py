"""The planner: which policy, which candidates, at what expected cost, and what it makes of the state of things."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.config.model import OfferSection
from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Blame, NotFound
from gateway.contract.money import Units
from gateway.contract.route import NO_SIGNALS
from policies.document import Bound, Fallback, Hours, Inputs, Keep, Match, Policy, Rank
from policies.reading import presets
from tests.unit.routing.making import PACKAGE_VERSION, World, catalog, local_model, section

V1, V2 = "1" * 64, "2" * 64


def priced(provider: str, price: str, **more: Any) -> OfferSection:
    unit = more.pop("unit", "per_prediction")
    return OfferSection(provider=provider, name="up", price={unit: price}, **more)


def never() -> float:
    raise AssertionError("nothing is to be drawn here")


@pytest.fixture
def world() -> World:
    made = catalog(section(priced("b", "0.03"), priced("a", "0.01"), priced("c", "0.02")), local=[local_model()])
    return World(made, draw=never)


def test_the_plan_is_the_policys_over_the_offers_of_the_model(world: World) -> None:
    assert world.providers() == ["a", "c", "b", "local"]


def test_what_failed_already_is_left_out(world: World) -> None:
    assert world.providers(excluded=frozenset({"acme/up@a"})) == ["c", "b", "local"]


def test_a_pinned_version_is_only_served_by_offers_declared_for_it() -> None:
    made = catalog(
        section(priced("a", "0.01", version=V1), priced("b", "0.02", version=V2), priced("c", "0.03"), version=V2),
        local=[local_model()],
    )
    world = World(made, draw=never)
    assert world.providers(world.prediction(version=V1)) == ["a"]
    assert world.providers(world.prediction(version=V2)) == ["b", "c"]
    assert world.providers(world.prediction()) == ["b", "c"]  # the default
    assert world.providers(world.prediction(version=PACKAGE_VERSION)) == ["local"]


def test_a_model_that_was_taken_away_has_an_empty_plan(world: World) -> None:
    assert world.providers(world.prediction(model="acme/gone")) == []


# -- which policy ---------------------------------------------------------------------------------------------------


def named(world: World, **request: Any) -> str:
    prediction = world.prediction(**request)
    return world.planner.policy(prediction.request, owner=prediction.owner, now=prediction.created_at).name


def test_the_policy_asked_for_goes_before_the_models_before_one_that_matches_before_the_default() -> None:
    made = catalog(section("a", policy="fastest"), section("a", name="acme/down"))
    world = World(made, draw=never)
    world.policies = (
        *presets(),
        Policy(name="batch", match=Match(keys=("batch",))),
        Policy(name="second", match=Match(keys=("batch",))),
        Policy(name="tier", match=Match(labels={"tier": "free"}, models=("acme/*",))),
    )
    assert named(world, policy="steadiest", owner="batch") == "steadiest"
    assert named(world, owner="batch") == "fastest"
    assert named(world, model="acme/down", owner="batch") == "batch"
    assert named(world, model="acme/down", labels={"tier": "free"}) == "tier"
    assert named(world, model="acme/down") == "cheapest"


def test_a_preset_matches_nothing_by_itself() -> None:
    world = World(catalog(section("a")), draw=never, default="steadiest")
    assert named(world) == "steadiest"


def test_a_policy_that_was_taken_away_is_passed_over(world: World) -> None:
    assert named(world, policy="long-gone") == "cheapest"
    bare = World(catalog(section("a")), draw=never, default="long-gone")
    assert named(bare) == "balanced"


def test_a_swapped_policy_holds_from_the_next_plan_on(world: World) -> None:
    assert world.providers()[0] == "a"
    world.policies = (Policy(name="mine", rank=Rank(by="ordered", order=("b", "c", "a"))),)
    assert world.providers() == ["b", "c", "a", "local"]


# -- what is expected -----------------------------------------------------------------------------------------------


def expected(world: World, **request: Any) -> dict[str, int | None]:
    plan = world.planner.plan(world.prediction(**request), excluded=frozenset(), now=world.clock.now())
    return {choice.offer: choice.expected_nanos for choice in plan.choices}


def test_cost_is_expected_by_the_units_of_this_very_input() -> None:
    made = catalog(section(priced("a", "0.01", unit="per_image"), priced("b", "0.02")))
    world = World(made, draw=lambda: 0.5)
    assert expected(world, input={"num_outputs": 4}) == {"acme/up@b": 20_000_000, "acme/up@a": 40_000_000}
    assert world.providers(world.prediction(input={"num_outputs": 1})) == ["a", "b"]
    assert world.providers(world.prediction(input={"num_outputs": 4})) == ["b", "a"]


def test_a_price_by_the_second_is_unknown_until_run_times_are_known() -> None:
    world = World(catalog(section(priced("a", "0.001", unit="per_second"))), draw=lambda: 0.9)
    assert expected(world) == {"acme/up@a": None}
    world.serve("acme/up@a", 4.0)
    assert expected(world) == {"acme/up@a": 4_000_000}


def test_an_absurd_input_makes_the_cost_unknown_and_no_error() -> None:
    world = World(catalog(section(priced("a", "1000000", unit="per_image"))), draw=never)
    assert expected(world, input={"num_outputs": 1e9}) == {"acme/up@a": None}
    assert expected(world, input={"num_outputs": 10**400}) == {"acme/up@a": None}


# -- the state of things ----------------------------------------------------------------------------------------------


def test_an_open_breaker_is_passed_by_and_its_probe_comes_first_again(world: World) -> None:
    world = World(world.catalog, draw=lambda: 0.9)
    for _ in range(5):
        ticket = world.breakers.admit("acme/up@a")
        assert ticket is not None
        ticket.failure(Blame.PROVIDER)
    assert world.providers() == ["c", "b", "local"]
    world.clock.advance(15)
    assert world.providers()[0] == "a"
    probe = world.breakers.admit("acme/up@a")
    assert world.providers() == ["c", "b", "local"]
    assert probe is not None
    probe.success()
    assert world.providers()[0] == "a"


def test_what_a_plan_keeps_first_is_admitted_in_the_same_moment(world: World) -> None:
    for offer in ("acme/up@a", "acme/up@b", "acme/up@c"):
        for _ in range(5):
            ticket = world.breakers.admit(offer)
            assert ticket is not None
            ticket.failure(Blame.PROVIDER)
    for _ in range(40):
        world.clock.advance(1)
        plan = world.planner.plan(world.prediction(), excluded=frozenset(), now=world.clock.now())
        for choice in plan.choices:
            ticket = world.breakers.admit(choice.offer)
            assert (ticket is not None) is choice.kept
            if ticket is not None:
                ticket.neutral()


def test_a_rate_limited_offer_is_passed_by_until_it_is_over(world: World) -> None:
    world.serve("acme/up@a", blame=Blame.THROTTLE, retry_after_seconds=3.0)
    assert world.providers() == ["c", "b", "local"]
    world.clock.advance(3)
    assert world.providers()[0] == "a"


def test_a_full_provider_is_passed_by_over_all_its_offers() -> None:
    made = catalog(section(priced("a", "0.01"), priced("b", "0.02")), section(priced("a", "1"), name="acme/down"))
    world = World(made, draw=never, limits={"a": 2, "b": 0})
    world.board.attempt_begun("acme/down@a")
    assert world.providers() == ["a", "b"]
    flight = world.board.attempt_begun("acme/down@a")
    assert world.providers() == ["b"]
    world.board.attempt_ended(flight, total_seconds=1.0, blame=None)
    assert world.providers() == ["a", "b"]


def test_plans_made_at_once_do_not_fill_a_provider_beyond_its_limit() -> None:
    made = catalog(section(priced("a", "0.01"), priced("b", "0.02")), section(priced("a", "1"), name="acme/down"))
    world = World(made, draw=never, limits={"a": 3})
    rush = [world.providers()[0] for _ in range(100)]  # none of them has begun yet
    assert rush == ["a"] * 3 + ["b"] * 97
    for _ in range(3):
        world.board.attempt_begun("acme/up@a")
    assert world.providers() == ["b"]


def test_an_offer_with_a_limit_of_its_own_is_passed_by_when_full() -> None:
    made = catalog(section(priced("a", "0.01", concurrency=1), priced("b", "0.02")))
    world = World(made, draw=never)
    world.board.attempt_begun("acme/up@a")
    assert world.providers() == ["b"]


def test_a_provider_that_is_not_ready_is_passed_by(world: World) -> None:
    ready = {"a": False}
    other = World(world.catalog, draw=never, ready=lambda provider: ready.get(provider, True))
    assert other.providers() == ["c", "b", "local"]
    ready["a"] = True
    assert other.providers()[0] == "a"


def test_what_would_not_end_in_time_is_not_begun(world: World) -> None:
    for _ in range(5):
        world.serve("acme/up@a", 30.0)
    assert world.providers(world.prediction(seconds=29)) == ["c", "b", "local"]
    assert world.providers(world.prediction(seconds=31))[0] == "a"


def test_patience_with_a_starting_provider_begins_anew_with_each_ended_attempt() -> None:
    world = World(catalog(section("local"), local=[local_model()]), draw=never, ready=lambda provider: False)
    prediction = world.prediction()

    def wait() -> float | None:
        return world.planner.plan(prediction, excluded=frozenset(), now=world.clock.now()).wait_seconds

    assert wait() is not None
    world.clock.advance(31)
    assert wait() is None
    ended = Attempt(
        number=1,
        offer="acme/up@x",
        provider="x",
        remote="up",
        version=V1,
        token_hash="0" * 64,
        begun_at=world.clock.now(),
        deadline_at=world.clock.now() + timedelta(seconds=60),
        status=AttemptStatus.FAILED,
        ended_at=world.clock.now(),
    )
    prediction = replace(prediction, attempts=(ended,))
    assert wait() is not None


def test_everything_down_means_waiting_for_the_first_that_comes_back() -> None:
    world = World(catalog(section("a", "b")), draw=lambda: 0.5)
    world.serve("acme/up@a", blame=Blame.THROTTLE, retry_after_seconds=9.0)
    world.serve("acme/up@b", blame=Blame.THROTTLE, retry_after_seconds=4.0)

    def wait(seconds: float) -> float | None:
        prediction = world.prediction(seconds=seconds)
        return world.planner.plan(prediction, excluded=frozenset(), now=world.clock.now()).wait_seconds

    assert wait(60) == 4.0
    assert wait(3) is None


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_says_what_a_prediction_would_get_and_counts_nothing(world: World) -> None:
    for _ in range(10):
        plan = world.planner.explain("acme/up", input={}, now=world.clock.now())
    assert all(choice.reasons for choice in plan.choices)
    assert all(world.board.snapshot(choice.offer) == NO_SIGNALS for choice in plan.choices)
    assert [choice.provider for choice in plan.kept] == world.providers()
    assert world.board.snapshot("acme/up@a").in_flight == 1  # a plan that is meant is counted


def test_explain_takes_a_policy_and_a_version_by_name(world: World) -> None:
    world.policies = (
        *presets(),
        Policy(name="only-b", keep=Keep(providers=("b",)), fallback=Fallback(provider="")),
    )
    plan = world.planner.explain("acme/up", version=PACKAGE_VERSION, input={}, policy="only-b", now=world.clock.now())
    assert (plan.policy, [choice.provider for choice in plan.kept]) == ("only-b", ["b"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "acme/upp"}, r'unknown model "acme/upp"; did you mean "acme/up"\?'),
        ({"policy": "cheepest"}, r'unknown policy "cheepest"; did you mean "cheapest"\?'),
        ({"version": "zz"}, r'unknown version "zz"; there are: ffff'),
    ],
)
def test_explain_names_the_nearest_word(world: World, asked: dict[str, str], said: str) -> None:
    with pytest.raises(NotFound, match=said):
        world.planner.explain(**{"model": "acme/up", "input": {}, "now": world.clock.now(), **asked})  # type: ignore[arg-type]


# -- what a policy asks of the prediction --------------------------------------------------------------------------


def test_a_policy_is_matched_by_input_and_by_the_hour_at_which_the_prediction_was_made(world: World) -> None:
    in_hour = Match(hours=(Hours(since="13:00", until="14:00"),))
    world.policies = (
        *presets(),
        Policy(name="large", match=Match(inputs=Inputs(images=Bound(at_least=4)))),
        Policy(name="early", match=in_hour),
    )
    assert named(world, input={"num_outputs": 4}) == "large"
    assert named(world, input={"num_outputs": 3}) == "cheapest"
    early = world.prediction()
    early = replace(early, created_at=early.created_at.replace(hour=13))
    evening = early.created_at.replace(hour=20)
    assert world.planner.plan(early, excluded=frozenset(), now=evening).policy == "early", "as when it was made"
    late = replace(early, created_at=evening)
    assert world.planner.plan(late, excluded=frozenset(), now=early.created_at).policy == "cheapest"


def test_what_an_input_asks_for_is_read_once_when_it_is_made_and_outlives_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = Match(inputs=Inputs(images=Bound(at_least=4)))
    world.policies = (*presets(), *(Policy(name=name, match=bound) for name in ("one", "two", "three")))
    erased = world.prediction(input={}, facts=Units(images=4))

    def look(input: dict[str, Any], **more: Any) -> Units:
        raise AssertionError("it is known already")

    monkeypatch.setattr("gateway.routing.unit.estimated_units", look)
    assert world.planner.policy(erased.request, owner="", now=erased.created_at).name == "one"
    assert world.providers(erased)


def test_an_equivalent_version_serves_who_pins_none(world: World) -> None:
    twins = section(
        OfferSection(provider="a", name="up", version=V1, equivalent="fast"),
        OfferSection(provider="b", name="up", version=V2, equivalent="fast", quality="reduced"),
        OfferSection(provider="c", name="up", version=V2, equivalent="slow"),
        version=V1,
    )
    world = World(catalog(twins), draw=lambda: 0.5, default="twins")
    world.policies = (*presets(), Policy(name="twins", keep=Keep(version="equivalent"), rank=Rank(by="cost")))
    assert sorted(world.providers()) == ["a", "b"]
    assert world.providers(world.prediction(version=V1)) == ["a"], "pinned"
    assert sorted(world.providers(world.prediction(version=V2))) == ["b", "c"]
    plan = world.planner.plan(world.prediction(), excluded=frozenset(), now=world.clock.now())
    assert {choice.offer: choice.quality for choice in plan.choices}["acme/up@b"] == "reduced"
    pinned = world.planner.explain("acme/up", version=V1, input={}, now=world.clock.now())
    assert [choice.provider for choice in pinned.kept] == ["a"]


def test_what_a_policy_holds_on_to_is_the_key_and_the_labels_of_the_prediction(world: World) -> None:
    made = catalog(section("a", "b", "c"))
    for sticky, who in (("key", {"owner": "app"}), ("label:session", {"labels": {"session": "s"}})):
        rank = Rank(by="weighted", shares={"a": 1, "b": 1, "c": 1}, sticky=sticky)
        world = World(made, draw=never, default="held")
        world.policies = (*presets(), Policy(name="held", rank=rank))
        plans = [world.providers(world.prediction(**who)) for _ in range(3)]  # type: ignore[arg-type]
        explained = world.planner.explain(
            "acme/up", input={}, key=who.get("owner", ""), labels=who.get("labels"), now=world.clock.now()
        )
        assert len({tuple(plan) for plan in plans}) == 1
        assert [choice.provider for choice in explained.kept] == plans[0]
