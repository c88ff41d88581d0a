"""Time, chance and names as things that are handed in: no room calls `time`, `random` or `uuid` by itself."""

from __future__ import annotations

import base64
import hashlib
import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i l o u, as Replicate's ids since 2024
_SHIFTS = tuple(range(125, -1, -5))


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, aware. Goes on evenly: deadlines and leases are counted by it."""
        ...

    def wall(self) -> datetime:
        """What others believe the time is, at this moment: for signatures and certificates, and for nothing else."""
        ...

    def monotonic(self) -> float:
        """Seconds, for durations inside one process."""
        ...


SLEW = 0.01  # of the time that passes: how fast a difference from the machine's clock is taken up


class SystemClock:
    """
    The machine's clock without its steps: begun at what it showed, carried on by the monotonic clock.

    A machine whose clock is set an hour forward must not let every deadline pass at once, nor one set back make a
    prediction wait an hour longer. What differs is taken up by SLEW, 36 s an hour. All of a process show the same.
    """

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=_steady.seconds())

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Steady:
    """Seconds since 1970 that never jump. `wall` and `monotonic` are what is read, in seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = (monotonic(), wall())  # in one piece: threads read and write it

    def seconds(self) -> float:
        then, shown = self._last
        now = self._monotonic()
        passed = max(0.0, now - then)
        shown += passed
        most = SLEW * passed
        shown += min(max(self._wall() - shown, -most), most)
        self._last = (max(now, then), shown)
        return shown


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_steady = Steady(time.time, time.monotonic)


class Ids(Protocol):
    def prediction(self) -> str:
        """26 characters, 130 random bits."""
        ...

    def token(self) -> str:
        """43 characters, 256 random bits: for callbacks, streams, artifacts."""
        ...


class RandomIds:
    """From the system's generator, which is asked for many bytes at once: a call costs more than what it brings."""

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0

    def prediction(self) -> str:
        bits = int.from_bytes(self._take(17), "big")
        return "".join([ID_ALPHABET[(bits >> shift) & 31] for shift in _SHIFTS])

    def token(self) -> str:
        return base64.urlsafe_b64encode(self._take(32)).rstrip(b"=").decode()

    def _take(self, count: int) -> bytes:
        if self._used + count > len(self._pool):
            self._pool, self._used = secrets.token_bytes(4096), 0
        self._used += count
        return self._pool[self._used - count : self._used]


class SeededIds:
    """For tests and simulated universes: the same seed, the same names."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - not for secrets: only tests use it

    def prediction(self) -> str:
        return "".join(self._random.choice(ID_ALPHABET) for _ in range(26))

    def token(self) -> str:
        return "".join(self._random.choice(ID_ALPHABET) for _ in range(43))


def hash_token(token: str) -> str:
    """What is stored of a token: 64 hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def derived_id(*parts: str) -> str:
    """26 characters of the id alphabet, always the same for the same parts."""
    digest = int.from_bytes(hashlib.sha256("\x00".join(parts).encode()).digest()[:17], "big") >> 6
    return "".join([ID_ALPHABET[(digest >> shift) & 31] for shift in _SHIFTS])
