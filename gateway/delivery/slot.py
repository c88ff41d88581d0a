"""How many tries may be on their way at once, by what is known of their receivers. Begins none itself."""

from __future__ import annotations

from collections import Counter

from gateway.delivery.lane import Trust

# What is on its way costs a task, a connection and a body in memory; so the bound may be generous. A receiver that
# says nothing holds its slot until it times out, and then it is suspect: those that were never heard of cannot take
# more than half of all slots meanwhile, so that those that answered last time always find a quarter.
MAX_IN_FLIGHT = 256
MAX_UNKNOWN_IN_FLIGHT = 128
MAX_SUSPECT_IN_FLIGHT = 64

_MOST = {Trust.PROVEN: MAX_IN_FLIGHT, Trust.UNKNOWN: MAX_UNKNOWN_IN_FLIGHT, Trust.SUSPECT: MAX_SUSPECT_IN_FLIGHT}


class Slots:
    """Whoever begins a try takes one, and frees it as the same: what is known may be another thing by then."""

    def __init__(self) -> None:
        self._taken: Counter[Trust] = Counter()

    def has_one(self, trust: Trust) -> bool:
        return self._taken.total() < MAX_IN_FLIGHT and self._taken[trust] < _MOST[trust]

    def take(self, trust: Trust) -> None:
        self._taken[trust] += 1

    def free(self, trust: Trust) -> None:
        self._taken[trust] -= 1
