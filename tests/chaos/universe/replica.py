"""One gateway in a universe: a real engine and a real outbox under a process that can be frozen, killed and drained."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from gateway.contract.clock import ID_ALPHABET, Steady
from gateway.contract.errors import ResultLost, StoreError
from gateway.contract.model import Model, Version
from gateway.contract.money import Price
from gateway.contract.observer import Observer
from gateway.contract.provider import Callbacks
from gateway.contract.route import Offer
from gateway.delivery.outbox import Outbox
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.parts import Parts
from gateway.engine.seam import Link
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.testing import START
from policies.document import Policy
from tests.chaos.universe.client import Client
from tests.chaos.universe.fate import Fate
from tests.chaos.universe.loop import Process, UniverseLoop
from tests.chaos.universe.provider import House
from tests.chaos.universe.receiver import TIMEOUT_SECONDS, Post, Receivers
from tests.chaos.universe.wire import Wire

T = TypeVar("T")

MODEL = "acme/upscaler"
VERSION = "f" * 64
BASE = "https://turnout.test"
HOLD_SECONDS = 8.0  # of every provider: a universe's deadlines are short
SECRET = b"s" * 32
SCHEDULE_SECONDS = (0, 2, 8, 20, 45)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START_SECONDS = START.timestamp()


class Broken(ConnectionError):
    """The gateway at the other end is gone."""


class MachineClock:
    """`SystemClock` on a machine whose clock is set, and drifts: what the engine sees of that is `Steady`'s affair."""

    def __init__(self, loop: UniverseLoop) -> None:
        self.step_seconds = 0.0
        self.drift = 0.0
        self._loop = loop
        self._steady = Steady(self._wall_seconds, loop.time)

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._steady.seconds())

    def wall(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._wall_seconds())

    def monotonic(self) -> float:
        return self._loop.time()

    def _wall_seconds(self) -> float:
        seconds = self._loop.time()
        return _START_SECONDS + seconds * (1 + self.drift) + self.step_seconds


class Names:
    """`contract.clock.SeededIds`, by fewer draws: a universe needs many."""

    def __init__(self, random: Random) -> None:
        self._bits = random.getrandbits

    def prediction(self) -> str:
        bits = self._bits(130)
        return "".join([ID_ALPHABET[(bits >> shift) & 31] for shift in range(0, 130, 5)])

    def token(self) -> str:
        return f"{self._bits(172):043x}"


