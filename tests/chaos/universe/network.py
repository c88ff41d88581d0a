"""Links between the parties: how long a message takes, and which of them are clogged. Messages are never lost in it."""

from __future__ import annotations

from tests.chaos.universe.fate import Fate
from tests.chaos.universe.loop import UniverseLoop


class Network:
    """A link is a pair of names. What is sent over a clogged one arrives its own time after that is released."""

    def __init__(self, loop: UniverseLoop, fate: Fate) -> None:
        self._loop = loop
        self._fate = fate
        self._clogged_until: dict[tuple[str, str], float] = {}
        self.down_until: dict[str, float] = {}  # of providers: nobody is there

    def seconds(self, one: str, other: str, low: float = 0.001, high: float = 0.02) -> float:
        """From now until a message is there."""
        wait = self._clogged_until.get((one, other), 0.0) - self._loop.time()
        return max(0.0, wait) + self._fate.between(low, high)

    def clog(self, one: str, other: str, seconds: float) -> None:
        self._clogged_until[one, other] = self._loop.time() + seconds

    def is_down(self, name: str) -> bool:
        return self.down_until.get(name, 0.0) > self._loop.time()

    def clear(self) -> None:
        self._clogged_until.clear()
        self.down_until.clear()
