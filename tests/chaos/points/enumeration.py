"""All the points there are, and a gateway killed at each of them: which to hit is found by a run that hits none."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.judge import Verdict
from tests.chaos.listener import Listener
from tests.chaos.points.scenario import PROVIDERS, QUICK, Run
from tests.chaos.simulator_process import SimulatorProcess

HITS = (1, 2, 5)
SQLITE = "sqlite:///turnout-data/turnout.db"
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a whole enumeration found."""

    points: int = 0  # different names
    runs: int = 0
    crashed: int = 0  # runs that reached their point
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)  # by point and hit: the verdict

    def __str__(self) -> str:
        return (
            f"{self.points} points, {self.runs} runs, {self.crashed} killed at theirs, {len(self.broken)} violations, "
            f"{self.seconds:.0f} s"
        )


class Bench:
    """Where runs take place one after the other: a simulator and a listener that outlive them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> Bench:
        self._folder.mkdir(parents=True, exist_ok=True)
        named = [f"{name},seed={number},{QUICK},{more}" for number, (name, more) in enumerate(PROVIDERS.items())]
        self._simulator = self._stack.enter_context(SimulatorProcess(self._folder, *(one.strip(",") for one in named)))
        self._listener = self._stack.enter_context(Listener())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, *, store: str = SQLITE, crash_at: str = "", planted: str = "") -> tuple[Run, Verdict, Counter[str]]:
        """One run, in a folder that is gone afterwards unless something broke."""
        self._count += 1
        folder = self._folder / f"run-{self._count}"
        run = Run(folder, self._simulator, self._listener, store=store, crash_at=crash_at, planted=planted)
        verdict = asyncio.run(run.play())
        passed = Counter(run.points.read_text().split())
        if verdict.is_good:
            shutil.rmtree(folder)
        return run, verdict, passed


def targets(passed: Counter[str]) -> list[str]:
    """`name:n` of every point and hit that a run without a crash came by."""
    return [f"{name}:{hit}" for name, count in sorted(passed.items()) for hit in HITS if hit <= count]


def chosen(everything: Sequence[str], seed: int, count: int) -> list[str]:
    """A part that is another one for each seed, and the whole for enough of them."""
    shuffled = sorted(everything)
    random.Random(0).shuffle(shuffled)
    start = seed * count % len(shuffled) if shuffled else 0
    return [shuffled[(start + number) % len(shuffled)] for number in range(min(count, len(shuffled)))]


def enumerate_points(
    folder: Path,
    *,
    stores: Callable[[int], str] = lambda number: SQLITE,
    seed: int | None = None,
    most: int | None = None,
    only: Sequence[str] = (),
    at_once: int = 2,
    say: Say = lambda text: None,
) -> Outcome:
    """
    Kill a gateway at every point, at `most` of them, chosen by `seed`, or at `only` these (`name:n`).

    `stores` gives each run a fresh one.
    """
    began = time.monotonic()
    outcome = Outcome()
    lock, numbers = threading.Lock(), iter(range(1_000_000))
    with ExitStack() as stack:
        benches = [stack.enter_context(Bench(folder / f"bench-{number}")) for number in range(at_once)]
        _, verdict, passed = benches[0].run(store=stores(next(numbers)))
        if not verdict.is_good:
            outcome.broken["without a crash"] = str(verdict)
            return outcome
        everything = targets(passed)
        wanted = list(only) or (everything if most is None else chosen(everything, seed or 0, most))
        outcome.points = len({target.rpartition(":")[0] for target in wanted})
        waiting: Iterator[str] = iter(wanted)

        def work(bench: Bench) -> None:
            while True:
                with lock:
                    target, number = next(waiting, None), next(numbers)
                if target is None:
                    return
                run, verdict, _ = bench.run(store=stores(number), crash_at=target)
                with lock:
                    outcome.runs += 1
                    outcome.crashed += run.was_hit
                    if not verdict.is_good:
                        outcome.broken[target] = str(verdict)
                    reached = "killed" if run.was_hit else "not reached"
                    say(f"{target:60} {reached}{'' if verdict.is_good else ' BROKEN'}")

        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(work, bench) for bench in benches]:
                done.result()
    outcome.seconds = time.monotonic() - began
    return outcome