class Keeping:
    """A Collector. Now and then a file cannot be had."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    async def collect(self, prediction: Any, attempt: Any, output: Any, **how: Any) -> Any:
        await asyncio.sleep(self._fate.between(0.0, 0.5))
        if not self._fate.is_over and self._fate.chance(0.1):
            raise ResultLost("its file is gone")
        return f"{BASE}/artifacts/{prediction.id}/{attempt.number}"


class AsItIs:
    """An Intake that changes nothing."""

    async def fit(self, input: dict[str, Any], **how: Any) -> dict[str, Any]:
        return input


class Replica:
    """`clock` is what its engine goes by. `process` is None while it is down."""

    def __init__(
        self,
        name: str,
        *,
        loop: UniverseLoop,
        fate: Fate,
        houses: list[House],
        prices: dict[str, Price],
        receivers: Receivers,
        policy: Policy,
        seed: int,
        open_store: Callable[[Replica], Awaitable[Wire]],
        timing: Timing,
    ) -> None:
        self.name = name
        self.loop = loop
        self.machine = MachineClock(loop)
        self.clock: Any = self.machine
        self.process: Process | None = None
        self.engine: Engine | None = None
        self.outbox: Outbox | None = None
        self.wire: Wire | None = None
        self.is_serving = False
        self.observer = Observer()
        self._fate = fate
        self._houses = houses
        self._prices = prices
        self._receivers = receivers
        self._policy = policy
        self._ids = Names(Random(f"names {name} {seed}"))
        self._draw = Random(f"draw {name} {seed}").random
        self._open_store = open_store
        self._timing = timing
        self._generation = 0
        self._delivering: asyncio.Task[None] | None = None

    # -- its life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Until it serves; a store that is out is tried again, as a supervisor would."""
        while True:
            self._generation += 1
            self.process = self.loop.process(f"{self.name}.{self._generation}")
            try:
                await _heard(self.process, self.process.spawn(self._boot()))
            except (StoreError, Broken):
                self.process.crash()
                await asyncio.sleep(1.0)
                continue
            self.is_serving = True
            return

    def kill(self) -> None:
        """SIGKILL."""
        self.is_serving = False
        if self.process is not None:
            self.process.crash()
        self.engine = self.outbox = None

    async def drain(self) -> None:
        """SIGTERM, to the end. It may be killed on the way."""
        self.is_serving = False
        process = self.process
        if process is None or process.is_dead:
            return
        try:
            await _heard(process, process.spawn(self._shut()))
        except Broken:
            return
        process.crash()

    async def _boot(self) -> None:
        assert self.process is not None
        self.wire = wire = await self._open_store(self)
        worker = wire.worker = self._ids.prediction()
        self.outbox = Outbox(
            wire,  # type: ignore[arg-type]
            Post(self._receivers, self.process),
            worker=worker,
            clock=self.clock,
            draw=self._draw,
            schedule_seconds=SCHEDULE_SECONDS,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self.engine = Engine(
            wire,  # type: ignore[arg-type]
            self._parts(),
            ids=self._ids,
            worker_id=worker,
            max_in_flight=1_000,
            wake_outbox=self.outbox.wake,
        )
        self._delivering = asyncio.create_task(self.outbox.run())
        await self.engine.start()

    async def _shut(self) -> None:
        assert self.engine is not None
        assert self.outbox is not None
        assert self.wire is not None
        await self.engine.drain(seconds=25)
        await self.outbox.drain(15.0)
        if self._delivering is not None:
            self._delivering.cancel()
        await self.wire.leave()

    # -- what reaches it ---------------------------------------------------------------------------------------------

    async def serve(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` inside; for a caller who hears nothing more if it dies. Cancelling this is hanging up."""
        if not self.is_serving or self.process is None or self.process.is_dead:
            work.close()
            raise Broken("connection refused")
        task = self.process.spawn(work)
        try:
            return await _heard(self.process, task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _parts(self) -> Parts:
        assert self.process is not None
        board = Board(self.clock)
        breakers = Breakers(clock=self.clock, draw=self._draw, observer=self.observer)
        catalog = Catalog([self._model()])
        policy = self._policy
        planner = Planner(
            catalog=lambda: catalog,
            board=board,
            breakers=breakers,
            policies=lambda: [policy],
            default=policy.name,
            draw=self._draw,
        )
        return Parts(
            planner=planner,
            breakers=breakers,
            board=board,
            links={
                house.name: Link(
                    Client(house, self.process),
                    reaches_us=True,
                    callbacks=house.capabilities.callbacks is not Callbacks.NONE,
                    hold_seconds=HOLD_SECONDS,
                )
                for house in self._houses
            },
            offer=catalog.offer,
            collector=Keeping(self._fate),
            intake=AsItIs(),
            observer=self.observer,
            clock=self.clock,
            draw=self._draw,
            secret=SECRET,
            callback_base=BASE,
            timing=self._timing,
        )

    def _model(self) -> Model:
        owner, name = MODEL.split("/")
        offers = tuple(
            Offer(
                id=f"{MODEL}@{house.name}",
                model=MODEL,
                provider=house.name,
                name=name,
                version=VERSION,
                price=self._prices[house.name],
                is_fallback=house.name == "local",
            )
            for house in self._houses
        )
        return Model(
            owner=owner,
            name=name,
            description="",
            default_version=VERSION,
            versions=(Version(id=VERSION, created_at=START, schema={}),),
            offers=offers,
            created_at=START,
        )


async def _heard(process: Process, task: asyncio.Task[T]) -> T:
    """What `task` of that process comes to, or Broken as the process dies."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(ended: asyncio.Task[T]) -> None:
        if answer.done():
            if not ended.cancelled():
                ended.exception()
        elif ended.cancelled():
            answer.set_exception(Broken("it hung up"))
        elif (error := ended.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(ended.result())

    def broken() -> None:
        if not answer.done():
            answer.set_exception(Broken("the connection broke"))

    task.add_done_callback(tell, context=process.context)
    forget = process.on_crash(broken)
    try:
        return await answer
    finally:
        forget()
