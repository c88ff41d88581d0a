"""Time, chance and names as things that are handed in: no room calls `time`, `random` or `uuid` by itself."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i l o u, as Replicate's ids since 2024


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Seconds, for durations inside one process."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Ids(Protocol):
    def prediction(self) -> str:
        """26 characters, 130 random bits."""
        ...

    def token(self) -> str:
        """43 characters, 256 random bits: for callbacks, streams, artifacts."""
        ...


class RandomIds:
    def prediction(self) -> str:
        bits = secrets.randbits(130)
        return "".join(ID_ALPHABET[(bits >> shift) & 31] for shift in range(125, -1, -5))

    def token(self) -> str:
        return secrets.token_urlsafe(32)


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
    return "".join(ID_ALPHABET[(digest >> shift) & 31] for shift in range(125, -1, -5))
