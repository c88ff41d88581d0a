"""One universe from one seed: what is in it, how it begins, and how long it lasts. What is made of it is for `play`."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from gateway.contract.body import prediction_bytes
from gateway.contract.money import Price
from gateway.contract.prediction import Prediction
from gateway.engine.attempt import Timing
from gateway.engine.lifecycle import is_open, reduce
from gateway.store.protocol import Reduce
from gateway.store.redis import RedisStore
from gateway.testing import START
from policies.document import Fallback, Limits, Policy, Rank
from tests.chaos.universe.caller import Callers
from tests.chaos.universe.fate import Fate
from tests.chaos.universe.inline import InlineStore, new_file
from tests.chaos.universe.judge import Judge
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.network import Network
from tests.chaos.universe.note import Note
from tests.chaos.universe.provider import KINDS, House
from tests.chaos.universe.receiver import HOSTS, Receivers
from tests.chaos.universe.redis_store import Exchange, InlineLine
from tests.chaos.universe.replica import BASE, Replica
from tests.chaos.universe.verdict import Verdict, in_hand
from tests.chaos.universe.weather import Weather
from tests.chaos.universe.wire import Board, Wire

PREDICTIONS = 60
POST_SECONDS = 25.0
WEATHER_SECONDS = 50.0
DEADLINES = (20, 45, 75)
# After the faults have stopped: the longest deadline, a minute, and the schedule of a receiver that never answers.
MOST_SECONDS = 600.0
# A second apart, and judged at the last of them: a late answer may open again what had come to rest.
QUIET_LOOKS = 2
# Orphans are looked for as long as the faults and the deadlines last, not for an hour.
TIMING = Timing(look_pauses=(2.0, 6.0, 15.0, 30.0))


class Step(NamedTuple):
    """One call of the store as it was done: when, what, and what came of it."""

    at: float
    verb: str
    args: tuple[Any, ...]
    named: dict[str, Any]
    result: Any
    error: BaseException | None


class Record(msgspec.Struct):
    """All that a universe did to its store, in order, and the rows it left."""

    steps: list[Step] = msgspec.field(default_factory=list)
    rows: dict[str, Any] = msgspec.field(default_factory=dict)


async def rows_of(store: Any, ids: list[str]) -> dict[str, Any]:
    return {
        id: (await store.get(id), await store.events(id), await store.ledger(id), await store.deliveries(id))
        for id in ids
    }


class Universe:
    """
    On SQLite, or on Redis if there is a `server`. One gateway alone has its own file, and loses it as it dies; several
    share a store.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        loop: UniverseLoop,
        *,
        server: Any = None,
        record: Record | None = None,
        reduce: Reduce = reduce,
        predictions: int = PREDICTIONS,
    ) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.loop = loop
        self.fate = Fate(seed, self.counts)
        self._folder = folder
        self._reduce = reduce
        self._predictions = predictions
        self._board: Board | None = None
        self._shared: Any = None
        self._exchange: Exchange | None = None
        self._draw = Random(f"commit {seed}").random
        self._network = Network(loop, self.fate)
        self._record = record
        self._replica_count = self.fate.pick(1, 2, 2, 3) if record is None else 2
        policy = self._policy()
        self.judge = Judge(
            self.counts,
            seconds=loop.time,
            limit_nanos=int(float(policy.limits.pay_twice_up_to) * 1e9),
            most_attempts=policy.limits.attempts,
        )
        self.receivers = Receivers(loop, self.fate, self._network, came=self.judge.came)
        self.replicas: list[Replica] = []
        self.callers = Callers(loop, self.fate, self.judge, self.replicas)
        self.houses: list[House] = []
        prices = self._open_houses()
        for number in range(self._replica_count):
            self.replicas.append(self._replica(number, policy, prices))
        self.weather = Weather(
            loop, self.fate, self._network, self.replicas, [house.name for house in self.houses], list(HOSTS)
        )
        self.judge.store_now = self._store_clock().now
        if server is not None:
            self._exchange = Exchange(server, self.judge, loop)

    async def run(self) -> None:
        loop = self.loop
        if self._exchange is not None:
            self._shared = await self._open_redis(InlineLine(self._exchange, self._store_clock()))
        elif self._replica_count > 1:
            self._board = Board(loop, self.fate)
            self._shared = await self._open_file(self._store_clock())
        for replica in self.replicas:
            await replica.start()
        blowing = loop.world.spawn(self.weather.blow(WEATHER_SECONDS))
        posting = loop.world.spawn(self.callers.post_all(self._predictions, POST_SECONDS))
        await blowing
        self.fate.is_over = True
        peace_at = loop.time()
        quiet_looks = 0
        while loop.time() < peace_at + MOST_SECONDS and quiet_looks < QUIET_LOOKS:
            await asyncio.sleep(1.0)
            quiet_looks = quiet_looks + 1 if posting.done() and await self._is_settled() else 0
        store = self._store()
        verdict = Verdict(self.judge, store, self.houses, self.receivers, self.callers, peace_at=peace_at)
        await verdict.look()
        await self._play_again(store)
        if self._record is not None:
            self._record.rows = await rows_of(store, list(self.judge.rows))
        await asyncio.sleep(5.0)
        verdict.rest(self.replicas)
        if posting.done():
            posting.result()
        else:
            self.judge.breach("I1", "", "some callers never came to an end")

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _is_settled(self) -> bool:
        if any(is_open(row) for row in self.judge.rows.values()):
            return False
        if any(not replica.is_serving or in_hand(replica) for replica in self.replicas):
            return False
        return await self._store().next_delivery_at() is None

    async def _play_again(self, store: Any) -> None:
        """I7: each job's end is told again, long after, in another order; the second time nothing at all moves."""
        jobs = [job for house in self.houses for job in house.jobs.values() if job.callback_url is not None]
        jobs = [job for job in jobs if job.is_over(self.loop.time())]
        for turn in range(2):
            before = {job.prediction: self.judge.rows[job.prediction] for job in jobs}
            self.fate.random.shuffle(jobs)
            for job in jobs:
                house = next(house for house in self.houses if house.name == job.house)
                headers, body = house.signed(job)
                await self.callers.callback(job.callback_url or "", headers, body)
            for id, row in before.items():
                if turn and self.judge.rows[id] != row:
                    self.judge.breach("I7", id, "a fact that was told twice had two effects")

    # -- its parts ---------------------------------------------------------------------------------------------------

    def _policy(self) -> Policy:
        fate = self.fate
        return Policy(
            name="in-order",
            rank=Rank(by=fate.pick("cost", "ordered", "blend"), explore=0.0),
            limits=Limits(
                deadline_seconds=fate.pick(*DEADLINES),
                attempts=fate.pick(4, 6) if fate.is_broken_off else fate.pick(2, 4, 6),
                attempt_seconds=fate.pick(0, 0, 6, 12, 20),
                pay_twice_up_to="0.01" if fate.is_broken_off else fate.pick("0", "0", "0.0005", "0.01"),
            ),
            fallback=Fallback(provider="local"),
        )

    def _open_houses(self) -> dict[str, Price]:
        """What each of them takes."""
        kinds = self.fate.random.sample(list(KINDS), 4)
        if self.fate.is_broken_off:
            # First of all the one that tells of a job whose stream broke off.
            kinds = ["reported", *(kind for kind in kinds if kind != "reported")][:4]
        for kind in kinds:
            cheapest = self.fate.is_broken_off and kind == "reported"
            self._open_house(kind, kind, 400_000 if cheapest else self.fate.pick(400_000, 1_000_000, None))
        if self.fate.chance(0.5):
            self._open_house("local", "polled", 0)
        return {house.name: Price(per_prediction=house.price_nanos) for house in self.houses}

    def _replica(self, number: int, policy: Policy, prices: dict[str, Price]) -> Replica:
        return Replica(
            "abc"[number],
            loop=self.loop,
            fate=self.fate,
            houses=self.houses,
            prices=prices,
            receivers=self.receivers,
            policy=policy,
            seed=self.seed * 8 + number,
            open_store=self._open_store,
            timing=TIMING,
        )

    def _open_house(self, name: str, kind: str, price_nanos: int | None) -> None:
        self.houses.append(
            House(
                name,
                kind,
                price_nanos=price_nanos,
                loop=self.loop,
                fate=self.fate,
                network=self._network,
                arrived=self.judge.arrived,
                told=self.judge.note,
                carry=self.callers_callback,
            )
        )

    async def callers_callback(self, url: str, headers: dict[str, str], body: bytes) -> str:
        return await self.callers.callback(url, headers, body)

    def _store_clock(self) -> Any:
        return _StoreClock(self.loop)

    def _store(self) -> Any:
        if self._shared is not None:
            return self._shared
        wire = self.replicas[0].wire
        assert wire is not None
        return wire.store

    async def _open_file(self, clock: Any) -> InlineStore:
        path = self._folder / f"{self.seed}.db"
        if not path.exists():
            new_file(self._folder, path.name)
        store = await InlineStore.open(path, reduce=self._reduce, snapshot=snapshot, clock=clock)
        store.writer.commit_seconds = self._commit_seconds
        store.writer.fails = self._commit_fails
        if self._record is not None:
            store.writer.record = lambda note, result, error: self._note_down(note, result, error)
        return store

    async def _open_redis(self, line: InlineLine) -> RedisStore:
        return await RedisStore.open(line, reduce=self._reduce, snapshot=snapshot, clock=self._store_clock())

    async def _open_store(self, replica: Replica) -> Wire:
        """As a gateway that starts: the file is its own, or all share one, as they do a server."""
        assert replica.process is not None
        process, exchange = replica.process, self._exchange
        wire = Wire(
            process,
            self._shared,
            judge=self.judge,
            fate=self.fate,
            network=self._network,
            out_until=lambda: self.weather.store_out_until,
            board=self._board,
            latency=(0.0, 0.0) if self._shared is None else (0.0002, 0.002),
            is_played=exchange is None,
        )
        if exchange is not None:
            replica.clock = self._store_clock()
            line = InlineLine(exchange, replica.clock, process=process.name, way=wire.there, delay=self._hint_seconds)
            line.context = process.context
            wire.store = await self._open_redis(line)
        elif self._shared is None:
            store = wire.store = await self._open_file(replica.clock)
            process.on_crash(lambda: None if store._closing is not None else store.kill())
            self.judge.store_now = replica.clock.now
            self.judge.voided()
        return wire

    def _note_down(self, note: Note, result: Any, error: BaseException | None) -> None:
        if self._record is not None:
            self._record.steps.append(Step(self.loop.time(), note.verb, note.args, note.named, result, error))

    def _hint_seconds(self) -> float | None:
        return None if self.fate.chance(0.02) else self.fate.between(0.0005, 0.01)

    def _commit_seconds(self) -> float:
        return 0.0002 + 0.002 * self._draw()

    def _commit_fails(self) -> bool:
        if self.fate.is_over or self._draw() > 0.002:
            return False
        self.fate.count("F21 commit fails")
        return True


class _StoreClock:
    """The time of a store that several share."""

    def __init__(self, loop: UniverseLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time())

    wall = now

    def monotonic(self) -> float:
        return self._loop.time()


def snapshot(prediction: Prediction) -> bytes:
    return prediction_bytes(prediction, public_url=BASE)
