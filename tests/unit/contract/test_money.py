"""A price with tiers: the first that fits the input holds alone; what is not told is unknown, never the cheapest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.condition import read_condition
from gateway.contract.money import (
    UNKNOWN_PRICE,
    Cost,
    CostBasis,
    Price,
    Tier,
    Units,
    basis_of,
    read_when,
)

LOUD = Tier(when=read_when({"resolution": "1080p", "audio": True}), price=Price(per_video_second=300))
SHARP = Tier(when=read_when({"resolution": "1080p"}), price=Price(per_video_second=200, per_prediction=7))
VIDEO = Price(per_video_second=100, tiers=(LOUD, SHARP))


def at(price: Price, **facts: Any) -> Price:
    return price.at(facts.get)


@pytest.mark.parametrize(
    ("facts", "price"),
    [
        ({"resolution": "1080p", "audio": True}, LOUD.price),
        ({"resolution": "1080p", "audio": False}, SHARP.price),
        ({"resolution": "720p", "audio": True}, Price(per_video_second=100)),
        ({"resolution": "720p"}, Price(per_video_second=100)),
        ({"resolution": "1080p"}, UNKNOWN_PRICE),
        ({"audio": True}, UNKNOWN_PRICE),
        ({"audio": False}, UNKNOWN_PRICE),
        ({}, UNKNOWN_PRICE),
    ],
)
def test_the_first_tier_that_fits_holds_alone(facts: dict[str, Any], price: Price) -> None:
    assert at(VIDEO, **facts) == price


def test_where_none_fits_and_there_is_no_price_beside_them_it_is_unknown() -> None:
    assert at(Price(tiers=(SHARP,)), resolution="480p") == UNKNOWN_PRICE
    assert Price(tiers=(SHARP,)).is_known, "for some inputs"
    assert not UNKNOWN_PRICE.is_known


def test_a_price_whose_tier_nobody_chose_is_unknown_and_never_its_plain_part() -> None:
    assert VIDEO.of(Units(video_seconds=5)) is None
    assert at(VIDEO, resolution="720p").of(Units(video_seconds=5)) == 500


def test_it_knows_all_the_units_that_it_may_be_reckoned_by() -> None:
    assert VIDEO.units == {"video_seconds", "predictions"}
    assert Price(per_second=1).units == {"seconds"}


_facts = st.fixed_dictionaries(
    {},
    optional={
        "resolution": st.sampled_from(["480p", "720p", "1080p", "odd", None, 5]),
        "audio": st.sampled_from([True, False, "true", None, "x"]),
    },
)


@given(_facts, st.sampled_from(["resolution", "audio"]))
def test_saying_less_never_makes_it_another_price_but_unknown(facts: dict[str, Any], silent: str) -> None:
    whole, less = at(VIDEO, **facts), at(VIDEO, **{name: facts[name] for name in facts if name != silent})
    assert less in (whole, UNKNOWN_PRICE)


@pytest.mark.parametrize(
    "when",
    [
        {"audio": "yes"},
        {"audio": {"at_least": 1}},
        {"resolution": 1080},
        {"resolution": {"at_least": 1080}},
        {"image_megapixels": "large"},
        {"video_seconds": True},
        {"input_tokens": ["many"]},
    ],
)
def test_a_condition_that_could_never_be_told_is_refused(when: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r" is (text|a number|true or false); write"):
        read_when(when)


def test_a_sum_is_reported_only_if_all_of_it_is() -> None:
    reported, computed = Cost(nanos=1, basis=CostBasis.REPORTED), Cost(nanos=1, basis=CostBasis.COMPUTED)
    unknown = Cost(nanos=None, basis=CostBasis.UNKNOWN)
    assert basis_of([reported, reported]) is CostBasis.REPORTED
    assert basis_of([reported, computed]) is CostBasis.COMPUTED
    assert basis_of([reported, unknown]) is CostBasis.UNKNOWN
    assert basis_of([]) is CostBasis.COMPUTED


def test_conditions_are_read_once_and_compared_by_what_they_say() -> None:
    assert read_when({"audio": True}) == (("audio", read_condition(True)),)
    assert hash(VIDEO) == hash(Price(per_video_second=100, tiers=(LOUD, SHARP)))
