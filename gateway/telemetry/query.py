"""PromQL made of instruments, so that no query can ask for a name, a label or a value that is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gateway.telemetry.instrument import MODEL, PROVIDER, Attribute, Instrument, Kind

Where = Mapping[Attribute, str | Sequence[str]]
RATE = "$__rate_interval"  # Grafana's: at least four scrapes
RANGE = "$__range"  # Grafana's: all that is shown


class Query:
    """
    Makes expressions; `panel` ones are narrowed by the dashboard's variables and keep no job apart, alerts do.

    `by` and `where` take attributes; each must be the instrument's own, and a value one that it can have: KeyError.
    """

    def __init__(self, *, panel: bool) -> None:
        self._panel = panel

    def rate(self, instrument: Instrument, *by: Attribute, where: Where | None = None, window: str = RATE) -> str:
        """Per second, of a counter or of a histogram's values."""
        return f"{self._sum(instrument, by)} (rate({self._of(instrument, where)}[{window}]))"

    def increase(self, instrument: Instrument, *by: Attribute, where: Where | None = None, window: str) -> str:
        return f"{self._sum(instrument, by)} (increase({self._of(instrument, where)}[{window}]))"

    def share(
        self, instrument: Instrument, *by: Attribute, of: Where, among: Where | None = None, window: str = RATE
    ) -> str:
        """What part of a counter `of` is, among `among`."""
        part, whole = (self.increase(instrument, *by, where=where, window=window) for where in (of, among))
        return f"{part} / ({whole} > 0)"

    def quantile(
        self, quantile: float, instrument: Instrument, *by: Attribute, where: Where | None = None, window: str = RATE
    ) -> str:
        self._check(instrument, Kind.HISTOGRAM)
        buckets = f"rate({instrument.series}_bucket{self._selector(instrument, where)}[{window}])"
        labels = ", ".join(["le", *self._labels(instrument, by)])
        return f"histogram_quantile({quantile:g}, sum by ({labels}) ({buckets}))"

    def now(self, instrument: Instrument, *by: Attribute, where: Where | None = None, how: str = "sum") -> str:
        """The value of a gauge; `how` joins what is not kept apart."""
        self._check(instrument, Kind.GAUGE)
        return f"{self._grouped(how, instrument, by)} ({self._of(instrument, where)})"

    def _sum(self, instrument: Instrument, by: Sequence[Attribute]) -> str:
        return self._grouped("sum", instrument, by)

    def _grouped(self, how: str, instrument: Instrument, by: Sequence[Attribute]) -> str:
        labels = self._labels(instrument, by)
        return f"{how} by ({', '.join(labels)})" if labels else how

    def _labels(self, instrument: Instrument, by: Sequence[Attribute]) -> list[str]:
        own = [_own(instrument, attribute).label for attribute in by]
        return own if self._panel else ["job", *own]

    def _of(self, instrument: Instrument, where: Where | None) -> str:
        series = f"{instrument.series}_count" if instrument.kind is Kind.HISTOGRAM else instrument.series
        return series + self._selector(instrument, where)

    def _selector(self, instrument: Instrument, where: Where | None) -> str:
        pairs = [_matcher(_own(instrument, attribute), value) for attribute, value in (where or {}).items()]
        if self._panel:
            pairs.append('job=~"$job"')
            for attribute, variable in ((MODEL, "$model"), (PROVIDER, "$provider")):
                if attribute in instrument.attributes and attribute not in (where or {}):
                    pairs.append(f'{attribute.label}=~"{variable}"')
        return f"{{{','.join(pairs)}}}" if pairs else ""

    @staticmethod
    def _check(instrument: Instrument, kind: Kind) -> None:
        if instrument.kind is not kind:
            raise KeyError(f"{instrument.name} is a {instrument.kind.value}, no {kind.value}")


def _own(instrument: Instrument, attribute: Attribute) -> Attribute:
    if instrument.attribute(attribute.name) != attribute:
        raise KeyError(f"{instrument.name} has another {attribute.name}")
    return attribute


def _matcher(attribute: Attribute, value: str | Sequence[str]) -> str:
    values = [value] if isinstance(value, str) else list(value)
    for one in values:
        if attribute.values is not None and one not in attribute.values:
            raise KeyError(f"{attribute.name} is never {one}")
    if len(values) == 1:
        return f"{attribute.label}={json.dumps(values[0])}"
    return f"{attribute.label}=~{json.dumps('|'.join(values))}"
