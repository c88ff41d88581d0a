"""A provider that is dead from the beginning: what it costs those who are routed past it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.chaos.bars.place import Bar, Party, Place, quantile

DEAD = {
    "dead": Party("queue=0.01,median=0.2,sigma=0.2"),
    "well": Party("queue=0.01,median=0.2,sigma=0.2", price="0.01"),
}
LEAST_SHARE = 0.999
MOST_ADDED_SECONDS = 0.3
LEAST_OPEN_SECONDS = 12.0  # the shortest time a breaker stays open


def measure(folder: Path, *, predictions: int = 2_000) -> Bar:
    return asyncio.run(_measure(folder, predictions))


async def _measure(folder: Path, predictions: int) -> Bar:
    healthy = await _run(folder / "healthy", predictions // 4, is_dead=False)
    dead = await _run(folder / "dead", predictions, is_dead=True)
    share = dead.statuses["succeeded"] / predictions
    added = quantile(dead.seconds, 0.5) - quantile(healthy.seconds, 0.5)
    probes = dead.busiest_probes
    return Bar(
        "failover of a dead provider",
        share >= LEAST_SHARE and added <= MOST_ADDED_SECONDS and probes <= 1,
        f"{share:.2%} of {predictions} succeeded (99.9 % asked), p50 {added * 1000:+.0f} ms (300 asked), "
        f"{probes} probe per interval",
        {
            "attempts at the dead one": dead.at_dead,
            "until the one that served began, p99": f"{quantile(dead.seconds, 0.99):.2f} s",
        },
    )


class _Found:
    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.at_dead = 0
        self.busiest_probes = 0


async def _run(folder: Path, predictions: int, *, is_dead: bool) -> _Found:
    found = _Found()
    with Place(folder, DEAD) as place:
        if is_dead:
            place.control("dead", "down")
        place.gateway.start()
        callers = place.callers(predictions)
        await callers.post_all(clients=12, pause_seconds=0.02)
        await callers.read_ends(seconds=120)
        kept = await place.kept()
    for one in callers.accepted:
        found.statuses[str(one.shown.get("status"))] += 1
    for prediction in (one.prediction for one in kept.values()):
        if prediction.serving is not None:
            # What the job itself takes is not failover's doing.
            found.seconds.append((prediction.serving.begun_at - prediction.created_at).total_seconds())
    begun = sorted(
        attempt.begun_at.timestamp()
        for one in kept.values()
        for attempt in one.prediction.attempts
        if attempt.provider == "dead"
    )
    found.at_dead = len(begun)
    if is_dead and begun:
        # Those that were under way when it opened came with the first; what comes later is a probe.
        probes = [moment for moment in begun if moment > begun[0] + 3.0]
        found.busiest_probes = max(
            (sum(1 for other in probes if at <= other < at + LEAST_OPEN_SECONDS) for at in probes), default=0
        )
    return found
