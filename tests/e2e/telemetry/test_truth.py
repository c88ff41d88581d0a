"""The same load, told thrice: by the ledger, at /metrics and in the overview. Where they differ one of them lies."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gateway.contract.key import new_key
from gateway.contract.money import NANOS
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.telemetry.scene import FAULTS, Caller, make_gateway
from tests.e2e.telemetry.upstream import Quoting, Refusing

PHASES = ("lost", "queue", "cold_start", "run", "collect", "overhead")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Told(NamedTuple):
    samples: list[tuple[str, dict[str, str], float]]
    overview: dict[str, Any]
    ledger: dict[str, tuple[int, int]]  # state → rows, nano-dollars
    statuses: dict[str, int]

    def sum(self, series: str, **labels: str) -> float:
        """Labels by the last word of their name."""
        return sum(
            value
            for name, found, value in self.samples
            if name == series and all(found.get(label) == text for label, text in labels.items())
        )


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[GatewayProcess]:
    key = new_key("app").text
    with Quoting() as upstream, Refusing() as receiver:
        host = receiver.url.removeprefix("http://")
        gateway = make_gateway(
            tmp_path / "gateway", upstream=upstream.url, receiver=host, refusing=host, key=key, log_format="text"
        )
        with gateway, gateway.client() as client:
            load(Caller(client))
            yield gateway


def load(caller: Caller) -> None:
    """Successes, rescues, failures, unknown prices, lost outcomes, files, cancels, and a deadline missed."""
    late = [caller.begin("later", "hang", more_headers={"cancel-after": "5s"})["id"]]
    for fault in FAULTS:
        caller.post(f"{fault}-saved", fault)
    for fault in ("throttle", "bad", "deny", "broke", "fail", "moderated"):
        caller.post(f"{fault}-alone", fault)
    for model, do in (
        ("later", "later"),
        ("broken", "fail"),
        ("priceless", "echo"),
        ("file", "file"),
        ("file", "lost"),
    ):
        caller.post(model, do)
    canceled = caller.begin("later", "hang")["id"]
    caller.cancel(canceled)
    for id in (canceled, *late):
        wait_for_end(caller.client, id)


def wait_for_end(client: httpx.Client, id: str) -> None:
    with client.stream("GET", client.get(f"/v1/predictions/{id}").json()["urls"]["stream"]) as events:
        for line in events.iter_lines():
            if line == "event: done":
                return


def told(gateway: GatewayProcess) -> Told:
    with gateway.client() as client:
        text, overview = client.get("/metrics").text, client.get("/ops/v1/overview").json()
    samples = [
        (name, {label.rpartition("_")[2]: said for label, said in _LABEL.findall(labels or "")}, float(value))
        for name, labels, value in _SAMPLE.findall(text)
    ]
    with sqlite3.connect(gateway.folder / "turnout-data" / "turnout.db") as db:
        rows = db.execute("SELECT state, count(*), coalesce(sum(nanos), 0) FROM ledger GROUP BY state").fetchall()
        statuses = dict(db.execute("SELECT status, count(*) FROM prediction GROUP BY status").fetchall())
    return Told(samples, overview, {state: (count, nanos) for state, count, nanos in rows}, statuses)


def test_ledger_metrics_and_overview_agree_and_a_restart_counts_nothing_twice(loaded: GatewayProcess) -> None:
    now = told(loaded)
    totals, burn = now.overview["totals"], now.overview["burn"]
    ended = {
        status: now.sum("turnout_predictions_ended_total", status=status)
        for status in ("succeeded", "failed", "canceled")
    }
    assert ended == {status: now.statuses[status] for status in ended} == {status: totals[status] for status in ended}
    created = sum(now.statuses.values())
    assert now.sum("turnout_predictions_created_total") == totals["created"] == created
    assert totals["rescued"] == now.sum("turnout_predictions_rescued_total") > 0
    misses = sum(model["deadline_misses"] for model in now.overview["latency"])
    assert misses == now.sum("turnout_deadline_misses_total") == 1

    rows, nanos = now.ledger["settled"]
    unknown = now.sum("turnout_settlements_total", settlement="unknown")
    assert now.sum("turnout_settlements_total", settlement="priced") + unknown == rows
    assert now.sum("turnout_spend_dollars_total") * NANOS == pytest.approx(nanos) == burn["settled_nanos"]
    assert now.sum("turnout_spend_wasted_dollars_total") * NANOS == pytest.approx(burn["wasted_nanos"])
    assert burn["unknown_share"] == pytest.approx(unknown / rows)
    rows, nanos = now.ledger["maybe"]
    assert now.sum("turnout_settlements_total", settlement="maybe") == burn["maybe"] == rows > 0
    assert now.sum("turnout_spend_maybe_dollars_total") * NANOS == pytest.approx(nanos) == burn["maybe_nanos"]
    assert now.sum("turnout_settlements_total", settlement="released") == now.ledger["released"][0]
    assert now.sum("turnout_spend_reserved_dollars") == burn["reserved_nanos"] == 0
    assert "reserved" not in now.ledger

    phases = {name: now.sum("turnout_phase_duration_seconds_sum", phase=name) for name in PHASES}
    assert sum(phases.values()) == pytest.approx(now.sum("turnout_prediction_duration_seconds_sum"), rel=1e-6)
    assert all(phases.values()), phases

    loaded.restart()
    again = told(loaded).overview
    assert (again["totals"], again["burn"]) == (now.overview["totals"], now.overview["burn"])
    kept = ("model", "ended", "p50", "p95", "deadline_misses")
    assert [[one[name] for name in kept] for one in again["latency"]] == [
        [one[name] for name in kept] for one in now.overview["latency"]
    ]
