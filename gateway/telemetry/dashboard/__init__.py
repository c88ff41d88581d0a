"""The dashboards for Grafana: which questions they answer, by which instruments. How Grafana has it is `panel`'s."""

from gateway.telemetry.dashboard.gateway import gateway
from gateway.telemetry.dashboard.money import money
from gateway.telemetry.dashboard.overview import overview
from gateway.telemetry.dashboard.provider import providers
from gateway.telemetry.panel import Dashboard


def dashboards() -> tuple[Dashboard, ...]:
    return overview(), providers(), money(), gateway()
