"""
Processes race for one budget: each drives real predictions over one Redis, and some are killed on the way.

`python -m tests.bench.routing.budget_race [--processes 8] [--predictions 10000] [--kills 4] [--seed 1]`

The provider keeps books of its own, in a file, before it answers: what it billed is what was spent, whatever the store
says of it. Prints what was billed beside what was counted, and exits 1 if any budget was overspent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from gateway.contract.body import prediction_bytes
from gateway.contract.budget import Spending, read_counter
from gateway.contract.clock import RandomIds
from gateway.contract.errors import ModelFailed, NotSent, OutcomeUnknown
from gateway.contract.fact import Fact, Phase
from gateway.contract.model import Model, Version
from gateway.contract.money import NANOS, Cost, CostBasis, Price, format_dollars
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request
from gateway.contract.provider import Call, Cancel, Cancellation, Capabilities, Sighting
from gateway.contract.route import Offer
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.lifecycle import reduce
from gateway.engine.parts import Parts
from gateway.engine.seam import Link
from gateway.engine.worker import Leasing
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.store.protocol import Search
from gateway.store.redis import RedisStore
from gateway.testing import START
from gateway.testing.provider import Actor
from policies.document import Budget, Limits, Policy, Rank
from tests.redis.line import line_to
from tests.redis.server import RedisServer

CENT = NANOS // 100
PRICES = (1, 2, 3, 5, 8)  # cents, a model each
KEYS = ("red", "green", "blue", "grey")
VERSION = "f" * 64
AT_ONCE = 24  # predictions of one process
DEADLINE_SECONDS = 3.0  # what became unknown is given up then
TAIL_SECONDS = 90.0
# Of the demand, at full price: what a key may spend, and what all of them may.
KEY_SHARE, ALL_SHARE = 0.11, 0.43


class Sizes(NamedTuple):
    processes: int
    predictions: int
    kills: int
    seed: int

    @property
    def demand_nanos(self) -> int:
        return self.predictions * sum(PRICES) * CENT // len(PRICES)

    @property
    def budgets(self) -> tuple[Budget, Budget]:
        return (
            Budget(name="key", by="key", per="month", limit=_dollars(self.demand_nanos * KEY_SHARE)),
            Budget(name="all", per="month", limit=_dollars(self.demand_nanos * ALL_SHARE)),
        )


class Outcome(NamedTuple):
    sizes: Sizes
    seconds: float
    killed: int
    statuses: Counter[str]
    billed: Counter[str]  # nano-dollars by key, as the provider's books have it
    spending: list[Spending]

    @property
    def overspend_nanos(self) -> int:
        """By which a budget was passed at most: by the books, or by what was counted."""
        most = 0
        for row in self.spending:
            of = read_counter(row.counter).of
            billed = self.billed[of] if of else self.billed.total()
            most = max(most, billed - row.limit_nanos, row.settled_nanos + row.reserved_nanos - row.limit_nanos)
        return most

    @property
    def uncounted_nanos(self) -> int:
        """Billed, and neither settled nor set aside."""
        counted = {read_counter(row.counter).of: row.settled_nanos + row.reserved_nanos for row in self.spending}
        short = [nanos - counted.get(key, 0) for key, nanos in self.billed.items()]
        return max(0, *short, self.billed.total() - counted.get("", 0))

    def __str__(self) -> str:
        head = (
            f"{self.sizes.processes} processes, {self.statuses.total()} predictions, {self.killed} kills,"
            f" {self.seconds:.0f} s: " + ", ".join(f"{count} {name}" for name, count in self.statuses.most_common())
        )
        lines = [head, f"{'budget':10} {'limit':>12} {'billed':>12} {'settled':>12} {'set aside':>12} {'left':>12}"]
        for row in self.spending:
            of = read_counter(row.counter).of
            left = row.limit_nanos - row.settled_nanos - row.reserved_nanos
            billed = self.billed[of] if of else self.billed.total()
            figures = (row.limit_nanos, billed, row.settled_nanos, row.reserved_nanos)
            lines.append(
                f"{of or 'all':10} "
                + " ".join(f"{nanos / NANOS:12.4f}" for nanos in figures)
                + f" {left / NANOS:12.4f}"
            )
        over, uncounted = format_dollars(self.overspend_nanos), format_dollars(self.uncounted_nanos)
        return "\n".join([*lines, f"overspend {over}; billed and not counted {uncounted}"])


def _dollars(nanos: float) -> str:
    return f"{int(nanos) // CENT / 100:.2f}"


# -- one process ------------------------------------------------------------------------------------------------------


class Biller(Actor):
    """Answers at once, now and then badly. What it bills stands in the books before anybody hears of it."""

    def __init__(self, books: Path, draw: random.Random) -> None:
        super().__init__("race", Capabilities(modes=frozenset({"sync"}), cancel=Cancel.NONE, pollable=False))
        self._books = os.open(books, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._draw = draw
        self._jobs = 0

    async def submit(self, call: Call, *, on_fact: Any = None, may_send: Callable[[], bool] | None = None) -> Fact:
        luck = self._draw.random()
        if luck < 0.04:
            raise NotSent("connection refused")
        price = PRICES[int(call.name)] * CENT
        nanos = 0 if luck < 0.10 else int(price * self._draw.choice((0.4, 0.75, 1.0, 1.0)))
        os.write(self._books, f"{call.input['key']} {nanos}\n".encode())
        await asyncio.sleep(0.03 * self._draw.random())
        if luck > 0.996:
            raise OutcomeUnknown("the answer was lost")
        self._jobs += 1
        handle, cost = {"id": f"{os.getpid()}-{self._jobs}"}, Cost(nanos=nanos, basis=CostBasis.REPORTED)
        if nanos == 0:
            return Fact(phase=Phase.FAILED, handle=handle, failure=ModelFailed("out of memory").failure, cost=cost)
        return Fact(phase=Phase.SUCCEEDED, handle=handle, output="done", cost=cost)

    async def poll(self, handle: dict[str, str]) -> Fact:
        raise NotImplementedError

    async def cancel(self, handle: dict[str, str]) -> Cancellation:
        return Cancellation.UNSUPPORTED

    async def find(self, submits: Any) -> list[Sighting]:
        return [Sighting() for _ in submits]


class Passing:
    """Inputs and results without files."""

    async def fit(self, input: dict[str, Any], **_: Any) -> dict[str, Any]:
        return input

    async def collect(self, prediction: Prediction, attempt: Any, output: Any, **_: Any) -> Any:
        return output


def _models() -> list[Model]:
    models = []
    for index, cents in enumerate(PRICES):
        slug = f"race/m{index}"
        offer = Offer(
            id=f"{slug}@race",
            model=slug,
            provider="race",
            name=f"{index}",
            version=VERSION,
            price=Price(per_prediction=cents * CENT),
        )
        models.append(
            Model(
                owner="race",
                name=f"m{index}",
                description="",
                default_version=VERSION,
                versions=(Version(id=VERSION, created_at=START, schema={}),),
                offers=(offer,),
                created_at=START,
            )
        )
    return models


def _parts(sizes: Sizes, clock: Any, driver: Biller) -> Parts:
    catalog, board, observer = Catalog(_models()), Board(clock), Observer()
    breakers = Breakers(clock=clock, draw=random.random, observer=observer)
    policy = Policy(
        name="race",
        rank=Rank(by="cost", explore=0),
        limits=Limits(deadline_seconds=DEADLINE_SECONDS, attempts=1),
        budgets=sizes.budgets,
    )
    return Parts(
        planner=Planner(
            catalog=lambda: catalog,
            board=board,
            breakers=breakers,
            policies=lambda: [policy],
            default="race",
            draw=random.random,
        ),
        breakers=breakers,
        board=board,
        links={"race": Link(driver, reaches_us=False, callbacks=False, hold_seconds=0.0)},
        offer=catalog.offer,
        collector=Passing(),
        intake=Passing(),
        observer=observer,
        clock=clock,
        draw=random.random,
        secret=b"s" * 32,
        callback_base="https://turnout.test",
        timing=Timing(look_pauses=()),
    )


async def _open_store(url: str) -> tuple[RedisStore, Any]:
    line = line_to(url, max_queue=20_000, timeout_seconds=10.0)
    await line.open()
    store = await RedisStore.open(
        line, reduce=reduce, snapshot=lambda one: prediction_bytes(one, public_url="https://turnout.test")
    )
    return store, line.clock


async def work(url: str, folder: Path, index: int, count: int, sizes: Sizes) -> None:
    """Make and drive `count` predictions, say so, and go on driving what others left until nobody needs us."""
    store, clock = await _open_store(url)
    draw = random.Random(f"{sizes.seed} {index} {count}")
    created = os.open(folder / f"created-{index}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    engine = Engine(
        store,
        _parts(sizes, clock, Biller(folder / "books", draw)),
        ids=RandomIds(),
        worker_id=RandomIds().prediction(),
        max_in_flight=100_000,
        wake_outbox=lambda: None,
        leasing=Leasing(lease=3.0, claim=0.5),
    )
    await engine.start()
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns:
            model, key = draw.randrange(len(PRICES)), draw.choice(KEYS)
            request = Request(model=f"race/m{model}", version=VERSION, is_pinned=False, input={"key": key})
            made = await engine.create(request, owner=key)
            os.write(created, b".")
            await engine.wait(made.prediction.id, seconds=2.0)

    await asyncio.gather(*(one() for _ in range(count)))
    os.write(1, b"done\n")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await engine.drain(seconds=5.0)
    await store.aclose()


# -- the race ---------------------------------------------------------------------------------------------------------


class Track:
    """The processes of one race, and what they leave in its folder."""

    def __init__(self, url: str, folder: Path, sizes: Sizes) -> None:
        self.url = url
        self.folder = folder
        self.sizes = sizes
        self.processes: dict[int, asyncio.subprocess.Process] = {}
        self.killed = 0

    def share(self, index: int) -> int:
        whole, rest = divmod(self.sizes.predictions, self.sizes.processes)
        return whole + (index < rest)

    def created(self, index: int) -> int:
        path = self.folder / f"created-{index}"
        return path.stat().st_size if path.exists() else 0

    @property
    def made(self) -> int:
        return sum(map(self.created, range(self.sizes.processes)))

    async def start(self, index: int) -> None:
        sizes = [str(number) for number in self.sizes]
        left = self.share(index) - self.created(index)
        self.processes[index] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.routing.budget_race", "--work"),
            *(self.url, str(self.folder), str(index), str(max(0, left)), *sizes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def kill_on_the_way(self) -> None:
        """One after another, each while it is at work, and started again for what it had not made yet."""
        for number in range(self.sizes.kills):
            index = number % self.sizes.processes
            due = self.sizes.predictions * (number + 1) // (self.sizes.kills + 2)
            process = self.processes[index]
            while self.made < due:
                if process.returncode is not None:
                    raise RuntimeError(f"process {index} ended by itself")
                await asyncio.sleep(0.05)
            process.kill()
            await process.wait()
            self.killed += 1
            await self.start(index)

    async def finish(self) -> None:
        for index in range(self.sizes.processes):
            stdout = self.processes[index].stdout
            assert stdout is not None
            line = await stdout.readline()
            if line != b"done\n":
                raise RuntimeError(f"process {index} ended before it was done")

    async def dismiss(self) -> None:
        for process in self.processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self.processes.values():
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()

    def billed(self) -> Counter[str]:
        books: Counter[str] = Counter()
        for line in (self.folder / "books").read_text().splitlines():
            key, nanos = line.split()
            books[key] += int(nanos)
        return books


async def _statuses(store: RedisStore) -> Counter[str]:
    found: Counter[str] = Counter()
    position: str | None = None
    while True:
        page = await store.search_predictions(Search(), position=position, limit=200)
        found.update(one.status.value for one in page.predictions)
        position = page.next
        if position is None:
            return found


async def race(url: str, folder: Path, sizes: Sizes) -> Outcome:
    """Raises RuntimeError where predictions are still open long after everybody is done."""
    begun = time.monotonic()
    track = Track(url, folder, sizes)
    store, clock = await _open_store(url)
    try:
        for index in range(sizes.processes):
            await track.start(index)
        await track.kill_on_the_way()
        await track.finish()
        until = time.monotonic() + TAIL_SECONDS
        open_ = Search(statuses=frozenset({"starting", "processing"}))
        while (await store.search_predictions(open_, limit=1)).predictions:
            if time.monotonic() > until:
                raise RuntimeError("predictions are still open")
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - begun
        await track.dismiss()
        return Outcome(
            sizes=sizes,
            seconds=seconds,
            killed=track.killed,
            statuses=await _statuses(store),
            billed=track.billed(),
            spending=await store.spending(ends_after=clock.now() - timedelta(days=1)),
        )
    finally:
        await track.dismiss()
        await store.aclose()


def run(sizes: Sizes, folder: Path) -> Outcome:
    with RedisServer(folder / "redis", "--appendfsync", "everysec") as server:
        return asyncio.run(race(server.url, folder, sizes))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--work"]:
        url, folder, index, count, *sizes = arguments[1:]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(url, Path(folder), int(index), int(count), Sizes(*map(int, sizes))))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing.budget_race", description=__doc__)
    named: Mapping[str, int] = {"processes": 8, "predictions": 10_000, "kills": 4, "seed": 1}
    for name, default in named.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="turnout-race-") as folder:
        outcome = run(Sizes(**vars(given)), Path(folder))
    print(outcome)
    return int(outcome.overspend_nanos > 0 or outcome.uncounted_nanos > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
