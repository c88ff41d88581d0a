"""A gateway that starts over ten thousand open predictions: when it serves, and when it drives them all again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import RandomIds, hash_token
from gateway.contract.prediction import Prediction, Request, Status
from tests.chaos.bars.holding import Rows
from tests.chaos.bars.place import Bar, Party, Place, busiest, quantile
from tests.chaos.evidence import opened
from tests.waiting import until

MOST_READY_SECONDS = 2.0
MOST_RESUMED_SECONDS = 10.0
MOST_WAIT_SECONDS = 60.0
LEASE_SECONDS = 6.0  # on Redis the dead one's lease must be over first, by whatever it is set to
JOBS = 20  # that run for ever; what is under way is shared among them
PARTIES = {"calm": Party("queue=0.01,median=0.5,sigma=0.1", concurrency=50), "endless": Party("hang=1", concurrency=1)}


def measure(folder: Path, *, predictions: int = 10_000, restarts: int = 8, store: str = "sqlite") -> Bar:
    """
    Ready: /readyz says so. Resumed: the new process holds the prediction, by the store's own row and under a lease of
    its own that has not ended, or the prediction has ended since. Not submitted: that is for the providers' limits.
    """
    return asyncio.run(_measure(folder, predictions, restarts, store))


@dataclass
class _Start:
    """One start over a whole backlog. Seconds since the process was begun."""

    ready: float
    ready_busy: float  # of processor time
    resumed: float = 0.0  # when the last was
    resumed_busy: float = 0.0
    left: int = 0  # that were not resumed when the time was over


async def _measure(folder: Path, predictions: int, restarts: int, store: str) -> Bar:
    with Place(folder, PARTIES, store=store, is_fresh=True, lease_seconds=LEASE_SECONDS) as place:
        place.gateway.start()
        version = _version(place)
        place.gateway.stop()  # the store is made, and empty
        jobs, ids, starts = await _jobs(place), set[str](), list[_Start]()
        for _ in range(restarts):
            # Whole again: what the last one brought to its end is made anew.
            ids -= place.rows.settled(ids, set())
            ids |= await _fill(place, jobs, predictions - len(ids), version)
            if store == "redis":
                await asyncio.to_thread(until, lambda: not place.rows.living(), seconds=2 * LEASE_SECONDS)
            starts.append(await _start(place, ids))
            place.gateway.kill()
        rush = busiest(_made(place))
    ready, resumed = [one.ready for one in starts], [one.resumed for one in starts]
    p95, slowest, left = quantile(ready, 0.95), max(resumed), max(one.left for one in starts)
    return Bar(
        f"restart over {predictions} open predictions, {store}",
        p95 <= MOST_READY_SECONDS and slowest <= MOST_RESUMED_SECONDS and not left,
        f"ready in {p95:.2f} s (p95 of {restarts}, {MOST_READY_SECONDS:.0f} asked), "
        f"{'each' if not left else f'all but {left}'} of {predictions} held by the new process in {slowest:.1f} s "
        f"({MOST_RESUMED_SECONDS:.0f} asked)",
        {
            "ready p50": _both(ready, [one.ready_busy for one in starts]),
            "last one held p50": _both(resumed, [one.resumed_busy for one in starts]),
            "not held": left,
            "most submits in a second": rush,
        }
        | ({"lease of the dead one": f"{LEASE_SECONDS:.0f} s, over before each start"} if store == "redis" else {}),
    )


async def _start(place: Place, ids: set[str]) -> _Start:
    elders, began = place.rows.living(), time.monotonic()
    await asyncio.to_thread(place.gateway.start, seconds=60)
    start = _Start(time.monotonic() - began, _cpu_seconds(place.gateway.pid))
    left = ids
    while left and start.resumed < MOST_WAIT_SECONDS:
        await asyncio.sleep(0.1)
        left = await asyncio.to_thread(_left, place.rows, ids, elders)
        start.resumed = time.monotonic() - began
    start.resumed_busy = _cpu_seconds(place.gateway.pid)
    start.left = len(left and ids - place.rows.settled(ids, place.rows.living() - elders))
    return start


def _left(rows: Rows, ids: set[str], elders: set[str]) -> set[str]:
    """Those that have not been resumed. Row by row only in the end: that takes time from the one that is looked at."""
    workers = rows.living() - elders
    return ids if rows.waiting(workers) else ids - rows.settled(ids, workers)


def _both(walls: Sequence[float], busy: Sequence[float]) -> str:
    return f"{quantile(walls, 0.5):.2f} s, of processor time {quantile(busy, 0.5):.2f} s"


def _cpu_seconds(pid: int) -> float:
    """What a process has computed: on a machine with other work it says more than a clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _version(place: Place) -> str:
    with place.gateway.client() as client:
        return str(client.get("/v1/models/acme/echo").raise_for_status().json()["latest_version"]["id"])


async def _jobs(place: Place) -> list[str]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        url = f"{place.simulator.urls['endless']}/predictions"
        answers = [await client.post(url, json={"version": "a" * 64, "input": {"n": n}}) for n in range(JOBS)]
    return [answer.raise_for_status().json()["id"] for answer in answers]


async def _fill(place: Place, jobs: Sequence[str], count: int, version: str) -> set[str]:
    """Half of them have a job that runs, half have not begun. Their ids."""
    ids, slots = RandomIds(), asyncio.Semaphore(64)
    now = datetime.now(UTC)
    made = [
        _prediction(ids, now - timedelta(seconds=(count - number) / 100), number, jobs[number % len(jobs)], version)
        for number in range(count)
    ]
    async with opened(place.gateway.folder, place.environ) as store:

        async def put(one: Prediction) -> None:
            async with slots:
                await store.create(one)

        await asyncio.gather(*map(put, made))
    return {one.id for one in made}


def _prediction(ids: RandomIds, at: datetime, number: int, job: str, version: str) -> Prediction:
    request = Request(
        model="acme/echo",
        version=version,
        is_pinned=False,
        input={"n": number, "text": "x" * 200},
    )
    made = Prediction(
        id=ids.prediction(),
        owner="app",
        request=request,
        created_at=at,
        deadline_at=at + timedelta(hours=1),
        stream_token=ids.token(),
    )
    if number % 2:
        return made
    attempt = Attempt(
        number=1,
        offer="acme/echo@endless",
        provider="endless",
        remote="acme/echo",
        version=request.version,
        token_hash=hash_token(ids.token()),
        begun_at=at,
        deadline_at=made.deadline_at,
        status=AttemptStatus.RUNNING,
        handle={"id": job},
        accepted_at=at,
        running_at=at,
    )
    return replace(made, attempts=(attempt,), status=Status.PROCESSING, started_at=at, revision=2)


def _made(place: Place) -> list[float]:
    return sorted(datetime.fromisoformat(job["created_at"]).timestamp() for job in place.simulator.books("calm"))
