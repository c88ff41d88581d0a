"""A gateway that starts over ten thousand open predictions: when it serves, and when it drives them all again."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import RandomIds, hash_token
from gateway.contract.prediction import Prediction, Request, Status
from tests.chaos.bars.place import Bar, Party, Place, busiest, quantile
from tests.chaos.evidence import opened

MOST_READY_SECONDS = 2.0
MOST_RESUMED_SECONDS = 10.0
MOST_WAIT_SECONDS = 60.0
JOBS = 20  # that run for ever; what is under way is shared among them
PARTIES = {"calm": Party("queue=0.01,median=0.5,sigma=0.1", concurrency=50), "endless": Party("hang=1", concurrency=1)}
_BACKLOG = re.compile(r'^turnout_backlog\w*\{[^}]*state="(?!delivering)[^}]*\} (\S+)$', re.MULTILINE)


def measure(folder: Path, *, predictions: int = 10_000, restarts: int = 8, store: str = "sqlite") -> Bar:
    return asyncio.run(_measure(folder, predictions, restarts, store))


async def _measure(folder: Path, predictions: int, restarts: int, store: str) -> Bar:
    with Place(folder, PARTIES, store=store, is_fresh=True) as place:
        place.gateway.start()
        version = _version(place)
        place.gateway.stop()  # the store is made, and empty
        await _fill(place, await _jobs(place), predictions, version)
        ready: list[float] = []
        resumed: list[float] = []
        busy: list[float] = []
        started: list[float] = []
        for _ in range(restarts):
            began, wall = time.monotonic(), datetime.now(UTC)
            await asyncio.to_thread(place.gateway.start, seconds=60)
            ready.append(time.monotonic() - began)
            busy.append(_cpu_seconds(place.gateway.pid))
            resumed.append(await _resumed(place, began, least=0.9 * predictions))
            place.gateway.kill()
            started += [at for at in _made(place) if at >= wall.timestamp()]
    p95, slowest, rush = quantile(ready, 0.95), max(resumed), busiest(started)
    return Bar(
        f"restart over {predictions} open predictions, {store}",
        p95 <= MOST_READY_SECONDS and slowest <= MOST_RESUMED_SECONDS,
        f"ready in {p95:.2f} s (p95 of {restarts}, {MOST_READY_SECONDS:.0f} asked), all resumed in {slowest:.1f} s "
        f"({MOST_RESUMED_SECONDS:.0f} asked)",
        {
            "ready p50": f"{quantile(ready, 0.5):.2f} s",
            "of its own processor time": f"{quantile(busy, 0.5):.2f} s",
            "resumed p50": f"{quantile(resumed, 0.5):.1f} s",
            "resumed": "all" if slowest < MOST_WAIT_SECONDS else "not all",
            "most submits in a second": rush,
        },
    )


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


async def _fill(place: Place, jobs: Sequence[str], count: int, version: str) -> None:
    """Half of them have a job that runs, half have not begun."""
    ids, slots = RandomIds(), asyncio.Semaphore(64)
    now = datetime.now(UTC)
    async with opened(place.gateway.folder, place.environ) as store:

        async def put(number: int) -> None:
            async with slots:
                at = now - timedelta(seconds=(count - number) / 100)
                await store.create(_prediction(ids, at, number, jobs[number % len(jobs)], version))

        await asyncio.gather(*(put(number) for number in range(count)))


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


async def _resumed(place: Place, began: float, *, least: float) -> float:
    """Seconds until the gateway says that it holds them: those it has ended meanwhile are the tenth that may lack."""
    async with httpx.AsyncClient(base_url=place.gateway.url, trust_env=False, timeout=30) as client:
        while time.monotonic() - began < MOST_WAIT_SECONDS:
            held = sum(float(count) for count in _BACKLOG.findall((await client.get("/metrics")).text))
            if held >= least:
                break
            await asyncio.sleep(0.5)  # with so many in hand an answer is work
    return time.monotonic() - began


def _made(place: Place) -> list[float]:
    return sorted(datetime.fromisoformat(job["created_at"]).timestamp() for job in place.simulator.books("calm"))
