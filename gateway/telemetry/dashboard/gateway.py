"""The gateway itself: requests, webhooks, files, policies and the local backend."""

from __future__ import annotations

from gateway.telemetry import instrument as of
from gateway.telemetry.panel import Dashboard, Panel, Row, Target, legend, quantiles
from gateway.telemetry.query import RANGE, Query

_Q = Query(panel=True)


def gateway() -> Dashboard:
    return Dashboard(
        uid="turnout-gateway",
        title="Turnout / Gateway",
        about="The gateway itself: requests, webhooks, files, policies and the local backend.",
        rows=(_requests(), _webhooks(), _local()),
    )


def _requests() -> Row:
    by = (of.ROUTE, of.METHOD, of.HTTP_STATUS)
    return Row(
        title="Requests",
        panels=(
            Panel(
                title="Requests",
                targets=(Target(_Q.rate(of.REQUEST_DURATION, *by), legend(*by)),),
                unit="reqps",
            ),
            Panel(title="Seconds of a request", targets=quantiles(_Q, of.REQUEST_DURATION, of.ROUTE), unit="s"),
            Panel(
                title="Accepting, and all that is ours",
                about=of.PHASE.about,
                targets=(
                    Target(
                        _Q.quantile(0.95, of.PHASE_DURATION, of.PHASE, where={of.PHASE: ("accept", "overhead")}),
                        f"p95 {legend(of.PHASE)}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                title="Policies that hold",
                kind="table",
                targets=(Target(_Q.now(of.POLICY, of.VERSION, how="count")),),
            ),
            Panel(
                title="Reloads of policies",
                targets=(
                    Target(_Q.increase(of.POLICY_RELOADS, of.RELOAD, window="$__rate_interval"), legend(of.RELOAD)),
                ),
            ),
            Panel(
                title="Files taken into our keeping",
                targets=(Target(_Q.rate(of.ARTIFACTS, of.DIRECTION), legend(of.DIRECTION)),),
                unit="ops",
                width=4,
            ),
            Panel(
                title="Their bytes",
                targets=(Target(_Q.rate(of.ARTIFACT_BYTES, of.DIRECTION), legend(of.DIRECTION)),),
                unit="Bps",
                width=4,
            ),
        ),
    )


def _webhooks() -> Row:
    by = (of.EVENT, of.DELIVERY)
    return Row(
        title="Webhooks to callers",
        panels=(
            Panel(
                title="Tries",
                targets=(Target(_Q.rate(of.DELIVERIES, *by), legend(*by)),),
                unit="ops",
                stacked=True,
            ),
            Panel(
                title="Seconds of a try, and from the event to the end, p95",
                targets=(
                    Target(_Q.quantile(0.95, of.DELIVERY_DURATION, of.DELIVERY), legend(of.DELIVERY)),
                    Target(_Q.quantile(0.95, of.PHASE_DURATION, where={of.PHASE: "delivery"}), "from the event"),
                ),
                unit="s",
            ),
            Panel(
                title="Receivers that do not take them",
                targets=(Target(_Q.now(of.RECEIVERS, of.RECEIVER), legend(of.RECEIVER)),),
            ),
        ),
    )


def _local() -> Row:
    size = f"{_Q.rate(of.LOCAL_BATCHED)} / ({_Q.rate(of.LOCAL_BATCHES)} > 0)"
    return Row(
        title="Local backend",
        panels=(
            Panel(
                title="Serving",
                kind="state-timeline",
                targets=(Target(_Q.now(of.LOCAL_UP, of.DEVICE, how="min"), legend(of.DEVICE)),),
                words=(("0", "down", "red"), ("1", "up", "green")),
                width=6,
            ),
            Panel(
                title="Waiting and running",
                targets=(
                    Target(_Q.now(of.LOCAL_QUEUE), "waiting predictions"),
                    Target(_Q.now(of.LOCAL_RUNNING), "running batches"),
                ),
                width=6,
            ),
            Panel(title="Predictions in a batch", targets=(Target(size, "mean"),), width=6),
            Panel(title="Resident memory", targets=(Target(_Q.now(of.LOCAL_MEMORY)),), unit="bytes", width=3),
            Panel(
                title="Starts",
                targets=(Target(_Q.increase(of.LOCAL_STARTS, window=RANGE)),),
                kind="stat",
                limits=(2, 5),
                width=3,
            ),
        ),
    )
