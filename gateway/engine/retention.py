"""Removes the data of predictions whose time of keeping is over, and of files that expired. Touches nothing younger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError
from gateway.contract.fact import DataRemoved
from gateway.engine.seam import Eraser
from gateway.store.protocol import Store

log = logging.getLogger("turnout.engine")

PAUSE_SECONDS = 30.0
BATCH = 100


class Retention:
    """
    One per process; any number may run beside each other, for each step does the same if it is done twice.

    Files go first, and only then is it written that the data is removed: whoever dies in between leaves a prediction
    that still counts as aged, and the next round erases what is left. `data_seconds` 0: predictions keep their data.
    """

    def __init__(
        self, store: Store, eraser: Eraser, *, clock: Clock, draw: Callable[[], float], data_seconds: float
    ) -> None:
        self._store = store
        self._eraser = eraser
        self._clock = clock
        self._draw = draw
        self._data_seconds = data_seconds

    async def run(self) -> None:
        """Round after round, until it is cancelled. Outlives every trouble of the store and of the disk."""
        while True:
            # Apart from each other: replicas that wake at one moment would do each step twice.
            await asyncio.sleep(PAUSE_SECONDS * (0.5 + self._draw()))
            try:
                removed, expired = await self.step()
            except (StoreError, OSError) as error:
                log.warning("what is kept too long could not be removed, and is tried again: %s", error)
            except Exception:
                log.exception("a round of the retention failed; the next one comes")
            else:
                if removed or expired:
                    log.info("removed the data of %d predictions, and %d expired files", removed, expired)

    async def step(self) -> tuple[int, int]:
        """Everything that is over now: how many predictions, and how many files. Raises StoreError, OSError."""
        expired = await self._expire_files()
        return (await self._remove_data() if self._data_seconds else 0), expired

    async def _expire_files(self) -> int:
        count = 0
        while True:
            rows = await self._store.expire_files(limit=BATCH)
            for row in rows:
                # One that is missed here, by a crash or a full disk, expires in the folder by itself.
                await self._eraser.remove(row.artifact)
            count += len(rows)
            if len(rows) < BATCH:
                return count

    async def _remove_data(self) -> int:
        count, failed = 0, set[str]()
        while True:
            before = self._clock.now() - timedelta(seconds=self._data_seconds)
            ids = await self._store.aged(before=before, limit=BATCH + len(failed))
            fresh = [id for id in ids if id not in failed]
            for id in fresh:
                if await self._remove(id):
                    count += 1
                else:
                    failed.add(id)  # it comes again with the next round, and keeps nobody waiting until then
            if len(fresh) < BATCH:
                return count

    async def _remove(self, id: str) -> bool:
        prediction = await self._store.get(id)
        if prediction is None or prediction.data_removed:
            return True
        try:
            await self._eraser.erase(prediction)
        except OSError as error:
            log.warning("the files of prediction %s could not be erased: %s", id, error)
            return False
        return (await self._store.apply(id, DataRemoved())).prediction.data_removed
