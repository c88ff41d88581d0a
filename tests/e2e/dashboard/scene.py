"""States of a gateway as its dashboard is told them: empty, healthy, burning. Serves nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from gateway.dashboard import shape
from tests.e2e.dashboard.parts import (
    OUT,
    audit_of,
    burning_timeline,
    calm_timeline,
    latency_of,
    matrix_of,
    pipeline_of,
    providers_of,
    series_of,
    troubles_of,
)
from tests.e2e.dashboard.rows import rows_of
from tests.e2e.dashboard.story import detail_of


@dataclass
class Scene:
    """What the peer answers. Changed by what people do."""

    overview: shape.Overview
    rows: list[shape.Row] = field(default_factory=list)  # newest first
    details: dict[str, shape.Detail] = field(default_factory=dict)  # where the usual one will not do
    audit: list[shape.AuditLine] = field(default_factory=list)

    def detail(self, id: str) -> shape.Detail | None:
        if id in self.details:
            return self.details[id]
        row = next((row for row in self.rows if row.id == id), None)
        return None if row is None else detail_of(row)


def empty(now: datetime) -> Scene:
    matrix = matrix_of(now, {}, attempts=0)
    return Scene(_overview(now, matrix=matrix, series=series_of(now, 0)))


def healthy(now: datetime, *, rows: int = 300) -> Scene:
    shown = rows_of(now, rows)
    overview = _overview(
        now,
        matrix=matrix_of(now, {}),
        series=series_of(now, 21),
        totals=shape.Totals(created=1_284, succeeded=1_262, failed=4, canceled=6, rescued=12, open=12),
        burn=shape.Burn(
            settled_nanos=9_412_000_000,
            wasted_nanos=212_000_000,
            reserved_nanos=860_000_000,
            maybe=0,
            maybe_nanos=0,
            unknown_share=0.006,
            budget_nanos=15_000_000_000,
        ),
        latency=latency_of(late={}),
        pipeline=pipeline_of((3, 8.2), (7, 71.0), (1, 1.1), (1, 0.4)),
        timeline=calm_timeline(now, shown),
    )
    return Scene(overview, shown, audit=audit_of(now))


def burning(now: datetime) -> Scene:
    """Two providers out, a model without any, jobs stuck, a receiver dead, the budget blown."""
    shown = rows_of(now, 300, failing=0.14)
    failed = next(row for row in shown if row.model == "acme/voice")
    voiceless = msgspec.structs.replace(
        failed,
        status="failed",
        provider=None,
        completed_at=failed.created_at + timedelta(seconds=1.8),
        seconds=1.8,
        is_rescued=False,
        is_fallback=False,
        output=(),
        nanos=0,
        error_code="no_candidate",
        error="No offer is left for acme/voice: fal is out, elevenlabs has no credit",
    )
    shown[shown.index(failed)] = voiceless
    rescued = next(row for row in shown if row.is_rescued)
    overview = _overview(
        now,
        matrix=matrix_of(now, OUT),
        series=series_of(now, 19, broken_since=11),
        totals=shape.Totals(created=1_142, succeeded=1_010, failed=63, canceled=9, rescued=41, open=60),
        troubles=troubles_of(now, voiceless.id, rescued.id),
        providers=providers_of(OUT),
        burn=shape.Burn(
            settled_nanos=17_930_000_000,
            wasted_nanos=2_460_000_000,
            reserved_nanos=4_120_000_000,
            maybe=3,
            maybe_nanos=840_000_000,
            unknown_share=0.047,
            budget_nanos=15_000_000_000,
        ),
        latency=latency_of(late={"acme/kling-video": 7, "acme/flux-dev": 2}, slower=2.6),
        pipeline=pipeline_of((31, 214.0), (24, 1_130.0), (3, 9.4), (17, 690.0)),
        stuck=(
            shape.StuckPrediction(
                id=shown[40].id,
                model="acme/kling-video",
                status="processing",
                provider="replicate",
                age_seconds=1_130,
                why="running for 18 min; 95 % of its like are done after 1 min 34 s",
            ),
        ),
        receivers=(
            shape.DeadReceiver(
                host="hooks.studio.example",
                waiting=14,
                oldest_seconds=690,
                last_error="connection refused, 6 tries",
            ),
        ),
        timeline=burning_timeline(now, voiceless, rescued),
    )
    return Scene(overview, shown, audit=audit_of(now))


def _overview(
    now: datetime,
    *,
    matrix: shape.Matrix,
    series: tuple[shape.Point, ...],
    totals: shape.Totals | None = None,
    troubles: tuple[shape.Trouble, ...] = (),
    providers: tuple[shape.ProviderState, ...] | None = None,
    burn: shape.Burn | None = None,
    latency: tuple[shape.Latency, ...] = (),
    pipeline: tuple[shape.Stage, ...] | None = None,
    stuck: tuple[shape.StuckPrediction, ...] = (),
    receivers: tuple[shape.DeadReceiver, ...] = (),
    timeline: tuple[shape.Happened, ...] | None = None,
) -> shape.Overview:
    started_at = now - timedelta(hours=9, minutes=12)
    nothing = shape.Burn(settled_nanos=0, wasted_nanos=0, reserved_nanos=0, maybe=0, maybe_nanos=0, unknown_share=None)
    begun = shape.Happened(id=1, at=started_at, kind="started", title="Turnout 0.1.0 started")
    return shape.Overview(
        now=now,
        version="0.1.0",
        started_at=started_at,
        is_draining=False,
        policies=("balanced", "cheapest", "fastest", "local_only", "steadiest"),
        policy_version="4f1c9a02be77",
        totals=totals or shape.Totals(created=0, succeeded=0, failed=0, canceled=0, rescued=0, open=0),
        series=series,
        troubles=troubles,
        providers=providers_of({}, in_flight=0 if totals is None else 1) if providers is None else providers,
        burn=burn or nothing,
        latency=latency,
        pipeline=pipeline or pipeline_of((0, None), (0, None), (0, None), (0, None)),
        stuck=stuck,
        receivers=receivers,
        matrix=matrix,
        timeline=(begun,) if timeline is None else timeline,
    )
