"""How far claims have looked past deliveries that they leave out. It reads and claims none itself."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

PIECE = 500  # rows that one look passes over, in some 2 ms; other work goes between
# Of one claim. Whoever claims rests after one that brings little: what a long backlog costs is the rests, and not the
# walk, so that a claim goes as far as it can in less than a second.
MOST_PIECES = 200
AGAIN_MICROS = 10_000_000

At = TypeVar("At")
Lanes = frozenset[tuple[str, str]]  # owners and hosts


class Place(msgspec.Struct, Generic[At], kw_only=True, frozen=True):
    """
    All that is due before `at` was left out because of `excluded`, or claimed.

    So a dead receiver's backlog is walked once, not with every claim: the next one goes on here. What another process
    gives back lies before it; so a long walk begins anew every ten seconds, and a short one with every claim.
    """

    at: At
    excluded: Lanes
    passed: int  # rows before it that were left out
    begun: int  # microseconds

    def is_good_for(self, excluded: Lanes) -> bool:
        return self.excluded <= excluded

    def kept(self, now: int, *, is_through: bool) -> Place[At] | None:
        """As the next claim goes on from it; None: from the start."""
        is_old = is_through and now - self.begun >= AGAIN_MICROS
        return None if self.passed < PIECE or is_old else self
