"""Each alert rule by promtool: it fires for the series that it is there for, after its time, and not for neighbours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.telemetry.alert import Alert, alerts, rules
from tests.e2e.telemetry.prometheus import check_rules

ENDED = 'turnout_predictions_ended_total{job="t",instance="a",gen_ai_request_model="m",'
SETTLED = 'turnout_settlements_total{job="t",instance="a",gen_ai_provider_name="p",gen_ai_request_model="m",'
DELIVERED = 'turnout_deliveries_total{job="t",instance="a",turnout_event="completed",'
BREAKER = 'turnout_breaker_state{job="t",instance="a",turnout_offer="m@p",gen_ai_provider_name="p"}'
AGE = 'turnout_backlog_age_seconds{job="t",instance="a",turnout_state='
SPEND = 'turnout_spend_dollars_total{job="t",instance="a",gen_ai_provider_name="p",gen_ai_request_model="m",'
OFFER = 'job="t",instance="a",turnout_offer="m@p",gen_ai_provider_name="p",gen_ai_request_model="m"'
EXPECTED = f"turnout_spend_drift_expected_dollars_total{{{OFFER},turnout_estimate="
BILLED = f"turnout_spend_drift_billed_dollars_total{{{OFFER},turnout_estimate="


class Case(msgspec.Struct, kw_only=True, frozen=True):
    """`fires` and `quiet` are series by name; `at` is when it fires, `before` when it does not yet."""

    alert: str
    fires: dict[str, str]
    quiet: tuple[dict[str, str], ...]
    labels: dict[str, str] = {}
    at: str = "30m"
    before: str | None = None


CASES = (
    Case(
        alert="TurnoutSuccessLow",
        fires={
            f'{ENDED}turnout_status="succeeded"}}': "0+9x60",
            f'{ENDED}turnout_status="failed",turnout_blame="provider"}}': "0+1x60",
        },
        quiet=(
            {
                f'{ENDED}turnout_status="succeeded"}}': "0+99x60",
                f'{ENDED}turnout_status="failed",turnout_blame="provider"}}': "0+1x60",
            },
            # What callers bring on themselves wakes nobody.
            {
                f'{ENDED}turnout_status="succeeded"}}': "0+1x60",
                f'{ENDED}turnout_status="failed",turnout_blame="caller"}}': "0+9x60",
            },
            {
                f'{ENDED}turnout_status="succeeded"}}': "0x60",
                f'{ENDED}turnout_status="failed",turnout_blame="local"}}': "0x60",
            },
        ),
        labels={"gen_ai_request_model": "m"},
        before="4m",
    ),
    Case(
        alert="TurnoutProviderOut",
        fires={BREAKER: "0x4 2x5 1 2x60"},  # a probe in between is no recovery
        quiet=({BREAKER: "0x60"}, {BREAKER: "0x4 2x5 0x60"}),
        labels={"turnout_offer": "m@p", "gen_ai_provider_name": "p"},
        before="14m",
    ),
    Case(
        alert="TurnoutDeadlineMisses",
        fires={
            'turnout_deadline_misses_total{job="t",instance="a",gen_ai_request_model="m"}': "0+1x60",
            f'{ENDED}turnout_status="failed",turnout_blame="local"}}': "0+10x60",
        },
        quiet=(
            {
                'turnout_deadline_misses_total{job="t",instance="a",gen_ai_request_model="m"}': "0+1x60",
                f'{ENDED}turnout_status="succeeded"}}': "0+100x60",
            },
        ),
        labels={"gen_ai_request_model": "m"},
        before="4m",
    ),
    Case(
        alert="TurnoutBacklogOld",
        fires={f'{AGE}"queued"}}': "0+60x60", f'{AGE}"running"}}': "0x60"},
        quiet=({f'{AGE}"queued"}}': "60x60", f'{AGE}"running"}}': "0+600x60"},),  # a video takes its time
        labels={"turnout_state": "queued"},
        before="10m",
    ),
    Case(
        alert="TurnoutRateLimitNear",
        fires={'turnout_rate_limit_headroom{job="t",instance="a",gen_ai_provider_name="p"}': "0.05x60"},
        quiet=({'turnout_rate_limit_headroom{job="t",instance="a",gen_ai_provider_name="p"}': "0.5x60"},),
        labels={"gen_ai_provider_name": "p"},
        before="9m",
    ),
    Case(
        alert="TurnoutPriceUnknown",
        fires={
            f'{SETTLED}turnout_settlement="unknown"}}': "0+1x60",
            f'{SETTLED}turnout_settlement="priced"}}': "0+2x60",
        },
        quiet=(
            {f'{SETTLED}turnout_settlement="unknown"}}': "0+1x60", f'{SETTLED}turnout_settlement="priced"}}': "0+9x60"},
            {f'{SETTLED}turnout_settlement="released"}}': "0+1x60", f'{SETTLED}turnout_settlement="unknown"}}': "0x60"},
        ),
        labels={"gen_ai_provider_name": "p"},
        before="10m",
    ),
    Case(
        alert="TurnoutBurnHigh",
        fires={f'{SPEND}turnout_basis="computed"}}': "0+0.6x120", f'{SPEND}turnout_basis="reported"}}': "0+0.4x120"},
        quiet=({f'{SPEND}turnout_basis="computed"}}': "0+0.6x120"},),
        at="90m",
        before="40m",
    ),
    Case(
        alert="TurnoutBillDrift",
        fires={
            f'{EXPECTED}"likely"}}': "0+0.1x90",
            f'{BILLED}"likely"}}': "0+0.2x90",
            f'{EXPECTED}"most"}}': "0x90",
            f'{BILLED}"most"}}': "0x90",
        },
        quiet=(
            {f'{EXPECTED}"likely"}}': "0+0.1x90", f'{BILLED}"likely"}}': "0+0.13x90"},
            {f'{EXPECTED}"likely"}}': "0+0.1x90", f'{BILLED}"likely"}}': "0+0.06x90"},
            # As many tokens as were allowed are hardly ever used.
            {f'{EXPECTED}"most"}}': "0+0.1x90", f'{BILLED}"most"}}': "0+0.01x90"},
            {f'{EXPECTED}"likely"}}': "0+0.0001x90", f'{BILLED}"likely"}}': "0+0.001x90"},  # pennies
            {f'{EXPECTED}"likely"}}': "0x90", f'{BILLED}"likely"}}': "0x90"},
        ),
        labels={"turnout_offer": "m@p", "gen_ai_provider_name": "p"},
        at="50m",
        before="25m",
    ),
    Case(  # a price that was thought to be ten times as much
        alert="TurnoutBillDrift",
        fires={f'{EXPECTED}"likely"}}': "0+0.1x90", f'{BILLED}"likely"}}': "0+0.01x90"},
        quiet=(),
        labels={"turnout_offer": "m@p", "gen_ai_provider_name": "p"},
        at="50m",
        before="25m",
    ),
    Case(  # a price per million taken for one per token: next to nothing was expected
        alert="TurnoutBillDrift",
        fires={f'{EXPECTED}"most"}}': "0+0.0000001x90", f'{BILLED}"most"}}': "0+0.1x90"},
        quiet=(),
        labels={"turnout_offer": "m@p", "gen_ai_provider_name": "p"},
        at="50m",
        before="25m",
    ),
    Case(
        alert="TurnoutDeliveriesExhausted",
        fires={f'{DELIVERED}turnout_outcome="exhausted"}}': "0x9 1x60"},  # one is enough
        quiet=(
            {f'{DELIVERED}turnout_outcome="retry"}}': "0+1x60", f'{DELIVERED}turnout_outcome="exhausted"}}': "3x60"},
        ),
        at="12m",
        before="8m",
    ),
    Case(
        alert="TurnoutReceiversFailing",
        fires={'turnout_receivers{job="t",instance="a",turnout_state="shut"}': "1x60"},
        quiet=({'turnout_receivers{job="t",instance="a",turnout_state="shut"}': "0x60"},),
        before="14m",
    ),
    Case(
        alert="TurnoutLocalBackendDown",
        fires={'turnout_local_backend_up{job="t",instance="a",turnout_device="cpu"}': "1x4 0x60"},
        quiet=({'turnout_local_backend_up{job="t",instance="a",turnout_device="cpu"}': "1x4 0x2 1x60"},),
        before="8m",
    ),
    Case(
        alert="TurnoutPolicyRefused",
        fires={'turnout_policy_reloads_total{job="t",instance="a",turnout_outcome="refused"}': "0x9 1x60"},
        quiet=({'turnout_policy_reloads_total{job="t",instance="a",turnout_outcome="swapped"}': "0+1x60"},),
        at="12m",
        before="8m",
    ),
    Case(
        alert="TurnoutUnscraped",
        fires={
            'turnout_policy{job="t",instance="a",turnout_policy_version="x"}': "1x4 stale",
            'turnout_policy{job="t",instance="b",turnout_policy_version="x"}': "1x60",
            'up{job="t",instance="a"}': "1x4 0x60",
            'up{job="t",instance="b"}': "1x60",
        },
        quiet=(
            {
                'turnout_policy{job="t",instance="b",turnout_policy_version="x"}': "1x60",
                'up{job="t",instance="b"}': "1x60",
                'up{job="other",instance="c"}': "0x60",
            },
        ),
        labels={"instance": "a"},
        before="8m",
    ),
)
_BY_NAME = {alert.name: alert for alert in alerts()}


def _tests(case: Case) -> list[dict[str, Any]]:
    """That it fires at its time and not before, and never for the quiet series."""
    alert = _BY_NAME[case.alert]
    labels = {"job": "t", "severity": alert.severity} | case.labels
    looks = [{"alertname": case.alert, "eval_time": case.at, "exp_alerts": [{"exp_labels": labels}]}]
    if case.before is not None:
        looks.append({"alertname": case.alert, "eval_time": case.before, "exp_alerts": []})
    quiet = [{"alertname": case.alert, "eval_time": minute, "exp_alerts": []} for minute in ("12m", "30m", "50m")]
    return [_test(case.fires, looks), *(_test(series, quiet) for series in case.quiet)]


def _test(series: dict[str, str], looks: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": inputs, "alert_rule_test": looks}


def _without_words(found: Alert) -> Alert:
    # promtool compares annotations too; what they say is proven by `test_every_alert_says_what_and_what_to_do`.
    return msgspec.structs.replace(found, about="", remedy="")


def _rules() -> str:
    return re.sub(r"\n        annotations:\n.*\n.*", "", rules(_without_words(alert) for alert in alerts()))


@pytest.mark.parametrize("case", CASES, ids=[case.alert for case in CASES])
def test_it_fires_for_what_it_is_there_for_and_for_nothing_else(case: Case, tmp_path: Path) -> None:
    check_rules(tmp_path, _rules(), _tests(case))


def test_there_is_a_case_for_every_alert() -> None:
    assert {case.alert for case in CASES} == set(_BY_NAME)


def test_every_alert_can_be_found_wanting(tmp_path: Path) -> None:
    """With a rule that never fires the first case fails: what passes above has been proven."""
    never = re.sub(r'expr: ".*"', 'expr: "vector(1) > 2"', _rules())
    with pytest.raises(AssertionError, match="FAILED"):
        check_rules(tmp_path, never, _tests(CASES[0]))


def test_nothing_at_all_is_an_alert_too(tmp_path: Path) -> None:
    looks = [
        {
            "alertname": "TurnoutUnscraped",
            "eval_time": "10m",
            "exp_alerts": [{"exp_labels": {"severity": "page"}}],
        }
    ]
    check_rules(tmp_path, _rules(), [_test({"something_else": "1x60"}, looks)])


def test_every_alert_says_what_and_what_to_do() -> None:
    for alert in alerts():
        assert alert.severity in ("page", "ticket")
        assert alert.about.endswith(".")
        assert alert.remedy.endswith(".")


def test_the_burn_that_wakes_somebody_is_what_was_asked_for() -> None:
    assert _BY_NAME["TurnoutBurnHigh"].expression.endswith("> 50")
    high = next(alert for alert in alerts(dollars_per_hour=7.5) if alert.name == "TurnoutBurnHigh")
    assert high.expression.endswith("> 7.5")
    assert "$7.5" in high.about
