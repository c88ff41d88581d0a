"""Many universes by many processes: their seeds, their sum, and whether it is enough. One universe is `universe`."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from typing import Any

import msgspec

from tests.chaos.universe import edge, fate
from tests.chaos.universe.play import Report, play

# Each fault and each edge at least so often in so many universes; in fewer, in proportion, less what chance may take.
ENOUGH = 100
OF_UNIVERSES = 2_000
SEEDS_APART = 1_000_000
UNIVERSES_PER_PROCESS = 500
_PROGRESS_SECONDS = 10.0


class Sum(msgspec.Struct, kw_only=True):
    """What a run came to."""

    store: str
    seed: int
    universes: int = 0
    predictions: int = 0
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    violations: int = 0
    broken: list[Report] = msgspec.field(default_factory=list)

    def add(self, report: Report) -> None:
        self.universes += 1
        self.predictions += report.predictions
        self.virtual_seconds += report.virtual_seconds
        self.counts.update(report.counts)
        self.violations += len(report.violations)
        if report.violations:
            self.broken.append(report)

    @property
    def faults(self) -> int:
        return sum(self.counts[name] for name in fate.faults(self.store))

    @property
    def edges(self) -> int:
        return sum(self.counts[name] for name in edge.names())

    def missed(self) -> dict[str, int]:
        """What did not come to pass often enough for a run of this size, and how often it did."""
        enough = ENOUGH * min(1.0, self.universes / OF_UNIVERSES)
        if self.universes < OF_UNIVERSES:
            enough -= 2 * math.sqrt(enough)  # chance weighs more in a short run
        names = (*fate.faults(self.store), *edge.names())
        return {name: self.counts[name] for name in names if self.counts[name] < enough}

    def last_line(self) -> str:
        return (
            f"universes={self.universes} predictions={self.predictions} faults={self.faults} edges={self.edges} "
            f"violations={self.violations} seconds={self.seconds:.0f} store={self.store} seed={self.seed}"
        )


def seeds(seed: int, universes: int, *, first: int = 0) -> range:
    return range(seed * SEEDS_APART + first, seed * SEEDS_APART + first + universes)


def run(
    *,
    universes: int,
    seed: int,
    first: int = 0,
    store: str = "sqlite",
    jobs: int = 1,
    seconds: float | None = None,
    heard: Callable[[Report], None] = lambda report: None,
) -> Sum:
    """Play them from the `first` on, or as many as fit into `seconds`. `heard` is told of each as it ends."""
    begun = time.monotonic()
    end = begun + seconds if seconds is not None else math.inf
    total = Sum(store=store, seed=seed)
    said = begun
    for report in _reports(seeds(seed, universes, first=first), store, jobs, end):
        total.add(report)
        heard(report)
        now = time.monotonic()
        if now - said > _PROGRESS_SECONDS:
            said = now
            rate = total.universes / (now - begun)
            sys.stderr.write(f"{total.universes} universes, {rate:.1f} a second, {total.violations} violations\n")
    total.seconds = time.monotonic() - begun
    return total


def _reports(seeds: range, store: str, jobs: int, end: float) -> Iterator[Report]:
    if jobs == 1:
        with _server(store) as server:
            for seed in seeds:
                if time.monotonic() > end:
                    return
                yield play(seed, store=store, server=server)
        return
    context = multiprocessing.get_context("spawn")
    queue: Queue[Any] = context.Queue()
    shares = _shares(seeds, jobs)
    workers: list[SpawnProcess] = []

    def begin() -> None:
        share = next(shares, None)
        left = end - time.monotonic()
        if share and left > 0:
            workers.append(context.Process(target=_work, args=(share, store, left, queue), daemon=True))
            workers[-1].start()

    for _ in range(jobs):
        begin()
    ended = 0
    while ended < len(workers):
        report = queue.get(timeout=600)
        if isinstance(report, str):
            raise RuntimeError(f"a process that plays universes failed: {report}")  # noqa: TRY004 - it is what another process raised
        if report is None:
            ended += 1
            begin()
        else:
            yield report
    for worker in workers:
        worker.join()


def _shares(seeds: range, jobs: int) -> Iterator[range]:
    """What one process plays after the other: a killed gateway's frames may stay for as long as its process."""
    for first in range(0, len(seeds), jobs * UNIVERSES_PER_PROCESS):
        block = seeds[first : first + jobs * UNIVERSES_PER_PROCESS]
        yield from (block[turn::jobs] for turn in range(jobs))


def _work(seeds: range, store: str, seconds: float, queue: Queue[Any]) -> None:
    end = time.monotonic() + seconds
    try:
        with _server(store) as server:
            for seed in seeds:
                if time.monotonic() > end or not _is_wanted():
                    break
                queue.put(play(seed, store=store, server=server))
    except BaseException as error:
        queue.put(f"{type(error).__name__}: {error}")
        raise
    queue.put(None)


def _is_wanted() -> bool:
    """Whoever began this process is there to hear of it."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _server(store: str) -> AbstractContextManager[Any]:
    """What a store needs beside itself."""
    if store != "redis":
        return nullcontext()
    from tests.chaos.universe.redis_store import server

    return server()


def play_one(seed: int, store: str) -> Report:
    with _server(store) as server:
        return play(seed, store=store, server=server, with_trace=True)
