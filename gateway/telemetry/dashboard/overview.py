"""Is anything failing, and for whom? How long does it take, and where does the time go?"""

from __future__ import annotations

from gateway.telemetry import instrument as of
from gateway.telemetry.panel import Dashboard, Panel, Row, Target, legend, quantiles
from gateway.telemetry.query import Query

_Q = Query(panel=True)
_ENDS = {of.STATUS: ("succeeded", "failed")}


def overview() -> Dashboard:
    return Dashboard(
        uid="turnout-overview",
        title="Turnout / Overview",
        about="Is anything failing, and for whom? How long does it take, and where does the time go?",
        rows=(_now_and_failing(), _outcomes(), _time()),
    )


def _now_and_failing() -> Row:
    share = _Q.share(of.PREDICTIONS_ENDED, of={of.STATUS: "succeeded"}, among=_ENDS)
    queued = _Q.now(of.BACKLOG_AGE, where={of.STATE: "queued"}, how="max")
    out = f"count({_Q.now(of.BREAKER_STATE, of.OFFER, how='max')} > 0) or vector(0)"
    per_hour = f"{_Q.rate(of.SPEND)} * 3600"
    return Row(
        title="Now",
        panels=(
            _stat("Success", share, "percentunit", "Of the predictions that succeeded or failed.", limits=(0.99, 0.95)),
            _stat("Predictions", _Q.rate(of.PREDICTIONS_ENDED), "ops", "Ended, per second."),
            _stat("Open", _Q.now(of.BACKLOG), "short", "What this gateway has in hand, webhooks included."),
            _stat("Oldest queued", queued, "s", "Waiting for a provider.", limits=(60, 300)),
            _stat("Offers out", out, "short", "Their breaker is not closed.", limits=(1, 3)),
            _stat("Burn per hour", per_hour, "currencyUSD", "At the rate of the last minutes."),
        ),
    )


def _stat(title: str, expression: str, unit: str, about: str, *, limits: tuple[float, float] | None = None) -> Panel:
    return Panel(
        title=title,
        targets=(Target(expression),),
        about=about,
        kind="stat",
        unit=unit,
        width=4,
        height=4,
        limits=limits,
    )


def _time() -> Row:
    return Row(
        title="Time",
        panels=(
            Panel(
                title="From acceptance to the end",
                targets=quantiles(_Q, of.PREDICTION_DURATION, of.MODEL),
                unit="s",
            ),
            Panel(
                title="Where the time goes, p95",
                about=of.PHASE.about,
                targets=(Target(_Q.quantile(0.95, of.PHASE_DURATION, of.PHASE), legend(of.PHASE)),),
                unit="s",
            ),
            Panel(
                title="Age of the oldest, by state",
                targets=(Target(_Q.now(of.BACKLOG_AGE, of.STATE, how="max"), legend(of.STATE)),),
                unit="s",
            ),
        ),
    )


def _outcomes() -> Row:
    by_end = (of.STATUS, of.BLAME)
    return Row(
        title="Predictions",
        panels=(
            Panel(
                title="Ended, by outcome and blame",
                targets=(Target(_Q.rate(of.PREDICTIONS_ENDED, *by_end), legend(*by_end)),),
                unit="ops",
                stacked=True,
            ),
            Panel(
                title="Success by model",
                targets=(
                    Target(
                        _Q.share(of.PREDICTIONS_ENDED, of.MODEL, of={of.STATUS: "succeeded"}, among=_ENDS),
                        legend(of.MODEL),
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Rescued",
                about="They succeeded after a failed attempt, by who saved them.",
                targets=(Target(_Q.rate(of.PREDICTIONS_RESCUED, of.PROVIDER), legend(of.PROVIDER)),),
                unit="ops",
                stacked=True,
            ),
            Panel(
                title="Failovers, by what was left and why",
                targets=(Target(_Q.rate(of.FAILOVERS, of.PROVIDER, of.ERROR), legend(of.PROVIDER, of.ERROR)),),
                unit="ops",
                stacked=True,
            ),
            Panel(
                title="Deadline misses",
                targets=(Target(_Q.rate(of.DEADLINE_MISSES, of.MODEL), legend(of.MODEL)),),
                unit="ops",
                stacked=True,
            ),
            Panel(title="Backlog", targets=(Target(_Q.now(of.BACKLOG, of.STATE), legend(of.STATE)),), stacked=True),
        ),
    )
