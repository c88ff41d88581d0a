"""A whole engine on a real SQLite store, with providers that act, in virtual time; and the checks of what must hold."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, cast

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import SeededIds
from gateway.contract.errors import OutcomeUnknown, ResultLost, StoreUnavailable
from gateway.contract.fact import Happening
from gateway.contract.model import Model, Version
from gateway.contract.money import Price
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request, WebhookEvent
from gateway.contract.provider import Call, Callbacks, Cancel, Capabilities
from gateway.contract.route import Offer
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.lifecycle import is_open, reduce
from gateway.engine.parts import Parts
from gateway.engine.seam import Link
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.store.protocol import Applied, Reduce
from gateway.store.sqlite import SqliteStore
from gateway.testing import START, FakeProvider, ManualClock, Script, VirtualLoop, run_virtual
from policies.document import Budget, Fallback, Limits, Policy, Rank

MODEL = "acme/upscaler"
VERSION = "f" * 64
PRICE = 1_000_000
OWNER = "acme"
COMMIT_SECONDS = 0.001  # time passes while the store works: what spins is seen to

P = ParamSpec("P")

WITH_CALLBACKS = Capabilities(
    modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, callbacks=Callbacks.SIGNED, min_poll_seconds=0.5
)
POLLED = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, min_poll_seconds=0.5)
IDEMPOTENT = Capabilities(
    modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, min_poll_seconds=0.5, idempotent_submit=True
)
HELD = Capabilities(modes=frozenset({"sync"}), cancel=Cancel.NONE, pollable=False)
HELD_BREAKABLE = Capabilities(modes=frozenset({"sync"}), cancel=Cancel.DISCONNECT, pollable=False)


def virtual(scenario: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test that is a coroutine, in a loop of its own in which waiting takes no time."""

    @functools.wraps(scenario)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await scenario(*args, **kwargs)

        run_virtual(main())

    return test


class Ward:
    """
    A store between the engine and its file: it can be out, it can die with its engine, and it watches every change.

    A prediction that was terminal once and is seen different later is written into `breaches` (I2).
    """

    def __init__(self, store: SqliteStore, ended: dict[str, tuple[Any, ...]], breaches: list[str]) -> None:
        self.store = store
        self.is_out = False
        self.is_dead = False
        self.applied: list[tuple[str, Happening, Applied]] = []
        self.fails: Callable[[str, Any], bool] = lambda verb, happening: False
        self._ended = ended
        self._breaches = breaches

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self.store, verb)
        if verb in ("follow", "watch", "unwatch", "dump"):
            return call  # these neither wait for a thread nor change anything

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead:
                await asyncio.Event().wait()
            happening = args[1] if verb == "apply" else None
            if self.is_out or self.fails(verb, happening):
                raise StoreUnavailable("the disk is gone")
            loop = cast(VirtualLoop, asyncio.get_running_loop())
            result = await loop.outside(call(*args, **kwargs))
            await asyncio.sleep(COMMIT_SECONDS)
            if self.is_dead:
                await asyncio.Event().wait()
            if verb == "apply":
                self._watch(args[0], happening, result)
            return result

        return guarded

    def _watch(self, id: str, happening: Happening, applied: Applied) -> None:
        self.applied.append((id, happening, applied))
        prediction = applied.prediction
        end = (prediction.status, prediction.output, prediction.error, prediction.completed_at)
        before = self._ended.get(id)
        if before is not None and before != end:
            self._breaches.append(f"{id} was {before} and is {end} after {happening}")
        if prediction.is_terminal:
            self._ended.setdefault(id, end)


