"""Alert rules for Prometheus, made of the instruments. Who is woken by them is Alertmanager's business."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from gateway.contract.errors import Blame
from gateway.telemetry import instrument as of
from gateway.telemetry.query import Query

DOLLARS_PER_HOUR = 50.0
SUCCESS_SHARE = 0.95
DRIFT_OVER, DRIFT_UNDER = 1.5, 0.5  # bill over estimate
_DRIFT_DOLLARS = 0.1  # below it in six hours, nobody is called
_Q = Query(panel=False)
_OURS = tuple(blame.value for blame in Blame if blame is not Blame.CALLER)


class Alert(msgspec.Struct, kw_only=True, frozen=True):
    """`lasts` is for how long the expression must hold, as Prometheus writes durations; `about` is one sentence."""

    name: str
    severity: str  # page: somebody should look now. ticket: somebody should look today.
    expression: str
    lasts: str
    about: str
    remedy: str


def alerts(*, dollars_per_hour: float = DOLLARS_PER_HOUR) -> tuple[Alert, ...]:
    return (*_predictions(), *_money(dollars_per_hour), *_deliveries(), *_gateway())


def _predictions() -> Iterable[Alert]:
    # What callers brought on themselves, bad input and moderation, is left out of both sides.
    failed = _Q.increase(of.PREDICTIONS_ENDED, of.MODEL, where={of.STATUS: "failed", of.BLAME: _OURS}, window="10m")
    succeeded = _Q.increase(of.PREDICTIONS_ENDED, of.MODEL, where={of.STATUS: "succeeded"}, window="10m")
    yield Alert(
        name="TurnoutSuccessLow",
        severity="page",
        expression=f"{failed} / ({failed} + {succeeded} > 0) > {1 - SUCCESS_SHARE:.2f}",
        lasts="5m",
        about="{{ $value | humanizePercentage }} of the predictions of {{ $labels.gen_ai_request_model }} fail.",
        remedy="See which provider fails, and with which code; its breaker should have taken it out of the plans.",
    )
    yield Alert(
        name="TurnoutProviderOut",
        severity="page",
        expression=f"{_Q.now(of.BREAKER_STATE, of.OFFER, of.PROVIDER, how='max')} >= 1",
        lasts="10m",
        about="{{ $labels.turnout_offer }} has been out for ten minutes: its breaker does not close.",
        remedy="See the log for why it opened: a key, credit, or the provider itself.",
    )
    misses = _Q.increase(of.DEADLINE_MISSES, of.MODEL, window="15m")
    ended = _Q.increase(of.PREDICTIONS_ENDED, of.MODEL, window="15m")
    yield Alert(
        name="TurnoutDeadlineMisses",
        severity="page",
        expression=f"{misses} / ({ended} > 0) > 0.05",
        lasts="5m",
        about="{{ $value | humanizePercentage }} of the predictions of {{ $labels.gen_ai_request_model }} are late.",
        remedy="See which phase takes the time; a policy may give them longer, or a faster provider.",
    )
    yield Alert(
        name="TurnoutBacklogOld",
        severity="page",
        expression=_Q.now(of.BACKLOG_AGE, of.STATE, where={of.STATE: ("queued", "collecting", "delivering")}, how="max")
        + " > 300",
        lasts="5m",
        about="Something has been {{ $labels.turnout_state }} for {{ $value | humanizeDuration }}.",
        remedy="Queued: no provider takes it. Collecting: its files cannot be fetched. Delivering: see the receivers.",
    )
    yield Alert(
        name="TurnoutRateLimitNear",
        severity="ticket",
        expression=f"{_Q.now(of.HEADROOM, of.PROVIDER, how='min')} < 0.1",
        lasts="10m",
        about="{{ $labels.gen_ai_provider_name }} says that {{ $value | humanizePercentage }} of its limit is left.",
        remedy="Ask it for more, or let a policy spread the load.",
    )


def _money(dollars_per_hour: float) -> Iterable[Alert]:
    unknown = _Q.share(
        of.SETTLEMENTS,
        of.PROVIDER,
        of={of.SETTLEMENT: "unknown"},
        among={of.SETTLEMENT: ("priced", "unknown")},
        window="1h",
    )
    yield Alert(
        name="TurnoutPriceUnknown",
        severity="ticket",
        expression=f"{unknown} > 0.2",
        lasts="15m",
        about="What {{ $value | humanizePercentage }} of the attempts at {{ $labels.gen_ai_provider_name }} cost, "
        "nobody knows.",
        remedy="Give its offers a price.",
    )
    yield Alert(
        name="TurnoutBurnHigh",
        severity="page",
        expression=f"{_Q.increase(of.SPEND, window='1h')} > {dollars_per_hour:g}",
        lasts="5m",
        about=f"${{{{ $value | humanize }}}} were spent within an hour, more than ${dollars_per_hour:g}.",
        remedy="See which model and provider; a policy can set a highest price.",
    )
    expected, billed = (
        _Q.increase(one, of.OFFER, of.PROVIDER, window="6h") for one in (of.DRIFT_EXPECTED, of.DRIFT_BILLED)
    )
    likely, bill = (
        _Q.increase(one, of.OFFER, of.PROVIDER, where={of.ESTIMATE: "likely"}, window="6h")
        for one in (of.DRIFT_EXPECTED, of.DRIFT_BILLED)
    )
    # What tokens may cost at most is above every bill, and drifts only where a bill is above it.
    over, under = f"{billed} / {expected} > {DRIFT_OVER:g}", f"{bill} / ({likely} > 0) < {DRIFT_UNDER:g}"
    yield Alert(
        name="TurnoutBillDrift",
        severity="ticket",
        expression=f"({over} or {under}) and ({billed} + {expected} > {_DRIFT_DOLLARS:g})",
        lasts="30m",
        about="{{ $labels.turnout_offer }} is billed at {{ $value | humanize }} times what was expected of it.",
        remedy="Compare its price with the provider's, and its unit: `turnout prices check`.",
    )


def _deliveries() -> Iterable[Alert]:
    lost = _Q.increase(of.DELIVERIES, where={of.DELIVERY: "exhausted", of.EVENT: "completed"}, window="15m")
    yield Alert(
        name="TurnoutDeliveriesExhausted",
        severity="ticket",
        expression=f"{lost} > 0",
        lasts="0m",
        about="{{ $value | humanize }} final webhooks were given up: their receivers will not hear of the result.",
        remedy="Tell the receivers' owners; the predictions can still be fetched.",
    )
    yield Alert(
        name="TurnoutReceiversFailing",
        severity="ticket",
        expression=f"{_Q.now(of.RECEIVERS)} > 0",
        lasts="15m",
        about="{{ $value | humanize }} receivers have not taken their webhooks for a quarter of an hour.",
        remedy="Tell their owners; deliveries are tried again for a day.",
    )


def _gateway() -> Iterable[Alert]:
    yield Alert(
        name="TurnoutLocalBackendDown",
        severity="page",
        expression=f"{_Q.now(of.LOCAL_UP, how='min')} == 0",
        lasts="5m",
        about="The local backend does not serve: there is no fallback.",
        remedy="See the gateway's log for why its process ends.",
    )
    refused = _Q.increase(of.POLICY_RELOADS, where={of.RELOAD: "refused"}, window="15m")
    yield Alert(
        name="TurnoutPolicyRefused",
        severity="ticket",
        expression=f"{refused} > 0",
        lasts="0m",
        about="A changed policy file was refused; the last good set still holds.",
        remedy="See the log, or `turnout check`, for what is wrong in it.",
    )
    seen = of.POLICY.series
    yield Alert(
        name="TurnoutUnscraped",
        severity="page",
        expression=f"absent({seen}) or (up == 0 and on (job, instance) last_over_time({seen}[6h]))",
        lasts="5m",
        about="Turnout gives no numbers{{ with $labels.instance }} at {{ . }}{{ end }}: it is down or out of reach.",
        remedy="See whether it runs, and whether Prometheus may scrape its /metrics.",
    )


def rules(found: Iterable[Alert]) -> str:
    """The YAML of a file for `rule_files`."""
    lines = ["# Alert rules of Turnout for Prometheus, generated by `turnout grafana`.", "groups:", "  - name: turnout"]
    lines.append("    rules:")
    for alert in found:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.about)}",
            f"          description: {json.dumps(alert.remedy)}",
        ]
    return "\n".join(lines) + "\n"
