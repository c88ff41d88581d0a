"""No callback ever arrives: the poll is the guarantee."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from tests.chaos.bars.place import Bar, Party, Place, quantile

RUN_SECONDS = 1.0
MOST_P50_SECONDS, MOST_P99_SECONDS = 5.0, 10.0


def measure(folder: Path, *, predictions: int = 500) -> Bar:
    return asyncio.run(_measure(folder, predictions))


async def _measure(folder: Path, predictions: int) -> Bar:
    mute = {"mute": Party(f"queue=0.02,median={RUN_SECONDS},sigma=0.4,lost_webhook=1")}
    with Place(folder, mute) as place:
        place.gateway.start()
        callers = place.callers(predictions)
        await callers.post_all(clients=16, pause_seconds=0.05)
        left = await callers.read_ends(seconds=120)
        jobs = {job["input_sha256"]: job for job in place.simulator.books("mute")}
        kept = await place.kept()
    ended = [one for one in kept.values() if one.prediction.status == "succeeded"]
    ends = {job["id"]: datetime.fromisoformat(job["completed_at"]) for job in jobs.values()}
    added = [
        (one.prediction.completed_at - ends[attempt.handle["id"]]).total_seconds()
        for one in ended
        for attempt in one.prediction.attempts
        if attempt.handle is not None and one.prediction.completed_at is not None and attempt.handle["id"] in ends
    ]
    p50, p99 = quantile(added, 0.5), quantile(added, 0.99)
    return Bar(
        "every webhook of a provider lost",
        not left and len(ended) == predictions and p50 <= MOST_P50_SECONDS and p99 <= MOST_P99_SECONDS,
        f"{len(ended)} of {predictions} ended by poll, {p50:.1f} s (p50) and {p99:.1f} s (p99) after the job "
        f"({MOST_P50_SECONDS:.0f} and {MOST_P99_SECONDS:.0f} asked)",
    )
