"""Predictions of a seeded hour as lines of the list. Knows nothing of the overview."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta

from gateway.dashboard import shape

KEYS = ("web", "studio", "batch", "mobile")
SERVED = {
    "acme/flux-dev": ("fal", "replicate", "together", "runpod"),
    "acme/real-esrgan": ("replicate", "runpod", "local"),
    "acme/kling-video": ("fal", "replicate"),
    "acme/whisper": ("deepinfra", "together", "local"),
    "acme/voice": ("elevenlabs", "fal"),
    "acme/chat": ("together", "deepinfra", "local"),
}
PROVIDERS = ("fal", "replicate", "together", "runpod", "deepinfra", "elevenlabs", "local")
RUN_SECONDS = {
    "acme/flux-dev": 2.4,
    "acme/real-esrgan": 1.1,
    "acme/kling-video": 61.0,
    "acme/whisper": 3.2,
    "acme/voice": 0.9,
    "acme/chat": 1.6,
}
NANOS = {
    "acme/flux-dev": 3_100_000,
    "acme/real-esrgan": 740_000,
    "acme/kling-video": 280_000_000,
    "acme/whisper": 1_240_000,
    "acme/voice": 12_000_000,
    "acme/chat": 86_000,
}


def rows_of(now: datetime, number: int, *, failing: float = 0.01) -> list[shape.Row]:
    """Newest first, some still open, one in thirty rescued."""
    chance = random.Random(number)
    at = now
    rows = []
    for index in range(number):
        at -= timedelta(seconds=chance.expovariate(1 / 2.8))
        rows.append(_row(chance, index, number, at, now, failing))
    return rows


def _row(chance: random.Random, index: int, number: int, at: datetime, now: datetime, failing: float) -> shape.Row:
    model = chance.choices(tuple(SERVED), weights=(46, 18, 3, 11, 9, 13))[0]
    seconds = RUN_SECONDS[model] * math.exp(chance.gauss(0, 0.3))
    is_open = (now - at).total_seconds() < seconds or index in (1, 4)
    is_rescued = not is_open and index % 30 == 7
    is_failed = not is_open and not is_rescued and chance.random() < failing
    provider = SERVED[model][1 if is_rescued else 0]
    status = "processing" if is_open else "failed" if is_failed else "succeeded"
    if index == 0:
        status = "starting"
    return shape.Row(
        id=f"{number:05d}x{index:05d}kq7wz3m9rc5tdfg"[:26],
        model=model,
        status=status,
        owner=chance.choice(KEYS),
        source="api",
        created_at=at,
        completed_at=None if is_open else at + timedelta(seconds=seconds),
        seconds=(now - at).total_seconds() if is_open else round(seconds, 3),
        provider=None if status == "starting" else provider,
        attempts=2 if is_rescued else 0 if status == "starting" else 1,
        is_rescued=is_rescued,
        is_fallback=provider == "local",
        nanos=None if is_open else 0 if is_failed else round(NANOS[model] * chance.uniform(0.9, 1.1)),
        is_cost_known=not is_open,
        basis="unknown" if is_open else "computed",
        error_code="model_failed" if is_failed else None,
        error="CUDA out of memory: tried to allocate 2.50 GiB" if is_failed else None,
        output=() if is_open or is_failed else _output(model, index),
    )


_SAID = (
    "The kite climbed over the hill, and the children ran after its shadow.",
    "Three things matter here: the price, the time, and who is told when it fails.",
    "Good evening. This is the late train to the coast; please mind the gap.",
)


def _output(model: str, index: int) -> tuple[shape.Shown, ...]:
    def link(name: str) -> str:
        return f"/artifacts/{'k' * 12}{index:08d}/{name}"

    if model in ("acme/flux-dev", "acme/real-esrgan"):
        picture = shape.Shown(kind="image", url=link("out.png"), content_type="image/png", size_bytes=181_204)
        return (picture,) * (4 if index % 17 == 3 else 1)
    if model == "acme/kling-video":
        return (shape.Shown(kind="video", url=link("out.mp4"), content_type="video/mp4", size_bytes=4_810_233),)
    if model == "acme/voice":
        return (shape.Shown(kind="audio", url=link("out.wav"), content_type="audio/wav", size_bytes=16_044),)
    return (shape.Shown(kind="text", text=_SAID[index % len(_SAID)]),)
