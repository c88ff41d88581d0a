"""The shipped dashboards and alert rules against a real Prometheus that scrapes a loaded gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gateway.telemetry
from gateway.telemetry.alert import alerts, rules
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.telemetry.prometheus import Prometheus
from tests.e2e.telemetry.scene import Caller, make_gateway
from tests.e2e.telemetry.upstream import Quoting, Refusing

PACK = Path(gateway.telemetry.__file__).parent / "pack"
_GONE = 'sum(turnout_deliveries_total{turnout_outcome="gone"})'
_VARIABLES = {"$job": ".*", "$model": ".*", "$provider": ".*", "$__rate_interval": "1m", "$__range": "1m"}


@dataclass
class Watched:
    gateway: GatewayProcess
    prometheus: Prometheus
    rescued: int = 0  # as their callers saw it


def panels() -> list[tuple[str, str]]:
    """(where, expression) of every query of every shipped dashboard."""
    return [
        (f"{dashboard['title']} / {panel['title']} / {target['refId']}", target["expr"])
        for dashboard in (json.loads(path.read_text()) for path in sorted(PACK.glob("*.json")))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """
    After two waves of all that can happen, each of them scraped.

    The receiver that answers 410 has answered before a wave begins: it took a webhook, hence is none that fails.
    """
    folder = tmp_path_factory.mktemp("watched")
    at_once = re.sub(r"for: \w+", "for: 0s", rules(alerts(dollars_per_hour=0.0001)))
    with Quoting() as upstream, Receiver() as receiver, Refusing() as refusing:
        made = make_gateway(
            folder / "gateway",
            upstream=upstream.url,
            receiver=receiver.place,
            refusing=refusing.place,
            log_format="text",
        )
        with (
            made as running,
            Prometheus(folder / "prometheus", target=running.url.removeprefix("http://"), rules=at_once) as prometheus,
            running.client() as client,
        ):
            prometheus.scrape()
            policies = folder / "gateway" / "policies" / "another.toml"
            caller, rescued = Caller(client), 0
            for wave, policy in enumerate(
                ('name = "another"\n[match]\nmodels = ["nobody/nothing"]\n', "name = 7\n"), 1
            ):
                policies.write_text(policy)
                caller.post("fail-alone", "fail", webhook=f"{refusing.url}/410")
                prometheus.until(lambda wave=wave: prometheus.numbers(_GONE) == [wave] or None)
                rescued += _wave(caller, receiver.url, refusing.url)
                prometheus.scrape()
            yield Watched(running, prometheus, rescued)
            running.kill()


def _wave(caller: Caller, receiver: str, refusing: str) -> int:
    """Everything that some panel shows. How many predictions were rescued."""
    rescued = 0
    hasty = {"turnout-policy": "hasty"}
    held = caller.begin("later", "hang")
    for fault in ("refuse", "fail", "cut", "throttle"):
        if fault != "cut":  # whose outcome is unknown for longer than a caller waits
            saved = caller.post(f"{fault}-saved", fault, webhook=f"{receiver}/hook")
            kept = caller.client.get(f"/v1/predictions/{saved['id']}").json()
            rescued += len(kept["routing"]["attempts"]) == 2  # a provider that throttles is passed over for a while
        caller.post(f"{fault}-alone", fault, webhook=f"{refusing}/500", more_headers=hasty)
    for _ in range(5):
        caller.post("broken", "fail", more_headers=hasty)
    for model, do in (*[("priceless", "echo")] * 4, ("file", "file"), ("file", "lost"), ("later", "later")):
        caller.post(model, do)
    assert caller.upscale()["status"] == "succeeded"
    caller.upload()
    caller.cancel(held["id"])
    caller.begin("later", "hang")  # stays, for what is reserved and in hand
    return rescued


@pytest.mark.timeout(60)  # it starts a gateway and a Prometheus, and waits for scrapes
def test_every_query_of_every_panel_finds_something_in_a_loaded_gateway(watched: Watched) -> None:
    empty = []
    queries = panels()
    assert len(queries) > 40
    for where, query in queries:
        for variable, text in _VARIABLES.items():
            query = query.replace(variable, text)
        assert "$" not in query, where
        if not watched.prometheus.numbers(query):
            empty.append((where, query))
    assert empty == []


def test_every_variable_of_the_dashboards_has_values(watched: Watched) -> None:
    asked = set()
    for path in PACK.glob("*.json"):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
                assert found is not None
                asked.add((found[1], found[2]))
    assert len(asked) == 3
    for series, label in asked:
        values = {one["metric"].get(label) for one in watched.prometheus.ask(f"count by ({label}) ({series})")}
        assert values - {None}, (series, label)


def test_the_numbers_add_up_in_prometheus(watched: Watched) -> None:
    """Not only that there is something: what was sent is what is counted."""
    ask = watched.prometheus.numbers
    assert ask('sum(turnout_predictions_rescued_total{gen_ai_provider_name="second"})')[0] >= watched.rescued
    assert watched.rescued >= 2
    assert ask(_GONE) == [2]
    assert ask("sum(turnout_predictions_created_total)") == [46]
    assert ask('turnout_backlog{turnout_state="running"}') == [2]
    assert ask('sum(turnout_phase_duration_seconds_count{turnout_phase="accept"})') == [46]


@pytest.mark.timeout(30)
def test_alerts_fire_for_what_went_wrong_and_not_for_what_did_not(watched: Watched) -> None:
    expected = {
        "TurnoutSuccessLow",
        "TurnoutProviderOut",
        "TurnoutDeadlineMisses",
        "TurnoutPriceUnknown",
        "TurnoutBurnHigh",
        "TurnoutDeliveriesExhausted",
        "TurnoutReceiversFailing",
        "TurnoutPolicyRefused",
    }
    try:
        watched.prometheus.await_alerts(expected)
    except AssertionError as error:
        error.add_note(str(watched.prometheus.ask("turnout_receivers")))
        raise
    quiet = {"TurnoutLocalBackendDown", "TurnoutUnscraped", "TurnoutBacklogOld", "TurnoutRateLimitNear"}
    assert watched.prometheus.firing() & quiet == set()


@pytest.mark.timeout(30)
def test_a_gateway_that_is_gone_is_an_alert(
    watched: Watched,
) -> None:
    watched.gateway.kill()
    watched.prometheus.await_alerts({"TurnoutUnscraped"})


def test_the_queries_can_fail(watched: Watched) -> None:
    """One name that is not there, and one that is no PromQL: neither would pass."""
    assert watched.prometheus.numbers("rate(turnout_attempts[1m])") == []
    with pytest.raises(AssertionError, match="parse error"):
        watched.prometheus.ask("rate(turnout_attempts_total[1m]")
