"""Sequences found for a goal, kept for a moment: finding them takes milliseconds, and plans are made every one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from gateway.contract.clock import Clock
from gateway.contract.route import Candidate
from policies.goal import Aim, aims

KEPT_SECONDS = 0.25  # as long as the figures they are made of
MOST_KEPT = 512
_FINENESS = 50.0  # times that differ by less than two per cent are one


class RememberedAims:
    """A `policies.goal.Solve`. What it answers may be a quarter of a second old, or for a time two per cent longer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, list[Aim]]] = {}

    def __call__(
        self, candidates: Sequence[Candidate], *, success: float, within_seconds: float, attempts: int
    ) -> list[Aim]:
        now = self._clock.monotonic()
        key = (
            tuple(candidate.offer.id for candidate in candidates),
            tuple(candidate.expected_nanos for candidate in candidates),
            success,
            attempts,
            math.ceil(math.log(within_seconds) * _FINENESS),
        )
        known = self._kept.get(key)
        if known is not None and now - known[0] < KEPT_SECONDS:
            return known[1]
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        found = aims(candidates, success=success, within_seconds=within_seconds, attempts=attempts)
        self._kept[key] = now, found
        return found
