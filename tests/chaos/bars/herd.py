"""Every provider was away, and a thousand predictions waited: how they come back."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from tests.chaos.bars.place import Bar, Party, Place, busiest, per_second, quantile

MOST_DRAINED_SECONDS = 60.0
MOST_PEAK = 2.0


def measure(folder: Path, *, predictions: int = 1_000, concurrency: int = 20, median: float = 0.4) -> Bar:
    """The steady limit is what the provider is sent in a second while its `concurrency` is used up."""
    return asyncio.run(_measure(folder, predictions, concurrency, median))


async def _measure(folder: Path, predictions: int, concurrency: int, median: float) -> Bar:
    party = {"only": Party(f"queue=0.01,median={median},sigma=0.1", concurrency=concurrency)}
    with Place(folder, party) as place:
        place.gateway.start()
        before = place.callers(max(concurrency * 12, 200), hooks="/before")
        await before.post_all(clients=concurrency * 2)
        await before.read_ends(seconds=120)
        steady_jobs = _made(place)
        # The first and the last second are no whole ones.
        steady = quantile([float(count) for count in per_second(steady_jobs)[1:-1]], 0.5)
        place.control("only", "down")
        herd = place.callers(predictions)
        await herd.post_all(clients=32)
        waiting = predictions - len([one for one in herd.accepted if place.listener.told(one.hook)])
        place.control("only", "up")
        await herd.read_ends(seconds=240)
        back = _made(place)[len(steady_jobs) :]
        order = [
            (one.prediction.created_at, one.prediction.attempts[-1].begun_at)
            for one in (await place.kept()).values()
            if one.prediction.attempts and one.prediction.request.webhook and "/hook/" in one.prediction.request.webhook
        ]
    succeeded = sum(1 for one in herd.accepted if one.shown.get("status") == "succeeded")
    peak, drained = busiest(back), max(back) - min(back) if back else 0.0
    return Bar(
        "a thousand that waited for every provider",
        waiting >= 0.9 * predictions
        and succeeded >= waiting
        and peak <= MOST_PEAK * steady
        and drained <= MOST_DRAINED_SECONDS,
        f"{waiting} waited, peak {peak} submits/s, steady limit {steady:.0f} ({peak / max(steady, 1):.2f} of it, "
        f"{MOST_PEAK:.0f} asked), drained in {drained:.0f} s ({MOST_DRAINED_SECONDS:.0f} asked)",
        {"succeeded": succeeded, "by age": f"{_order(order):.0%}", "by second": per_second(back)[:40]},
    )


def _made(place: Place) -> list[float]:
    return sorted(datetime.fromisoformat(job["created_at"]).timestamp() for job in place.simulator.books("only"))


def _order(pairs: list[tuple[datetime, datetime]]) -> float:
    """Share of neighbours in age that began in that order."""
    begun = [at for _, at in sorted(pairs)]
    pairs_in_order = sum(1 for one, other in zip(begun, begun[20:], strict=False) if one <= other)
    return pairs_in_order / max(len(begun) - 20, 1)