class Keeping:
    """A Collector: keeps what it is shown; `lost` names providers whose results cannot be had, `raises` is a bug."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.raises: Exception | None = None
        self.tries = 0

    async def collect(self, prediction: Prediction, attempt: Attempt, output: Any, **how: Any) -> Any:
        self.tries += 1
        if self.raises is not None:
            raise self.raises
        if attempt.provider in self.lost:
            raise ResultLost("gone")
        return f"https://turnout.test/artifacts/{prediction.id}/{attempt.number}"


class AsItIs:
    """An Intake that changes nothing; `raises` is a bug."""

    def __init__(self) -> None:
        self.raises: Exception | None = None

    async def fit(self, input: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        return input


class Watcher(Observer):
    def __init__(self) -> None:
        self.callbacks: Counter[str] = Counter()
        self.failovers = 0
        self.polls: Counter[str] = Counter()
        self.ended: list[str] = []

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None:
        self.ended.append(f"{attempt.provider} {attempt.status}")

    def callback_received(self, provider: str, outcome: str) -> None:
        self.callbacks[outcome] += 1

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        self.failovers += 1

    def poll_made(self, provider: str, outcome: str) -> None:
        self.polls[outcome] += 1


class Stage:
    """
    `async with Stage(folder) as stage:` after `stage.provider(...)` for each one, in the order they are tried.

    The engine may be drained, killed and opened again; providers, clock and file stay.
    """

    def __init__(self, folder: Path, *, seed: int = 0, timing: Timing | None = None, **limits: Any) -> None:
        self.path = folder / "turnout.db"
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock: ManualClock = loop.clock
        self.seed = seed
        self.timing = timing or Timing(look_pauses=(5.0, 15.0, 40.0))  # a minute, and not an hour
        self.limits = Limits(**({"deadline_seconds": 120} | limits))
        self.budgets: tuple[Budget, ...] = ()
        self.rank: Rank | None = None
        self.providers: dict[str, FakeProvider] = {}
        self.prices: dict[str, Price] = {}
        self.holds: dict[str, float] = {}
        self.fallbacks: set[str] = set()
        self.reachable: dict[str, bool] = {}
        self.collector = Keeping()
        self.intake = AsItIs()
        self.observer = Watcher()
        self.breaches: list[str] = []
        self.accepted: list[str] = []
        self.reduce: Reduce = reduce
        self.board: Board
        self.breakers: Breakers
        self.engine: Engine | None = None
        self._ended: dict[str, tuple[Any, ...]] = {}
        self._ids = SeededIds(seed)
        self._draw = random.Random(seed).random
        self._generation = 0
        self.name = "worker"

    def provider(
        self,
        name: str,
        script: Script | Callable[[Call], Script] | None = None,
        *,
        capabilities: Capabilities = POLLED,
        price: int | None = PRICE,
        is_fallback: bool = False,
        hold_seconds: float = 20.0,
    ) -> FakeProvider:
        provider = Witnessed(name, self, script, capabilities)
        self.providers[name] = provider
        self.prices[name] = Price(per_prediction=price)
        self.holds[name] = hold_seconds
        if is_fallback:
            self.fallbacks.add(name)
        return provider

    async def __aenter__(self) -> Stage:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.engine is not None:
            await self.close()
        for provider in self.providers.values():
            await provider.aclose()

    # -- the engine's life -----------------------------------------------------------------------------------------

    async def open(self) -> Engine:
        self.store = Ward(await self._opened(), self._ended, self.breaches)
        self._generation += 1
        self.catalog = Catalog([self._model()])
        self.board = Board(self.clock)
        self.breakers = Breakers(clock=self.clock, draw=self._draw, observer=self.observer)
        parts = Parts(
            planner=self._planner(),
            breakers=self.breakers,
            board=self.board,
            links={
                name: Link(
                    p,
                    reaches_us=True,
                    callbacks=p.capabilities.callbacks is not Callbacks.NONE,
                    hold_seconds=self.holds[name],
                )
                for name, p in self.providers.items()
            },
            offer=self.catalog.offer,
            collector=self.collector,
            intake=self.intake,
            observer=self.observer,
            clock=self.clock,
            draw=self._draw,
            secret=b"s" * 32,
            callback_base="https://turnout.test",
            timing=self.timing,
        )
        self.engine = Engine(
            cast(Any, self.store),
            parts,
            ids=self._ids,
            worker_id=f"{self.name}-{self._generation}",
            max_in_flight=1000,
            wake_outbox=lambda: None,
        )
        await self.engine.start()
        return self.engine

    async def _opened(self) -> Any:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        return await loop.outside(SqliteStore.open(self.path, reduce=self.reduce, snapshot=_snapshot, clock=self.clock))

    async def close(self) -> None:
        """SIGTERM: drains."""
        assert self.engine is not None
        await self.engine.drain(seconds=20)
        self.engine = None
        await self._shut()

    async def kill(self) -> None:
        """SIGKILL: nothing more is written, nobody tidies up. What was sent stays sent."""
        assert self.engine is not None
        worker = self.engine._worker
        self.store.is_dead = True
        self.engine = None
        tasks = {*worker._loops, *worker._tasks.values()}
        worker._let_go = _forget  # type: ignore[method-assign]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._shut()

    async def _shut(self) -> None:
        await cast(VirtualLoop, asyncio.get_running_loop()).outside(self.store.store.aclose())

    # -- callers and providers -------------------------------------------------------------------------------------

    async def post(self, *, cancel_after: float | None = None, file_output: bool = False, **input: Any) -> str:
        assert self.engine is not None
        request = Request(
            model=MODEL,
            version=VERSION,
            is_pinned=False,
            input=input,
            webhook="https://caller.example/hook",
            webhook_events=tuple(WebhookEvent),
            wants_deadline=cancel_after is not None,
            file_output=file_output,
        )
        created = await self.engine.create(request, owner=OWNER, cancel_after_seconds=cancel_after)
        self.accepted.append(created.prediction.id)
        return created.prediction.id

    async def cancel(self, id: str) -> None:
        assert self.engine is not None
        await self.engine.cancel(id, owner=OWNER)

    async def ended(self, id: str, *, within: float = 300) -> Prediction:
        assert self.engine is not None
        prediction = await self.engine.wait(id, seconds=within)
        assert prediction.is_terminal, f"still {prediction.status} after {within} s: {prediction.attempts}"
        return prediction

    async def run(self, *, within: float = 300, **input: Any) -> Prediction:
        """Post one, wait for its end and for the end of whatever was begun for it."""
        id = await self.post(**input)
        await self.ended(id, within=within)
        return await self.settled(id)

    async def settled(self, id: str, *, within: float = 120) -> Prediction:
        """The prediction once nobody has anything to do for it any more."""
        end = self.clock.monotonic() + within
        while self.clock.monotonic() <= end:
            prediction = await self.read(id)
            if not is_open(prediction):
                return prediction
            await asyncio.sleep(0.5)
        raise AssertionError(f"still open after {within} s: {prediction.status} {prediction.attempts}")

    async def read(self, id: str) -> Prediction:
        prediction: Prediction | None = await self.store.get(id)
        assert prediction is not None
        return prediction

    async def until(self, holds: Callable[[], bool | Awaitable[bool]], *, within: float = 60) -> None:
        end = self.clock.monotonic() + within
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            assert self.clock.monotonic() < end, "it never came to pass"
            await asyncio.sleep(0.05)

    async def deliver(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        if self.engine is None:
            raise ConnectionRefusedError
        return await self.engine.callback(url.rpartition("/cb/")[2], headers, body)

    async def ledger(self, id: str) -> list[tuple[int, str, int | None]]:
        return [(row.attempt, row.state, row.nanos) for row in await self.store.ledger(id)]

    # -- what must hold --------------------------------------------------------------------------------------------

    async def check(self, id: str, *, may_pay_twice: bool = False) -> Prediction:
        """I1, I2, I4, I5 and I9 for a prediction that has come to rest."""
        prediction = await self.read(id)
        assert prediction.is_terminal, f"it is still {prediction.status}"
        assert not is_open(prediction), "an attempt is still open"
        assert self.breaches == [], "; ".join(self.breaches)
        self._check_jobs(prediction, may_pay_twice=may_pay_twice)
        await self._check_ledger(prediction)
        events = [event.event for event in await self.store.events(id)]
        assert events.count("done") == 1, f"its stream said {events}"
        assert events[-1] == "done", f"its stream said {events}"
        deliveries = [delivery for delivery in await self.store.deliveries(id) if delivery.is_final]
        assert len(deliveries) == 1, f"its end is delivered {len(deliveries)} times"
        return prediction

    def _check_jobs(self, prediction: Prediction, *, may_pay_twice: bool) -> None:
        """I4 and I9: nothing was started beside something that may be running, and nothing runs that nobody needs."""
        limit = int(float(self.limits.pay_twice_up_to) * 1e9)
        for attempt in prediction.attempts:
            jobs = [j for j in self.providers[attempt.provider].jobs if j.prediction == prediction.id]
            jobs = [job for job in jobs if job.attempt == attempt.number]
            assert len(jobs) <= 1, f"attempt {attempt.number} was started {len(jobs)} times"
            is_dear = attempt.expected_nanos is None or attempt.expected_nanos > limit
            if is_dear and not may_pay_twice:
                for earlier in prediction.attempts[: attempt.number - 1]:
                    assert _had_ended(earlier, attempt), f"{attempt.number} was started while {earlier} was unknown"
            for job in jobs:
                if attempt.handle is None or attempt.status is AttemptStatus.SUCCEEDED:
                    continue
                assert job.phase(self.clock.monotonic()).is_end or job.cancels, f"{job.id} is an orphan"

    async def _check_ledger(self, prediction: Prediction) -> None:
        """I5: the ledger and the providers' books agree."""
        rows = {number: (state, nanos) for number, state, nanos in await self.ledger(prediction.id)}
        numbers = {attempt.number for attempt in prediction.attempts}
        assert rows.keys() == numbers, f"attempts {numbers}, in the ledger {set(rows)}"
        assert "reserved" not in {state for state, _ in rows.values()}, f"money is still reserved: {rows}"
        billed = {job.attempt for p in self.providers.values() for job in p.billed(prediction.id)}
        for number in billed:
            assert rows[number][0] in ("settled", "maybe"), f"attempt {number} was billed, the ledger says {rows}"
        started = {j.attempt for p in self.providers.values() for j in p.jobs if j.prediction == prediction.id}
        for number, (state, nanos) in rows.items():
            assert not (state == "settled" and nanos and number not in started), f"{number} was settled without a job"

    # -- inside ----------------------------------------------------------------------------------------------------

    def _model(self) -> Model:
        owner, name = MODEL.split("/")
        offers = tuple(
            Offer(
                id=f"{MODEL}@{provider}",
                model=MODEL,
                provider=provider,
                name=name,
                version=VERSION,
                price=self.prices[provider],
                is_fallback=provider in self.fallbacks,
                capabilities=frozenset({"stop"} if fake.capabilities.cancel is Cancel.ANY_TIME else ()),
            )
            for provider, fake in self.providers.items()
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

    def _planner(self) -> Planner:
        policy = Policy(
            name="in-order",
            rank=self.rank or Rank(by="ordered", order=tuple(self.providers), explore=0),
            limits=self.limits,
            fallback=Fallback(provider="local"),
            budgets=self.budgets,
        )
        return Planner(
            catalog=lambda: self.catalog,
            board=self.board,
            breakers=self.breakers,
            policies=lambda: [policy],
            default="in-order",
            draw=self._draw,
        )


class Witnessed(FakeProvider):
    """Sees to it that no byte arrives whose intent is not in the store (I6)."""

    def __init__(
        self, name: str, stage: Stage, script: Script | Callable[[Call], Script] | None, capabilities: Capabilities
    ) -> None:
        super().__init__(name, stage.clock, script=script, capabilities=capabilities, deliver=stage.deliver)
        self._stage = stage

    async def submit(self, call: Call, *, on_fact: Any = None, may_send: Callable[[], bool] | None = None) -> Any:
        kept = await self._stage.store.store.get(call.prediction)
        if kept is None or len(kept.attempts) < call.attempt:
            self._stage.breaches.append(f"attempt {call.attempt} of {call.prediction} was sent before its intent")
        return await super().submit(call, on_fact=on_fact, may_send=may_send)


def _had_ended(earlier: Attempt, later: Attempt) -> bool:
    """It was known, when `later` was begun, that nothing of `earlier` runs."""
    if earlier.ended_at is None or earlier.ended_at > later.begun_at:
        return False
    unknown = earlier.failure is not None and earlier.failure.code == OutcomeUnknown.code
    return not (unknown and earlier.unknown_at is not None)


def _snapshot(prediction: Prediction) -> bytes:
    return prediction_bytes(prediction, public_url="https://turnout.test")


async def _forget(id: str) -> None:
    """A killed worker releases nothing."""
