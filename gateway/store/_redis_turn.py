"""Who of this process may write, and in which order: so many at once, and one at a time to one prediction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.contract.errors import StoreOverloaded, StoreUnavailable

T = TypeVar("T")


class Turns:
    """
    Writes that are under way, each a task of its own: whoever waits for one may leave, and it is done all the same.

    Two writes of this process to one prediction would only make each other void; so the second waits for the first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[Any]] = set()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self.is_closed = False

    def check_open(self) -> None:
        if self.is_closed:
            raise StoreUnavailable("the store is closed")

    async def run(self, write: Callable[[], Awaitable[T]], *, of: str | None = None) -> T:
        """Raises StoreOverloaded before it is begun. `of` is the prediction it is about."""
        self.check_open()
        if len(self._tasks) >= self._most:
            raise StoreOverloaded(f"{self._most} writes wait for redis already")
        task = asyncio.get_running_loop().create_task(_begin(write) if of is None else self._in_turn(of, write))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Whatever was begun ends; nothing is begun any more."""
        self.is_closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have left: then nobody else would take it

    async def _in_turn(self, id: str, write: Callable[[], Awaitable[T]]) -> T:
        queue = self._queues.get(id)
        if queue is None:
            self._queues[id] = deque()
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._pass_on(id)
                raise
        try:
            return await write()
        finally:
            self._pass_on(id)

    def _pass_on(self, id: str) -> None:
        queue = self._queues[id]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[id]


async def _begin(write: Callable[[], Awaitable[T]]) -> T:
    return await write()
