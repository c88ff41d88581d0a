"""Tiers on their way through: configured, chosen for the plan, and chosen alike for the bill."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import OfferSection, PriceTier
from gateway.contract.errors import ConfigurationError
from gateway.contract.fact import Fact, Phase
from gateway.contract.money import Cost, CostBasis
from gateway.engine.cost import settle
from gateway.routing.unit import fact_of
from tests.unit.routing.making import World, catalog, section

TIERS = (
    PriceTier(when={"resolution": "1080p", "audio": True}, price={"per_video_second": "0.30"}),
    PriceTier(when={"image_megapixels": {"at_least": 1.5}}, price={"per_second": "0.01"}),
)


def world(**price: str) -> World:
    offer = OfferSection(provider="a", name="film", price=price, price_tiers=TIERS)
    return World(catalog(section(offer)), draw=lambda: 0.5)


def expected(made: World, **input: Any) -> int | None:
    prediction = made.prediction(input=input)
    plan = made.planner.plan(prediction, excluded=frozenset(), now=made.clock.now())
    return plan.choices[0].expected_nanos


def settled(made: World, phase: Phase = Phase.SUCCEEDED, **input: Any) -> Cost:
    (offer,) = made.catalog.offers("acme/up")
    return settle(offer.price, Fact(phase=phase), input=input, run_seconds=2.0)


INPUTS: list[tuple[dict[str, Any], int | None]] = [
    ({"resolution": "1080p", "generate_audio": True, "size": "1x1", "duration": 5}, 1_500_000_000),
    ({"resolution": "1080p", "generate_audio": False, "size": "640x480", "duration": 5}, 500_000_000),
    ({"size": "1280*720", "duration": "5s"}, 500_000_000),
    ({"duration": 5}, None),
    ({"resolution": "1080p", "size": "640x480", "duration": 5}, None),
    ({"resolution": "720p", "duration": 5}, None),
]


@pytest.mark.parametrize(("input", "nanos"), INPUTS)
def test_the_bill_is_reckoned_by_the_tier_that_the_estimate_was(input: dict[str, Any], nanos: int | None) -> None:
    made = world(per_video_second="0.10")
    assert expected(made, **input) == nanos
    basis = CostBasis.UNKNOWN if nanos is None else CostBasis.COMPUTED
    assert settled(made, **input) == Cost(nanos=nanos, basis=basis)


def test_a_tier_by_the_second_of_run_waits_for_a_measure_and_is_charged_for_failures_too() -> None:
    made = world(per_video_second="0.10")
    large = {"resolution": "4k", "width": 2000, "height": 1000, "duration": 5}
    assert expected(made, **large) is None, "nobody has measured how long it runs"
    made.serve("acme/up@a", 3.0)
    assert expected(made, **large) == 30_000_000
    assert settled(made, **large).nanos == 20_000_000
    assert settled(made, Phase.FAILED, **large).nanos == 20_000_000
    small = {"resolution": "720p", "width": 100, "height": 100, "duration": 5}
    assert settled(made, Phase.FAILED, **small).nanos == 0, "a missing film costs nothing"
    assert settled(made, Phase.FAILED, duration=5) == Cost(nanos=None, basis=CostBasis.UNKNOWN)


def test_what_a_provider_reports_goes_before_every_tier() -> None:
    (offer,) = world().catalog.offers("acme/up")
    told = Cost(nanos=7, basis=CostBasis.REPORTED)
    assert settle(offer.price, Fact(phase=Phase.SUCCEEDED, cost=told), input={}, run_seconds=1) == told


@pytest.mark.parametrize(
    ("input", "fact", "value"),
    [
        ({"resolution": "720p", "size": "1920x1080"}, "resolution", "720p"),
        ({"size": "1080*1920"}, "resolution", "1080p"),
        ({"width": 832, "height": 480}, "resolution", "480p"),
        ({"size": "auto"}, "resolution", None),
        ({"audio": "https://files.example/a.mp3", "generate_audio": False}, "audio", False),
        ({"audio": "https://files.example/a.mp3"}, "audio", None),
        ({"sound": True}, "audio", True),
        ({"size": "2000x1000", "num_outputs": 4}, "image_megapixels", 2.0),
        ({"size": "2000x1000", "num_outputs": 4}, "megapixels", 8.0),
        ({"prompt": "x" * 400}, "input_tokens", 100.0),
        ({"num_frames": 96, "fps": 24}, "video_seconds", 4.0),
        ({"quality": "hd"}, "quality", "hd"),
        ({}, "quality", None),
    ],
)
def test_a_fact_is_found_whatever_the_model_calls_it(input: dict[str, Any], fact: str, value: Any) -> None:
    assert fact_of(input, fact) == value


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        (PriceTier(when={"audio": 3}, price={"per_image": "1"}), r"tier 1: audio is true or false; write one of them"),
        (PriceTier(when={"n": {"over": 3}}, price={"per_image": "1"}), r"tier 1: over = 3 is no bound; write a number"),
        (PriceTier(when={"n": 3}, price={"per_imge": "1"}), r'tier 1: "per_imge" is no unit of a price; did you mean'),
    ],
)
def test_a_tier_that_means_nothing_is_refused(tier: PriceTier, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        catalog(section(OfferSection(provider="a", name="up", price_tiers=(tier,))))
