"""The time of a Redis server, as this process knows it by asking. Sends nothing itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.contract.clock import Clock, Steady

MOST_READINGS = 16
LONGEST_SECONDS = 120.0  # an older reading says nothing any more
DRIFT = 200e-6  # how far two clocks may run apart in a second; crystals do 50e-6 at worst, each
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Reading(NamedTuple):
    at: float  # monotonic, the middle of the round trip
    ahead: float  # the server's seconds since 1970 minus ours
    error: float  # half the round trip: the truth is no farther away than that


class ServerTime:
    """
    How far one server's clock is ahead of our monotonic one, and how sure that is.

    The server read its clock somewhere within the round trip, so that each reading is an interval. The narrowest holds,
    widened by what clocks may have drifted since; one that lies outside it says that the server's clock was set.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._readings: deque[_Reading] = deque(maxlen=MOST_READINGS)
        self._narrowest: _Reading | None = None  # they all widen alike, so that it stays the same until the next comes
        self.steps = 0  # how often it was found to have been set

    @property
    def is_known(self) -> bool:
        return bool(self._readings)

    def note(self, sent: float, received: float, shown: float) -> None:
        """A reply to TIME: asked at `sent`, there at `received` (monotonic), showing `shown` seconds since 1970."""
        reading = _Reading((sent + received) / 2, shown - (sent + received) / 2, max(0.0, received - sent) / 2)
        now = self._monotonic()
        known = [old for old in self._readings if now - old.at <= LONGEST_SECONDS]
        if any(abs(old.ahead - reading.ahead) > _width(old, now) + _width(reading, now) for old in known):
            self.steps += 1
            known = []
        self._readings = deque([*known, reading], maxlen=MOST_READINGS)
        self._narrowest = min(self._readings, key=lambda one: _width(one, now))

    def seconds(self) -> float:
        """Since 1970, now."""
        return self.at(self._monotonic())

    def at(self, monotonic: float) -> float:
        """Since 1970, at that moment of ours."""
        return monotonic + self._best().ahead

    def surely_before(self, monotonic: float) -> float:
        """What the server shows at that moment of ours at the earliest."""
        best = self._best()
        return monotonic + best.ahead - _width(best, self._monotonic())

    def _best(self) -> _Reading:
        if self._narrowest is None:
            raise RuntimeError("the server has not been asked for its time yet")
        return self._narrowest


def _width(reading: _Reading, now: float) -> float:
    return reading.error + DRIFT * max(0.0, now - reading.at)


class ServerClock:
    """
    The clock of everybody who shares the server: begun at its time, carried on by monotonic time, slewed to follow it.

    What this machine's own clock does is nothing to it, but for `wall`. It must be begun before it is read.
    """

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._aim: Callable[[], float] | None = None
        self._steady: Steady | None = None

    def follow(self, server: ServerTime) -> None:
        """From now on that server's time is aimed at; it may be another one than before. It must be known."""
        self._aim = aim = server.seconds
        if self._steady is None:
            self._steady = Steady(lambda: (self._aim or aim)(), self._machine.monotonic)

    def now(self) -> datetime:
        if self._steady is None:
            raise RuntimeError("the store's time is asked for before the store was reached")
        return _EPOCH + timedelta(seconds=self._steady.seconds())

    def wall(self) -> datetime:
        return self._machine.wall()

    def monotonic(self) -> float:
        return self._machine.monotonic()
