"""Who fetches the numbers, Prometheus or OTLP, and our own distributions among the SDK's metrics. Measures nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData, PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry

from gateway.telemetry.tally import Distribution

Add = Callable[[MetricsData], MetricsData]


def adding(distributions: Iterable[Distribution], *, scope: str) -> Add:
    """What puts these distributions beside the SDK's metrics of `scope`, which must have at least one."""
    kept = tuple(distributions)

    def add(data: MetricsData) -> MetricsData:
        now_nanos = time.time_ns()
        ours = [metric for one in kept if (metric := one.metric(now_nanos)) is not None]
        return replace(
            data,
            resource_metrics=[
                replace(
                    resource,
                    scope_metrics=[
                        replace(found, metrics=[*found.metrics, *ours]) if found.scope.name == scope else found
                        for found in resource.scope_metrics
                    ],
                )
                for resource in data.resource_metrics
            ],
        )

    return add


class PrometheusReader(PrometheusMetricReader):
    """Read by `prometheus_client` through `registry`."""

    def __init__(self, registry: CollectorRegistry, add: Add) -> None:
        self._add = add
        super().__init__(scope_info_enabled=False, registry=registry)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._add(metrics_data), timeout_millis, **kwargs)


class PushingReader(PeriodicExportingMetricReader):
    """Sends what there is every OTEL_METRIC_EXPORT_INTERVAL milliseconds (a minute), from a thread of its own."""

    def __init__(self, exporter: MetricExporter, add: Add) -> None:
        self._add = add
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._add(metrics_data), timeout_millis, **kwargs)
