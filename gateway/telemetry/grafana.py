"""The files for Grafana and Prometheus that `turnout grafana` writes: the shipped ones lie in `pack/`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from gateway.telemetry.alert import DOLLARS_PER_HOUR, alerts, rules
from gateway.telemetry.dashboard import dashboards
from gateway.telemetry.instrument import table
from gateway.telemetry.panel import as_grafana

RULES = "turnout-alerts.yml"
TABLE = "turnout-instruments.md"


def pack(*, dollars_per_hour: float = DOLLARS_PER_HOUR) -> Mapping[str, str]:
    """Content by file name: a file per dashboard, the alert rules, and the table of all instruments."""
    made = {f"{one.uid}.json": json.dumps(as_grafana(one), indent=2) + "\n" for one in dashboards()}
    return made | {RULES: rules(alerts(dollars_per_hour=dollars_per_hour)), TABLE: table()}
