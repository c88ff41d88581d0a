"""Who here waits for which prediction: callers and streams, and that the store lets us hear of it. Reads nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from gateway.contract.prediction import Prediction
from gateway.store.protocol import Store


class Changes:
    """Tells a waiting reader that something was committed for one prediction."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.latest: Prediction | None = None  # as it was last committed, if anything was

    def tell(self, prediction: Prediction | None = None) -> None:
        if prediction is not None and (self.latest is None or prediction.revision > self.latest.revision):
            self.latest = prediction
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """True: something was committed since the last wait. False: `seconds` passed in silence."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Watchers:
    """
    What is driven here is heard of anyway; of the rest the store is asked to let us hear, as long as somebody waits.

    A prediction may leave us while somebody waits for it: `let_go` says so.
    """

    def __init__(self, store: Store, *, is_driven: Callable[[str], bool]) -> None:
        self._store = store
        self._is_driven = is_driven
        self._open: dict[str, dict[Changes, None]] = {}  # in the order they came: a seed must replay
        self._watched: set[str] = set()

    def ids(self) -> list[str]:
        return list(self._open)

    @contextlib.contextmanager
    def changes(self, id: str) -> Iterator[Changes]:
        changes = Changes()
        self._open.setdefault(id, {})[changes] = None
        if not self._is_driven(id):
            self._watch(id)
        try:
            yield changes
        finally:
            del self._open[id][changes]
            if not self._open[id]:
                del self._open[id]
                if id in self._watched:
                    self._watched.discard(id)
                    self._store.unwatch(id)

    def tell(self, prediction: Prediction) -> None:
        for changes in self._open.get(prediction.id, ()):
            changes.tell(prediction)

    def wake(self, id: str | None = None) -> None:
        """There is no news; they shall look up all the same. None: all of them."""
        for waiting in self._open.values() if id is None else (self._open.get(id, {}),):
            for changes in waiting:
                changes.tell()

    def let_go(self, prediction: Prediction) -> None:
        if prediction.id in self._open and not prediction.is_terminal:
            self._watch(prediction.id)

    def _watch(self, id: str) -> None:
        if id not in self._watched:
            self._watched.add(id)
            self._store.watch(id)
