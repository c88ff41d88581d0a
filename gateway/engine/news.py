"""What other processes have changed, read anew for whoever here drives it or waits for it. Changes nothing itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from gateway.contract.errors import PredictionUnreadable, StoreError
from gateway.contract.prediction import Prediction

log = logging.getLogger("turnout.engine")

MOST_READS = 16  # at once
AGAIN_SECONDS = 1.0  # after a read that failed


class News:
    """
    `heard` is told ids by the store, `run` reads them, and `tell` hears what was read.

    `unreadable` hears of what a newer version has written in words that this one does not know.

    An id that is heard of again while it is read is read once more; heard of many times before that, only once.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[Prediction | None]],
        tell: Callable[[Prediction], None],
        *,
        everything: Callable[[], Iterable[str]],
        unreadable: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._read = read
        self._tell = tell
        self._everything = everything  # all that is driven or waited for here
        self._tell_unreadable = unreadable
        self._due: dict[str, None] = {}  # in order
        self._reading: set[str] = set()
        self._woken = asyncio.Event()

    def heard(self, id: str | None) -> None:
        """None: some may have been missed, so all are looked at."""
        self._due.update(dict.fromkeys(self._everything() if id is None else (id,)))
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(MOST_READS):
                group.create_task(self._read_on())

    async def _read_on(self) -> None:
        while True:
            id = self._next()
            if id is None:
                self._woken.clear()
                await self._woken.wait()
                continue
            self._reading.add(id)
            try:
                prediction = await self._read(id)
                if prediction is not None:
                    self._tell(prediction)
            except PredictionUnreadable:
                self._tell_unreadable(id)  # it stays so until somebody changes it again
            except StoreError as error:
                log.debug("prediction %s cannot be read: %s", id, error)
                self._due[id] = None
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                log.exception("news of prediction %s were lost", id)
            finally:
                self._reading.discard(id)
                if self._due:
                    self._woken.set()

    def _next(self) -> str | None:
        for id in self._due:
            if id not in self._reading:
                del self._due[id]
                return id
        return None
