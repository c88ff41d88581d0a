"""All providers of a model were away, and a thousand predictions waited: how they come back, at each and in all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from tests.chaos.bars.place import Bar, Party, Place, busiest, per_second, quantile

MOST_DRAINED_SECONDS = 60.0
MOST_PEAK = 2.0
# Of different sizes: who is small shall not be sent what the large one can take.
LIMITS = {"large": 30, "middle": 20, "small": 10}
RUN_SECONDS = 1.0
STEADY_SECONDS = 8  # so long there is work for every slot, to see what the limits let through
VICTIMS = 24  # find the providers dead before anything waits: some of them try each, and fail


def measure(folder: Path, *, predictions: int = 1_000, limits: Mapping[str, int] | None = None) -> Bar:
    """The steady limit: what a provider, or all together, are sent in a second while each `concurrency` is used up."""
    return asyncio.run(_measure(folder, predictions, limits or LIMITS))


async def _measure(folder: Path, predictions: int, limits: Mapping[str, int]) -> Bar:
    behaviour = f"queue=0.01,median={RUN_SECONDS:g},sigma=0.1"
    with Place(folder, {name: Party(behaviour, concurrency=limit) for name, limit in limits.items()}) as place:
        place.gateway.start()
        before = place.callers(STEADY_SECONDS * sum(limits.values()), hooks="/before")
        await before.post_all(clients=32)
        await before.read_ends(seconds=120)
        busy = {name: _made(place, name) for name in limits}
        for name in limits:
            place.control(name, "down")
        victims = place.callers(VICTIMS, hooks="/victim")
        await victims.post_all(clients=8)
        herd = place.callers(predictions)
        await herd.post_all(clients=32)
        waiting = predictions - len([one for one in herd.accepted if place.listener.told(one.hook)])
        up_at = datetime.now(UTC).timestamp()
        for name in limits:
            place.control(name, "up")
        await herd.read_ends(seconds=240)
        back = {name: _made(place, name)[len(made) :] for name, made in busy.items()}
        order = [
            (one.prediction.created_at, one.prediction.attempts[-1].begun_at)
            for one in (await place.kept()).values()
            if one.prediction.attempts and one.prediction.request.webhook and "/hook/" in one.prediction.request.webhook
        ]
    succeeded = sum(1 for one in herd.accepted if one.shown.get("status") == "succeeded")
    everywhere = sorted(chain(*back.values()))
    total = _peak(sorted(chain(*busy.values())), everywhere)
    peaks = {name: _peak(busy[name], back[name]) for name in limits}
    drained = everywhere[-1] - everywhere[0] if everywhere else 0.0
    return Bar(
        f"{predictions} that waited while all {len(limits)} providers were away",
        waiting >= 0.99 * predictions
        and succeeded >= waiting
        and all(peak <= MOST_PEAK * steady for peak, steady in (total, *peaks.values()))
        and drained <= MOST_DRAINED_SECONDS,
        f"{waiting} waited; the busiest second brought {_said(total)} in all, {_each(peaks)} ({MOST_PEAK:.0f} times "
        f"the steady limit asked); drained in {drained:.0f} s ({MOST_DRAINED_SECONDS:.0f} asked)",
        {
            "steady limit": f"submits in the median second while {_each(limits)} attempts were in flight",
            "succeeded": succeeded,
            "first submit": f"{everywhere[0] - up_at:.0f} s after the return" if everywhere else "never",
            "by age": f"{_order(order):.0%}",
            "by second": per_second(everywhere)[:40],
        },
    )


def _made(place: Place, name: str) -> list[float]:
    return sorted(datetime.fromisoformat(job["created_at"]).timestamp() for job in place.simulator.books(name))


def _peak(busy: Sequence[float], back: Sequence[float]) -> tuple[int, float]:
    """Submits in the busiest second of the return, whichever it is; and the steady limit."""
    # The first and the last second are no whole ones.
    return busiest(back), quantile([float(count) for count in per_second(busy)[1:-1]], 0.5)


def _said(peak: tuple[int, float]) -> str:
    return f"{peak[0]} submits of {peak[1]:.0f}/s ({peak[0] / max(peak[1], 1):.2f})"


def _each(found: Mapping[str, tuple[int, float] | int]) -> str:
    return ", ".join(f"{name} {one if isinstance(one, int) else _said(one)}" for name, one in found.items())


def _order(pairs: list[tuple[datetime, datetime]]) -> float:
    """Share of neighbours in age that began in that order."""
    begun = [at for _, at in sorted(pairs)]
    pairs_in_order = sum(1 for one, other in zip(begun, begun[20:], strict=False) if one <= other)
    return pairs_in_order / max(len(begun) - 20, 1)
