"""One process's place at the server: its line, its time, its number. Knows no predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.contract.clock import Clock
from gateway.store._encoding import to_micros
from gateway.store._redis_key import Keys
from gateway.store._redis_wire import Argument, Call, Line, Script, ScriptRefused

MOST_AT_ONCE = 100  # commands that are read together


class Seat:
    """
    `clock` is for tests: with one, scripts go by its time. Without one they go by the server's own, and `now` is what
    this process knows of it.
    """

    def __init__(self, line: Line, keys: Keys, *, clock: Clock | None, origin: int) -> None:
        self.line = line
        self.keys = keys
        self.origin = origin  # no other process that was ever here has this number
        self._clock = clock
        self._shown = clock or line.clock

    def now(self) -> datetime:
        return self._shown.now()

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Call:
        return Call(script, keys, args, 0 if self._clock is None else to_micros(self._clock.now()))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        return await self.line.run(self.call(script, keys, args))

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        answers = await self.line.run_all(calls)
        for answer in answers:
            if isinstance(answer, ScriptRefused):
                raise answer
        return answers

    async def read(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """However many they are: what waits at once is bounded."""
        if len(commands) <= MOST_AT_ONCE:
            return await self.line.read(*commands)
        answers: list[Any] = []
        for start in range(0, len(commands), MOST_AT_ONCE):
            answers += await self.line.read(*commands[start : start + MOST_AT_ONCE])
        return answers
