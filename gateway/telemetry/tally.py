"""Sums and distributions as plain dicts, for a thirtieth of an SDK instrument's cost; the SDK reads them when asked."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint, Metric

from gateway.telemetry.instrument import OTHER, Attribute, Instrument

MOST_SERIES = 2_000  # per instrument; beyond it everything lands in one series, as OpenTelemetry does
_OVERFLOW = ("otel.metric.overflow",)

Values = tuple[str, ...]


class Tally:
    """A counter of integers, shown divided by `divisor`. `add` takes the values of the attributes, in their order."""

    def __init__(self, instrument: Instrument, *, divisor: int = 1) -> None:
        self._instrument = instrument
        self._divisor = divisor
        self._sums: dict[Values, int] = {}

    def add(self, *values: str, amount: int = 1) -> None:
        known = self._sums.get(values)
        if known is None:
            values = admit(values, self._instrument.attributes, self._sums)
            known = self._sums.get(values, 0)
        self._sums[values] = known + amount

    def seed(self, *values: str) -> None:
        """Show a series before it counts: Prometheus sees no increase in one that begins with 1."""
        self._sums.setdefault(values, 0)

    def observe(self, options: CallbackOptions) -> Iterable[Observation]:
        """What the SDK calls when it collects."""
        for values, total in list(self._sums.items()):
            yield Observation(
                total if self._divisor == 1 else total / self._divisor,
                attributes_of(values, self._instrument.attributes),
            )


class _Row:
    __slots__ = ("counts", "least", "most", "sum")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.sum = 0.0
        self.least = float("inf")
        self.most = 0.0


class Distribution:
    """
    A histogram. It is not observed by the SDK, which has no observable histograms: `metric` is given to its exporters.

    Read from another thread a value may be in the counts and not yet in the sum.
    """

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._bounds = instrument.bounds
        self._rows: dict[Values, _Row] = {}
        self._begun_nanos = time.time_ns()

    def record(self, value: float, *values: str) -> None:
        """Negative values, of clocks that disagree, count as 0."""
        row = self._rows.get(values)
        if row is None:
            values = admit(values, self._instrument.attributes, self._rows)
            row = self._rows.get(values)
            if row is None:
                row = self._rows[values] = _Row(len(self._bounds) + 1)
        if value < 0.0:
            value = 0.0
        row.counts[bisect_left(self._bounds, value)] += 1
        row.sum += value
        # Several times for every prediction: compared, which costs a third of a call.
        if value < row.least:
            row.least = value
        if value > row.most:
            row.most = value

    def metric(self, now_nanos: int) -> Metric | None:
        """As the SDK's own collection would have it; None as long as there is nothing."""
        points = [self._point(values, row, now_nanos) for values, row in list(self._rows.items())]
        if not points:
            return None
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        one = self._instrument
        return Metric(name=one.name, description=one.about, unit=one.unit, data=data)

    def _point(self, values: Values, row: _Row, now_nanos: int) -> HistogramDataPoint:
        counts = list(row.counts)
        return HistogramDataPoint(
            attributes=attributes_of(values, self._instrument.attributes),
            start_time_unix_nano=self._begun_nanos,
            time_unix_nano=now_nanos,
            count=sum(counts),
            sum=row.sum,
            bucket_counts=counts,
            explicit_bounds=self._bounds,
            min=row.least,
            max=row.most,
        )


def admit(values: Values, attributes: tuple[Attribute, ...], known: Mapping[Values, object]) -> Values:
    """
    The series that new values belong to: words that an attribute's list does not have are `_OTHER`.

    Asked once per series, so that the closed sets cost the hot path nothing. Raises ValueError for a wrong number.
    """
    admitted = tuple(
        value if not value or attribute.values is None or value in attribute.values else OTHER
        for value, attribute in zip(values, attributes, strict=True)
    )
    if admitted not in known and len(known) >= MOST_SERIES:
        return _OVERFLOW
    return admitted


def attributes_of(values: Values, attributes: tuple[Attribute, ...]) -> dict[str, str | int | bool]:
    if values is _OVERFLOW:
        return {_OVERFLOW[0]: True}
    return {
        attribute.name: int(value) if attribute.is_number else value
        for attribute, value in zip(attributes, values, strict=True)
        if value
    }
