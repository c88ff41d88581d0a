"""The parts an overview is made of, seeded: matrix, providers, money by the minute, troubles, timelines."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.dashboard import shape
from tests.e2e.dashboard.rows import NANOS, PROVIDERS, RUN_SECONDS, SERVED

_SHARES = (0.62, 0.27, 0.08, 0.03)


class Out(NamedTuple):
    """An offer that is out."""

    state: str
    why: str
    seconds: float  # until it is tried again


OUT = {
    ("acme/flux-dev", "fal"): Out("open", "9 of its last 12 attempts failed: server_error", 24),
    ("acme/kling-video", "fal"): Out("open", "9 of its last 12 attempts failed: server_error", 24),
    ("acme/voice", "fal"): Out("open", "9 of its last 12 attempts failed: server_error", 24),
    ("acme/voice", "elevenlabs"): Out("open", "wallet_empty: the quota of this month is used up", 1_480),
    ("acme/whisper", "together"): Out("limited", "rate_limited: 60 a minute", 11),
    ("acme/flux-dev", "runpod"): Out("probing", "one attempt at a time, after 3 timeouts", 0),
}


def series_of(now: datetime, most: int, *, broken_since: int | None = None) -> tuple[shape.Point, ...]:
    chance = random.Random(11)
    points = []
    for minute in range(60):
        wave = 0.72 + 0.28 * math.sin(minute / 8)
        created = round(most * wave * chance.uniform(0.8, 1.2))
        is_broken = broken_since is not None and minute >= 60 - broken_since
        failed = round(created * chance.uniform(0.2, 0.42)) if is_broken else int(most > 0 and minute % 19 == 4)
        points.append(
            shape.Point(
                at=(now - timedelta(minutes=60 - minute)).astimezone(UTC),
                succeeded=max(0, created - failed),
                failed=failed,
                canceled=int(most > 0 and minute % 11 == 6),
                nanos=round(created * 7_800_000 * chance.uniform(0.7, 1.4) * (1.9 if is_broken else 1)),
                unknown=int(is_broken and minute % 3 == 0),
            )
        )
    return tuple(points)


def matrix_of(now: datetime, out: dict[tuple[str, str], Out], *, attempts: int = 412) -> shape.Matrix:
    chance = random.Random(5)
    cells = []
    for model, providers in SERVED.items():
        for place, provider in enumerate(providers):
            cells.append(_cell(chance, now, model, provider, place, out.get((model, provider)), attempts))
    return shape.Matrix(models=tuple(SERVED), providers=PROVIDERS, cells=tuple(cells))


def _cell(
    chance: random.Random, now: datetime, model: str, provider: str, place: int, out: Out | None, attempts: int
) -> shape.Cell:
    is_fallback = provider == "local"
    share = 0.006 if is_fallback else _SHARES[place]
    p50 = RUN_SECONDS[model] * chance.uniform(0.8, 1.3) * (3 if is_fallback else 1)
    tried = round(attempts * share)
    is_out = out is not None and out.state == "open"
    return shape.Cell(
        model=model,
        provider=provider,
        offer=f"{model}@{provider}",
        state="closed" if out is None else out.state,
        why="" if out is None else out.why,
        until=now + timedelta(seconds=out.seconds) if out is not None and out.seconds else None,
        share=share if tried else None,
        attempts=tried,
        in_flight=0 if is_out or not tried else 1 + place,
        p50=round(p50, 3) if tried else None,
        p95=round(p50 * 2.1, 3) if tried else None,
        success=(0.31 if is_out else 1 - chance.uniform(0, 0.022)) if tried else None,
        mean_nanos=(0 if is_fallback else round(NANOS[model] * chance.uniform(0.8, 1.4))) if tried else None,
        is_fallback=is_fallback,
    )


def providers_of(out: dict[tuple[str, str], Out], *, in_flight: int = 1) -> tuple[shape.ProviderState, ...]:
    now = datetime.now(UTC)
    states = []
    for place, provider in enumerate(PROVIDERS):
        here = [one for (_, name), one in out.items() if name == provider]
        offers = sum(provider in providers for providers in SERVED.values())
        gone = [one for one in here if one.state == "open"]
        state = "ok" if not here else "out" if len(gone) == offers else "limited" if not gone else "degraded"
        if here and here[0].state == "probing":
            state = "degraded"
        states.append(
            shape.ProviderState(
                provider=provider,
                state=state,
                why=here[0].why if here else "",
                until=now + timedelta(seconds=here[0].seconds) if here and here[0].seconds else None,
                in_flight=0 if state == "out" else in_flight * (3 + 2 * place),
                limit=None if place == 5 else 40,
                headroom={1: 0.82, 2: 0.04 if here else 0.61, 5: 0.97}.get(place),
            )
        )
    return tuple(states)


def latency_of(*, late: dict[str, int], slower: float = 1.0) -> tuple[shape.Latency, ...]:
    shown = []
    for place, (model, run) in enumerate(RUN_SECONDS.items()):
        queue = 0.18 * (place + 1) * slower**2
        cold = 4.2 if model == "acme/real-esrgan" else None
        phases = shape.Phases(
            accept=0.012,
            lost=round(0.4 * (slower - 1), 3),
            queue=round(queue, 3),
            cold_start=cold,
            run=round(run * 1.9 * slower, 3),
            collect=0.16,
            delivery=None if place % 3 == 0 else 0.24 * slower,
            overhead=0.004,
        )
        p95 = run * 1.9 * slower + queue + (cold or 0)
        shown.append(
            shape.Latency(
                model=model,
                ended=900 // (place + 1),
                p50=round(run, 3),
                p95=round(p95, 3),
                deadline_misses=late.get(model, 0),
                phases=phases,
            )
        )
    return tuple(shown)


def pipeline_of(*stages: tuple[int, float | None]) -> tuple[shape.Stage, ...]:
    names = ("queued", "running", "collecting", "delivering")
    return tuple(
        shape.Stage(stage=name, count=count, oldest_seconds=oldest, ages=_ages(count, oldest))
        for name, (count, oldest) in zip(names, stages, strict=True)
    )


def _ages(count: int, oldest: float | None) -> tuple[int, int, int, int]:
    if oldest is None:
        return (0, 0, 0, 0)
    bounds = (10, 60, 600)
    oldest_place = sum(oldest > bound for bound in bounds)
    ages = [0, 0, 0, 0]
    left = count
    for place in range(oldest_place, 0, -1):
        ages[place] = max(1, left // 4)
        left -= ages[place]
    ages[0] = max(0, left)
    return (ages[0], ages[1], ages[2], ages[3])


def troubles_of(now: datetime, failed: str, rescued: str) -> tuple[shape.Trouble, ...]:
    def trouble(
        model: str, provider: str | None, code: str, count: int, example: str, owners: dict[str, int]
    ) -> shape.Trouble:
        return shape.Trouble(
            model=model,
            provider=provider,
            code=code,
            example=example,
            prediction=failed if provider is None else rescued,
            count=count,
            owners=owners,
            first_at=now - timedelta(minutes=11),
            last_at=now - timedelta(seconds=count % 13),
        )

    quota = "You have used all of this month's quota. Upgrade your plan, or wait until the first."
    broken = "502 Bad Gateway: upstream connect error or disconnect/reset before headers"
    nobody = "No offer is left for acme/voice: fal is out, elevenlabs has no credit"
    return (
        trouble("acme/voice", None, "no_candidate", 38, nobody, {"studio": 29, "mobile": 9}),
        trouble("acme/flux-dev", "fal", "server_error", 57, broken, {"web": 31, "batch": 20, "mobile": 6}),
        trouble("acme/voice", "elevenlabs", "wallet_empty", 12, quota, {"studio": 12}),
        trouble("acme/kling-video", "fal", "server_error", 6, broken, {"studio": 6}),
    )


def _happened(now: datetime, lines: list[tuple[float, str, str, str, str | None]]) -> tuple[shape.Happened, ...]:
    return tuple(
        shape.Happened(
            id=len(lines) - place,
            at=now - timedelta(seconds=ago),
            kind=kind,
            title=title,
            text=text,
            prediction=prediction,
            who="nora" if kind in ("forced", "redelivered") else None,
        )
        for place, (ago, kind, title, text, prediction) in enumerate(lines)
    )


def calm_timeline(now: datetime, rows: list[shape.Row]) -> tuple[shape.Happened, ...]:
    rescued = next(row for row in rows if row.is_rescued)
    return _happened(
        now,
        [
            (
                140,
                "rescued",
                f"{rescued.model} rescued by replicate",
                "fal answered 503, then it took 2.1 s",
                rescued.id,
            ),
            (
                141,
                "failover",
                f"{rescued.model} moved on from fal",
                "server_error: 503 Service Unavailable",
                rescued.id,
            ),
            (1_900, "recovered", "runpod is back", "5 of 5 probes succeeded", None),
            (2_160, "ejected", "runpod is out for 30 s", "timeouts: 4 of its last 6 attempts", None),
            (5_400, "reloaded", "Policies reloaded, version 4f1c9a0", "cheapest: prefers eu since this version", None),
            (
                7_300,
                "redelivered",
                "Webhook sent again to hooks.web.example",
                "the receiver was down for an hour",
                None,
            ),
            (33_120, "local", "Local backend is up", "real-esrgan and whisper on the CPU", None),
            (33_130, "started", "Turnout 0.1.0 started", "", None),
        ],
    )


def burning_timeline(now: datetime, failed: shape.Row, rescued: shape.Row) -> tuple[shape.Happened, ...]:
    lines: list[tuple[float, str, str, str, str | None]] = [
        (4, "rescued", f"{rescued.model} rescued by replicate", "fal is out", rescued.id),
        (9, "failover", f"{rescued.model} moved on from fal", "server_error: 502 Bad Gateway", rescued.id),
        (31, "ejected", "fal is out for 30 s", "9 of its last 12 attempts failed: server_error", None),
        (62, "failover", "acme/flux-dev moved on from fal", "server_error: 502 Bad Gateway", rescued.id),
        (96, "ejected", "elevenlabs is out for 30 min", "wallet_empty: the quota of this month is used up", failed.id),
        (180, "refused", "Policies refused, version 4f1c9a0 stays", "eu.toml, line 7: unknown key prefers", None),
        (425, "forced", "acme/flux-dev@together kept in", "they say it is fixed", None),
        (660, "ejected", "fal is out for 30 s", "6 of its last 12 attempts failed: server_error", None),
    ]
    calm = [(1_900.0, "recovered", "runpod is back", "5 of 5 probes succeeded", None)]
    return _happened(now, [*lines, *calm])


def audit_of(now: datetime) -> list[shape.AuditLine]:
    lines = (
        (425, "nora", "breaker.close", "acme/flux-dev@together", "they say it is fixed, watching it", "done"),
        (7_300, "nora", "prediction.redeliver", "00300x00044kq7wz3m9rc5tdfg"[:26], "receiver was down", "done"),
        (8_100, "ivo", "prediction.cancel", "00300x00091kq7wz3m9rc5tdfg"[:26], "wrong prompt", "already succeeded"),
    )
    return [
        shape.AuditLine(
            id=len(lines) - place,
            at=now - timedelta(seconds=ago),
            who=who,
            action=action,
            target=target,
            reason=reason,
            outcome=outcome,
        )
        for place, (ago, who, action, target, reason, outcome) in enumerate(lines)
    ]
