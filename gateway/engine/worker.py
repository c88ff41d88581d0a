"""Holds the leases of this process and the runs under them: claims what is due, beats, drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from gateway.contract.errors import LeaseLost, StoreError
from gateway.contract.prediction import Prediction
from gateway.engine.lifecycle import is_open
from gateway.engine.run import Run
from gateway.store.protocol import Store

log = logging.getLogger("turnout.engine")

LEASE_SECONDS = 30.0
BEAT_SECONDS = 10.0
CLAIM_SECONDS = 2.0
CLAIM_LIMIT = 200
_CRASHES_BEFORE_REST = 3


class Worker:
    """One per process. `id` is new at every start: a dead worker's predictions are adopted, never mistaken for ours."""

    def __init__(self, id: str, store: Store, new_run: Callable[[Prediction], Run]) -> None:
        self.id = id
        self._store = store
        self._new_run = new_run
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._crashes: dict[str, int] = {}
        self._unreleased: set[str] = set()
        self._loops: list[asyncio.Task[None]] = []
        self.is_draining = False

    @property
    def open_count(self) -> int:
        return len(self._runs)

    def run(self, id: str) -> Run | None:
        return self._runs.get(id)

    def predictions(self) -> list[Prediction]:
        # Copied in one go: metrics ask from a thread of their own.
        return [run.prediction for run in list(self._runs.values())]

    async def start(self) -> None:
        """Announce the worker and adopt what nobody holds; raises StoreError if the store cannot."""
        await self._store.beat(self.id, lease_seconds=LEASE_SECONDS)
        await self._claim()
        self._loops = [
            asyncio.create_task(self._every(BEAT_SECONDS, self._beat), name="turnout-beat"),
            asyncio.create_task(self._every(CLAIM_SECONDS, self._claim), name="turnout-claim"),
        ]

    def take(self, prediction: Prediction) -> Run | None:
        """Drive a prediction that this worker holds."""
        if prediction.id in self._runs or self.is_draining:
            return None
        run = self._new_run(prediction)
        self._runs[prediction.id] = run
        self._tasks[prediction.id] = asyncio.create_task(self._drive(prediction.id, run))
        return run

    def release_later(self, id: str) -> None:
        """Held by this worker, perhaps, but driven by nobody: let go at the next claim, and so claimed again."""
        self._unreleased.add(id)

    async def drain(self, *, seconds: float) -> None:
        """
        Let everything go: no more claims, submits in flight are waited for, leases released.

        Work at the providers is left alone: whoever claims the predictions next finds it by the stored handles.
        """
        self.is_draining = True
        for loop in self._loops:
            loop.cancel()
        for run in self._runs.values():
            run.drain()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d submits were broken off by the shutdown; their outcome is unknown", len(late))
                await asyncio.wait(late, timeout=1.0)
        with contextlib.suppress(StoreError):
            await self._store.release(self.id)

    async def _drive(self, id: str, run: Run) -> None:
        try:
            await run.drive()
        except LeaseLost:
            log.info("prediction %s is held by another worker now", id)
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
            self._runs.pop(id, None)
            self._tasks.pop(id, None)
            if is_open(run.prediction):
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

    async def _beat(self) -> None:
        await self._store.beat(self.id, lease_seconds=LEASE_SECONDS)

    async def _claim(self) -> None:
        if self._unreleased:
            ids = sorted(self._unreleased)  # others may come in while these go
            await self._store.release(self.id, ids)
            self._unreleased.difference_update(ids)
        while not self.is_draining:
            claimed = await self._store.claim_due(self.id, limit=CLAIM_LIMIT)
            for prediction in claimed:
                self.take(prediction)
            if len(claimed) < CLAIM_LIMIT:
                return

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await act()
            except StoreError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a background step failed; it is tried again")
