"""A line with a will of its own round the real one: counts, loses answers, sends nothing, or lets others go first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.contract.errors import StoreUnavailable
from gateway.store._redis_wire import Argument, Call, HeardOn, Line


class WilfulLine:
    """
    `answers_lost[name] = n`: the next n runs of that script are done, and nobody hears of it. `unsent`: not done.

    `whim` says of each run "lost", "unsent" or nothing.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.clock = line.clock
        self.is_cluster = line.is_cluster
        self.trips = 0
        self.ran: Counter[str] = Counter()
        self.answers_lost: Counter[str] = Counter()
        self.unsent: Counter[str] = Counter()
        self.whim: Callable[[str], str] = lambda name: ""
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}  # once, before the next run of that script

    async def run(self, call: Call) -> Any:
        self.trips += 1
        is_lost = await self._begin([call])
        answer = await self.line.run(call)
        if is_lost:
            raise StoreUnavailable("the answer was lost")
        return answer

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        self.trips += 1
        is_lost = await self._begin(calls)
        answers = await self.line.run_all(calls)
        if is_lost:
            raise StoreUnavailable("an answer was lost")
        return answers

    async def _begin(self, calls: Sequence[Call]) -> bool:
        is_lost = False
        for name in {call.script.name for call in calls}:
            self.ran[name] += 1
            interlude = self.before.pop(name, None)
            if interlude is not None:
                await interlude()
            whim = self.whim(name)
            if whim == "unsent" or self.unsent[name] > 0:
                self.unsent[name] = max(0, self.unsent[name] - 1)
                raise StoreUnavailable("it was not sent")
            if whim == "lost" or self.answers_lost[name] > 0:
                self.answers_lost[name] = max(0, self.answers_lost[name] - 1)
                is_lost = True
        return is_lost

    async def read(self, *commands: tuple[Argument, ...]) -> list[Any]:
        self.trips += 1
        return await self.line.read(*commands)

    async def listen(self, heard: HeardOn) -> None:
        await self.line.listen(heard)

    def subscribe(self, channel: str) -> None:
        self.line.subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        self.line.unsubscribe(channel)

    async def aclose(self) -> None:
        await self.line.aclose()
