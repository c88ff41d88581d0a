"""Holds the leases of this process and the runs under them: claims what is due, beats, drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec

from gateway.contract.clock import Clock
from gateway.contract.errors import LeaseLost, PredictionUnreadable, StoreError
from gateway.contract.prediction import Prediction
from gateway.engine.lifecycle import is_open
from gateway.engine.orphan import may_come_back
from gateway.engine.run import Run
from gateway.store.protocol import Held, Lease, Store

log = logging.getLogger("turnout.engine")

FIRST_CLAIM = 200  # of a long backlog, before anything is served
CLAIM_LIMIT = 1_000  # at once: each claim waits its turn among the runs that were begun before it
_CRASHES_BEFORE_REST = 3


class Leasing(msgspec.Struct, kw_only=True, frozen=True):
    """How long a worker that says nothing counts as alive, and how often it speaks. Seconds."""

    lease: float = 30.0
    claim: float = 2.0

    @property
    def beat(self) -> float:
        return self.lease / 3

    @property
    def margin(self) -> float:
        """So long before its end a lease is not relied on any more: what is begun then would end too late."""
        return self.lease / 10


class Worker:
    """
    One per process. `id` is new at every start: a dead worker's predictions are adopted, never mistaken for ours.

    Whether its leases still hold it tells by its own clock, counted from the start of the last beat that came through.
    It may have slept, or been cut off from the store, and not know it: each time they may have ended another `term`
    begins, and what was held in an earlier one is ours only if the store says so. `let_go` hears of each prediction
    that is no longer driven here.
    """

    def __init__(
        self,
        id: str,
        store: Store,
        new_run: Callable[[Held], Run],
        *,
        clock: Clock,
        leasing: Leasing | None = None,
        let_go: Callable[[Prediction], None] = lambda _: None,
    ) -> None:
        self.id = id
        self.term = 0
        self.is_draining = False
        self._store = store
        self._new_run = new_run
        self._clock = clock
        self._leasing = leasing or Leasing()
        self._tell = let_go
        self._valid_until = -math.inf  # by the monotonic clock
        self._beating = asyncio.Lock()
        self._claiming = asyncio.Lock()
        self._runs: dict[str, Run] = {}
        self._tasks: dict[tuple[str, Lease], asyncio.Task[None]] = {}
        self._crashes: dict[str, int] = {}
        self._unreleased: set[str] = set()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def open_count(self) -> int:
        return len(self._runs)

    def run(self, id: str) -> Run | None:
        return self._runs.get(id)

    def predictions(self) -> list[Prediction]:
        # Copied in one go: metrics ask from a thread of their own.
        return [run.prediction for run in list(self._runs.values())]

    def ids(self) -> list[str]:
        return list(self._runs)

    def holds_since(self, term: int) -> bool:
        """What was held in `term` is certainly held now: no lease can have ended in between."""
        return term == self.term and self._clock.monotonic() < self._valid_until

    async def start(self) -> None:
        """Announce the worker and adopt what nobody holds; raises StoreError if the store cannot."""
        await self._beat()
        is_all = await self._claim(most=FIRST_CLAIM)
        self.keep(self._beat_on(), name="turnout-beat")
        # Of a long backlog the rest is claimed while new predictions are served already.
        self.keep(self._claim_on(0.0 if not is_all else self._leasing.claim), name="turnout-claim")

    def keep(self, loop: Awaitable[None], *, name: str) -> None:
        """Let this go on until the worker has drained."""
        self._loops.append(asyncio.ensure_future(loop))
        self._loops[-1].set_name(name)

    def take(self, held: Held) -> Run | None:
        """
        Drive a prediction that this worker holds.

        A run of it under an older lease, lost while this process slept, only ends what it has begun: an answer it
        waits for is a fact, and reaches the new run by the store.
        """
        if self.is_draining:
            return None
        id, run = held.prediction.id, self._new_run(held)
        elder = self._runs.get(id)
        if elder is not None:
            elder.drain()
        self._runs[id] = run
        self._tasks[id, held.lease] = asyncio.create_task(self._drive(held, run))
        return run

    def release_later(self, id: str) -> None:
        """Held by this worker, perhaps, but driven by nobody: let go at the next claim, and so claimed again."""
        self._unreleased.add(id)

    def begin_drain(self) -> None:
        """No more claims; runs let go at their next safe point."""
        self.is_draining = True
        for run in self._runs.values():
            run.drain()

    async def drain(self, *, seconds: float) -> None:
        """
        Let everything go: no more claims, submits in flight are waited for, leases released.

        Work at the providers is left alone: whoever claims the predictions next finds it by the stored handles.
        """
        self.begin_drain()
        tasks = list(self._tasks.values())
        if tasks:
            # The beat goes on meanwhile: nobody shall adopt what is about to be answered.
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d submits were broken off by the shutdown; their outcome is unknown", len(late))
                await asyncio.wait(late, timeout=1.0)
        async with self._claiming:  # what is claimed after the release would be nobody's for as long as a lease
            for loop in self._loops:
                loop.cancel()
            with contextlib.suppress(StoreError):
                await self._store.release(self.id)

    async def _drive(self, held: Held, run: Run) -> None:
        id = held.prediction.id
        is_ours = True
        try:
            await run.drive()
        except LeaseLost as lost:
            # What we cannot read any more is still ours by name: others can have it once we let go.
            is_ours = isinstance(lost.__cause__, PredictionUnreadable)
            log.info("prediction %s is let go: %s", id, lost)
        except StoreError as error:
            log.warning("prediction %s waits for the store: %s", id, error)
        except Exception:
            # A bug must not lose the prediction: it is let go and claimed again, a few times.
            self._crashes[id] = self._crashes.get(id, 0) + 1
            log.exception("driving prediction %s failed (%d)", id, self._crashes[id])
            if self._crashes[id] >= _CRASHES_BEFORE_REST:
                await self._rest(id, run)
        else:
            self._crashes.pop(id, None)
        finally:
            self._tasks.pop((id, held.lease), None)
            if self._runs.get(id) is run:
                del self._runs[id]
                self._tell(run.prediction)
                if is_ours and (is_open(run.prediction) or may_come_back(run.prediction)):
                    await self._let_go(id)

    async def _let_go(self, id: str) -> None:
        try:
            await self._store.release(self.id, [id])
        except StoreError:
            self.release_later(id)  # else it would be held for as long as this worker lives

    async def _rest(self, id: str, run: Run) -> None:
        with contextlib.suppress(Exception):
            await run.fail("the gateway could not go on with this prediction; its log says why")
        self._crashes.pop(id, None)

    # -- in the background -----------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        async with self._beating:
            begun = self._clock.monotonic()
            await self._store.beat(self.id, lease_seconds=self._leasing.lease)
            # When within the call the store took it nobody here knows: at its end the last one must still have held.
            if self._clock.monotonic() >= self._valid_until:
                self.term += 1
            self._valid_until = begun + self._leasing.lease - self._leasing.margin

    async def _beat_on(self) -> None:
        pause = self._leasing.beat
        while True:
            await asyncio.sleep(pause)
            pause = self._leasing.beat / 5  # after a failure
            if await self._try(self._beat):
                pause = self._leasing.beat

    async def _claim_on(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            pause = self._leasing.claim
            await self._try(self._claim)

    async def _claim(self, *, most: int | None = None) -> bool:
        """False: there may be more than the `most` that were asked for."""
        async with self._claiming:
            return await self._claim_all(most)

    async def _claim_all(self, most: int | None) -> bool:
        if self._clock.monotonic() >= self._valid_until:
            await self._beat()  # whoever counts as dead holds nothing
        if self._unreleased:
            ids = sorted(self._unreleased)  # others may come in while these go
            await self._store.release(self.id, ids)
            self._unreleased.difference_update(ids)
        taken, limit = 0, min(most or CLAIM_LIMIT, CLAIM_LIMIT)
        while not self.is_draining:
            claimed = await self._store.claim_due(self.id, limit=limit)
            for held in claimed:
                self.take(held)
            if claimed:
                log.info("%d predictions that nobody held are driven here now", len(claimed))
            taken += len(claimed)
            if len(claimed) < limit:
                return True
            if most is not None and taken >= most:
                return False
        return True

    async def every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        """Do this again and again, whatever becomes of it."""
        while True:
            await asyncio.sleep(seconds)
            await self._try(act)

    async def _try(self, act: Callable[[], Awaitable[object]]) -> bool:
        try:
            await act()
        except StoreError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("a background step failed; it is tried again")
        else:
            return True
        return False
