"""Units: expected from all the ways in which inputs say how much, measured from all the ways in which providers do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.contract.money import PRICED_UNITS, Price, Units
from gateway.routing.unit import estimated_units, measured_units


@pytest.mark.parametrize(
    ("input", "unit", "expected"),
    [
        ({}, "predictions", 1),
        ({}, "images", 1),
        ({"num_outputs": 4}, "images", 4),
        ({"n": "3"}, "images", 3),
        ({"num_outputs": True}, "images", None),
        ({"num_outputs": -1}, "images", None),
        ({"width": 1024, "height": 512}, "megapixels", 0.524288),
        ({"width": 1000, "height": 1000, "num_outputs": 2}, "megapixels", 2.0),
        ({"size": "1024x1024"}, "megapixels", 1.048576),
        ({"size": "auto"}, "megapixels", None),
        ({"megapixels": "0.25"}, "megapixels", 0.25),
        ({"duration": "5s"}, "video_seconds", 5),
        ({"duration": 8}, "audio_seconds", 8),
        ({"num_frames": 96, "fps": 24}, "video_seconds", 4),
        ({"num_frames": 96, "fps": 0}, "video_seconds", None),
        ({}, "video_seconds", None),
        ({"text": "hällo"}, "characters", 5),
        ({"prompt": "ab", "system_prompt": "cde"}, "characters", 5),
        ({"input": ["abc", "de"]}, "characters", 5),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}]}]}, "characters", 4),
        ({"image": "https://x/y.png"}, "characters", None),
        ({"input": "data:image/png;base64,AAAA"}, "characters", None),
        ({"prompt": "a" * 9}, "input_tokens", 3),
        ({"prompt": ""}, "input_tokens", 0),
        ({"max_tokens": 256}, "output_tokens", 256),
        ({"prompt": "x"}, "output_tokens", None),
        ({"num_inference_steps": 28}, "steps", 28),
    ],
)
def test_expected_from_the_input(input: dict[str, Any], unit: str, expected: float | None) -> None:
    assert getattr(estimated_units(input), unit) == expected


def test_run_time_is_expected_from_what_was_measured() -> None:
    assert estimated_units({}, run_seconds=3.5).seconds == 3.5
    assert estimated_units({}).seconds is None


@pytest.mark.parametrize(
    ("metrics", "unit", "expected"),
    [
        ({"predict_time": 2.5}, "seconds", 2.5),
        ({}, "seconds", 9.0),
        ({"predict_time": "soon"}, "seconds", 9.0),
        ({"image_count": 2}, "images", 2),
        ({"image_output_megapixel_count": 1.05}, "megapixels", 1.05),
        ({"input_token_count": 10}, "input_tokens", 10),
        ({"output_token_count": 20}, "output_tokens", 20),
        ({}, "images", None),
        ({"image_count": float("nan")}, "images", None),
        ({"image_count": 10**400}, "images", None),
    ],
)
def test_measured_by_the_providers_own_metrics(metrics: dict[str, Any], unit: str, expected: float | None) -> None:
    assert getattr(measured_units(metrics, 9.0), unit) == expected


def test_what_the_request_fixed_fills_what_is_not_reported_and_nothing_is_guessed() -> None:
    input = {"num_outputs": 4, "width": 1000, "height": 1000, "prompt": "abcd", "max_tokens": 99}
    units = measured_units({}, None, input=input)
    assert (units.images, units.megapixels, units.characters) == (4, 4.0, 4)
    assert (units.input_tokens, units.output_tokens, units.seconds) == (None, None, None)


def test_fewer_images_than_asked_for_have_fewer_pixels() -> None:
    input = {"num_outputs": 4, "width": 1000, "height": 1000}
    assert measured_units({"image_count": 1}, None, input=input).megapixels == 1.0


def test_an_unknown_unit_leaves_the_price_unknown_and_never_nought() -> None:
    price = Price(per_output_token=1_000, per_prediction=5)
    assert price.of(estimated_units({"prompt": "x"})) is None
    assert price.of(estimated_units({"prompt": "x", "max_tokens": 2})) == 2_005


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_names = st.sampled_from(
    [
        *(
            "num_outputs",
            "width",
            "height",
            "size",
            "duration",
            "num_frames",
            "fps",
            "prompt",
            "messages",
            "max_tokens",
        ),
        *("predict_time", "image_count", "input_token_count", "megapixels", "steps"),
    ]
)


@given(st.dictionaries(_names, _json), st.one_of(st.none(), st.floats(0, 1e6)))
def test_no_input_and_no_metrics_break_it_or_make_it_negative(given_: dict[str, Any], seconds: float | None) -> None:
    found = [estimated_units(given_, run_seconds=seconds), measured_units(given_, seconds, input=given_)]
    for units in found:
        for amount in (getattr(units, unit) for unit in Units.__struct_fields__):
            assert amount is None or 0 <= amount <= 1e18
        price = Price(**dict.fromkeys(PRICED_UNITS, 10**12))
        nanos = price.of(
            replace(units, **{unit: 1e9 for unit in PRICED_UNITS.values() if getattr(units, unit) is None})
        )
        assert nanos is None or 0 <= nanos < 2**63


def test_deep_messages_are_not_followed_for_ever() -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    assert estimated_units({"messages": deep}).characters is None
