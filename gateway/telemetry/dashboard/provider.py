"""Which provider is out, slow or refusing, and since when?"""

from __future__ import annotations

from gateway.telemetry import instrument as of
from gateway.telemetry.instrument import BREAKER_STATES
from gateway.telemetry.panel import Dashboard, Panel, Row, Target, legend, quantiles
from gateway.telemetry.query import RANGE, Query

_Q = Query(panel=True)
_ROUTE = (of.PROVIDER, of.MODEL)
_COLOURS = {"closed": "green", "probing": "yellow", "open": "red"}


def providers() -> Dashboard:
    return Dashboard(
        uid="turnout-providers",
        title="Turnout / Providers",
        about="Which provider is out, slow or refusing, and since when?",
        rows=(_matrix(), _attempts(), _signs()),
    )


def _matrix() -> Row:
    return Row(
        title="Routes",
        panels=(
            Panel(
                title="Breakers",
                kind="state-timeline",
                targets=(Target(_Q.now(of.BREAKER_STATE, of.OFFER, how="max"), legend(of.OFFER)),),
                words=tuple((str(n), state.value, _COLOURS[state.value]) for state, n in BREAKER_STATES.items()),
                width=12,
            ),
            Panel(
                title="Success of attempts",
                kind="table",
                targets=(Target(_Q.share(of.ATTEMPTS, *_ROUTE, of={of.ATTEMPT: "succeeded"}, window=RANGE)),),
                unit="percentunit",
                width=6,
            ),
            Panel(
                title="Seconds of an attempt, p95",
                kind="table",
                targets=(Target(_Q.quantile(0.95, of.OPERATION_DURATION, *_ROUTE, window=RANGE)),),
                unit="s",
                width=6,
            ),
        ),
    )


def _attempts() -> Row:
    return Row(
        title="Attempts",
        panels=(
            Panel(
                title="Ended, by provider and outcome",
                targets=(Target(_Q.rate(of.ATTEMPTS, of.PROVIDER, of.ATTEMPT), legend(of.PROVIDER, of.ATTEMPT)),),
                unit="ops",
                stacked=True,
            ),
            Panel(
                title="Failures, by provider and code",
                targets=(
                    Target(
                        _Q.rate(
                            *(of.ATTEMPTS, of.PROVIDER, of.ERROR),
                            where={of.ATTEMPT: ("rejected", "failed", "abandoned")},
                        ),
                        legend(of.PROVIDER, of.ERROR),
                    ),
                ),
                unit="ops",
                stacked=True,
            ),
            Panel(title="Seconds of an attempt", targets=quantiles(_Q, of.OPERATION_DURATION, of.PROVIDER), unit="s"),
            *(
                Panel(
                    title=title,
                    targets=(
                        Target(_Q.quantile(0.95, of.PHASE_DURATION, *_ROUTE, where={of.PHASE: phase}), legend(*_ROUTE)),
                    ),
                    unit="s",
                )
                for title, phase in (
                    ("In the provider's queue, p95", "queue"),
                    ("Cold starts, p95", "cold_start"),
                    ("Running, p95", "run"),
                )
            ),
        ),
    )


def _signs() -> Row:
    return Row(
        title="Signs",
        panels=(
            Panel(
                title="Breakers that opened",
                targets=(
                    Target(_Q.increase(of.BREAKER_OPENINGS, of.OFFER, window="$__rate_interval"), legend(of.OFFER)),
                ),
            ),
            Panel(
                title="Rate-limit headroom",
                targets=(Target(_Q.now(of.HEADROOM, of.PROVIDER, how="min"), legend(of.PROVIDER)),),
                unit="percentunit",
            ),
            Panel(
                title="Callbacks",
                targets=(Target(_Q.rate(of.CALLBACKS, of.PROVIDER, of.CALLBACK), legend(of.PROVIDER, of.CALLBACK)),),
                unit="ops",
            ),
            Panel(
                title="Polls",
                targets=(Target(_Q.rate(of.POLLS, of.PROVIDER, of.POLL), legend(of.PROVIDER, of.POLL)),),
                unit="ops",
            ),
        ),
    )
