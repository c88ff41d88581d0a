"""What Grafana shows, as data: panels of queries, and their JSON. Which panels there are stands in `dashboard`."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.telemetry import instrument as of
from gateway.telemetry.instrument import Attribute, Instrument
from gateway.telemetry.query import Query

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SCHEMA_VERSION = 39  # Grafana 10 and later; it brings older ones up to date by itself
_COLUMNS = 24
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


class Target(msgspec.Struct, frozen=True):
    """One expression; `legend` as Grafana has it: {{label}}."""

    expression: str
    legend: str = ""


class Panel(msgspec.Struct, kw_only=True, frozen=True):
    """`kind` is one of Grafana's: timeseries, stat, table, state-timeline. `unit` too: s, percentunit, currencyUSD …"""

    title: str
    targets: tuple[Target, ...]
    about: str = ""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8  # of 24
    height: int = 8
    stacked: bool = False
    # Values from which on it is yellow, and red; the other way round where less is worse.
    limits: tuple[float, float] | None = None
    words: tuple[tuple[str, str, str], ...] = ()  # value, what is shown for it, colour


class Row(msgspec.Struct, kw_only=True, frozen=True):
    title: str
    panels: tuple[Panel, ...]


class Dashboard(msgspec.Struct, kw_only=True, frozen=True):
    """`uid` names it for ever: importing it again replaces it."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]


def legend(*attributes: Attribute) -> str:
    return " ".join(f"{{{{{attribute.label}}}}}" for attribute in attributes)


def quantiles(query: Query, instrument: Instrument, *by: Attribute) -> tuple[Target, ...]:
    """The median and the 95th percentile."""
    return tuple(
        Target(query.quantile(quantile, instrument, *by), f"p{quantile * 100:g} {legend(*by)}".strip())
        for quantile in (0.5, 0.95)
    )


def as_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["turnout"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "links": [
            {
                "title": "Turnout",
                "type": "dashboards",
                "tags": ["turnout"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": _variables()},
        "panels": _placed(dashboard.rows),
    }


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "options": [],
        "regex": "",
    }
    asked = (
        ("job", "Job", of.POLICY.series, "job"),
        ("model", "Model", of.PREDICTIONS_CREATED.series, of.MODEL.label),
        ("provider", "Provider", of.BREAKER_STATE.series, of.PROVIDER.label),
    )
    return [source, *(_variable(*one) for one in asked)]


def _variable(name: str, label: str, series: str, of_label: str) -> dict[str, Any]:
    query = f"label_values({series}, {of_label})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "A"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "allValue": ".*",
        "includeAll": True,
        "multi": True,
        "hide": 0,
        "refresh": 2,
        "sort": 1,
        "options": [],
        "regex": "",
    }


def _placed(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Row by row, from left to right, wrapped where the width is used up."""
    placed: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            }
        )
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    is_instant = panel.kind in ("stat", "table")
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _DATASOURCE,
            "editorMode": "code",
            "expr": target.expression,
            "legendFormat": target.legend or "__auto",
            "instant": is_instant,
            "range": not is_instant,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for number, target in enumerate(panel.targets)
    ]
    made = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "table":
        hidden = {"id": "organize", "options": {"excludeByName": {"Time": True}}}
        made["transformations"] = [{"id": "merge", "options": {}}, hidden]
    return made


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "mappings": []}
    if panel.words:
        shown = {
            value: {"text": text, "color": colour, "index": i} for i, (value, text, colour) in enumerate(panel.words)
        }
        defaults["mappings"] = [{"type": "value", "options": shown}]
    if panel.limits is not None:
        low, high = panel.limits
        colours = (_GREEN, _YELLOW, _RED) if low <= high else (_RED, _YELLOW, _GREEN)
        steps = [None, *sorted(panel.limits)]
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for colour, value in zip(colours, steps, strict=True)],
        }
        defaults["color"] = {"mode": "thresholds"}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    if panel.kind == "state-timeline":
        return {"mergeValues": True, "showValue": "auto", "rowHeight": 0.9}
    shown = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": shown, "tooltip": {"mode": "multi", "sort": "desc"}}
