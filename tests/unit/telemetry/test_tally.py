"""The cheap counters and histograms, held against the SDK's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from gateway.telemetry.instrument import Attribute, Instrument, Kind
from gateway.telemetry.tally import MOST_SERIES, Distribution, Tally

BOUNDS = (0.1, 1, 10)
NAME = Attribute(name="name", about="Any.")
COLOUR = Attribute(name="colour", about="Closed.", values=("red", "green"))


def counter(*attributes: Attribute) -> Instrument:
    return Instrument(name="a.count", kind=Kind.COUNTER, unit="1", about="Counts.", attributes=attributes)


def histogram(*attributes: Attribute) -> Instrument:
    return Instrument(
        name="a.time", kind=Kind.HISTOGRAM, unit="s", about="Times.", attributes=attributes, bounds=BOUNDS
    )


@given(values=st.lists(st.one_of(st.floats(0, 100), st.sampled_from(BOUNDS)), min_size=1, max_size=50))
def test_a_distribution_is_what_the_sdks_histogram_would_have_said(values: list[float]) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    theirs = provider.get_meter("x").create_histogram(
        "a.time", unit="s", description="Times.", explicit_bucket_boundaries_advisory=BOUNDS
    )
    ours = Distribution(histogram(NAME))
    for value in values:
        theirs.record(value, {"name": "x"})
        ours.record(value, "x")
    data: Any = reader.get_metrics_data()
    expected = data.resource_metrics[0].scope_metrics[0].metrics[0]
    found: Any = ours.metric(1)
    assert (found.name, found.unit, found.description) == (expected.name, expected.unit, expected.description)
    assert found.data.aggregation_temporality is expected.data.aggregation_temporality
    one, other = found.data.data_points[0], expected.data.data_points[0]
    for field in ("attributes", "count", "min", "max"):
        assert getattr(one, field) == getattr(other, field), field
    assert list(one.bucket_counts) == list(other.bucket_counts)
    assert list(one.explicit_bounds) == list(other.explicit_bounds)
    assert one.sum == pytest.approx(other.sum)
    provider.shutdown()


def test_a_distribution_without_a_value_is_not_there() -> None:
    assert Distribution(histogram()).metric(1) is None


def test_a_negative_value_counts_as_nothing() -> None:
    ours = Distribution(histogram())
    ours.record(-5.0)
    point: Any = ours.metric(1).data.data_points[0]  # type: ignore[union-attr]
    assert (point.sum, point.min, point.count, point.bucket_counts) == (0, 0, 1, [1, 0, 0, 0])


def test_a_tally_stops_growing_and_loses_no_count() -> None:
    tally = Tally(counter(NAME))
    for number in range(MOST_SERIES + 500):
        tally.add(f"n{number}")
    tally.add("n3")
    observed = list(tally.observe(None))  # type: ignore[arg-type]
    assert len(observed) == MOST_SERIES + 1
    assert sum(one.value for one in observed) == MOST_SERIES + 501
    assert [one.value for one in observed if one.attributes == {"otel.metric.overflow": True}] == [500]


def test_a_distribution_stops_growing_and_loses_no_value() -> None:
    ours = Distribution(histogram(NAME))
    for number in range(MOST_SERIES + 500):
        ours.record(1.0, f"n{number}")
    points: Any = ours.metric(1).data.data_points  # type: ignore[union-attr]
    assert len(points) == MOST_SERIES + 1
    assert sum(point.count for point in points) == MOST_SERIES + 500


def test_a_closed_attribute_takes_no_other_word_and_an_empty_one_is_left_out() -> None:
    tally = Tally(counter(NAME, COLOUR))
    for colour in ("red", "blue", "black", ""):
        tally.add("x", colour)
    observed = {frozenset((one.attributes or {}).items()): one.value for one in tally.observe(None)}  # type: ignore[arg-type]
    name = ("name", "x")
    assert observed == {
        frozenset({name, ("colour", "red")}): 1,
        frozenset({name, ("colour", "_OTHER")}): 2,
        frozenset({name}): 1,
    }


def test_a_wrong_number_of_values_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="zip"):
        Tally(counter(NAME)).add("x", "y")
