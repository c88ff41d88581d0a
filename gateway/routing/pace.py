"""
The rate that an offer's limit seems to be, learned from its refusals: a sixth less at each, a little more while none
comes. Decides nothing, and waits for nobody.
"""

from __future__ import annotations

import math
from collections import deque

DECREASE = 0.85  # of the rate, at a refusal
INCREASE_PER_SECOND = 0.01  # of the rate, while none comes
SEEN_SECONDS = 10.0  # over which the rate of admissions is measured
LEAST_PER_SECOND = 1 / 60
FORGOTTEN_SECONDS = 600.0  # without a refusal: there is no limit any more
BURST_SECONDS = 0.5  # so much of what was not used may be used at once, and one attempt at least


class Pace:
    """Attempts an offer has been sent, and may be. Times are the monotonic clock's. Until the first refusal: any."""

    __slots__ = ("_at", "_refused_at", "_sent", "_tokens", "per_second")

    def __init__(self) -> None:
        self.per_second = math.inf
        self._sent: deque[float] = deque(maxlen=4096)
        self._refused_at = -math.inf
        self._tokens = 0.0
        self._at = 0.0

    def admitted(self, now: float) -> None:
        self._sent.append(now)
        if self.per_second != math.inf:
            self._fill(now)
            self._tokens -= 1.0

    def refused(self, now: float, *, begun: float) -> None:
        """An attempt that was sent at `begun` was refused. Those of one rush count as one refusal."""
        if begun <= self._refused_at:
            return
        rate = self._seen_per_second(now) if self.per_second == math.inf else self.per_second
        self.per_second = max(rate * DECREASE, LEAST_PER_SECOND)
        self._refused_at = now
        self._tokens, self._at = 0.0, now

    def wait_seconds(self, now: float) -> float:
        """Until one more may be sent; 0: now."""
        if self.per_second == math.inf:
            return 0.0
        if now - self._refused_at > FORGOTTEN_SECONDS:
            self.per_second = math.inf
            return 0.0
        self._fill(now)
        return max((1.0 - self._tokens) / self.per_second, 0.0)

    def _fill(self, now: float) -> None:
        past = now - self._at
        if past <= 0:
            return
        self.per_second *= math.exp(INCREASE_PER_SECOND * past)
        self._tokens = min(self._tokens + self.per_second * past, max(self.per_second * BURST_SECONDS, 1.0))
        self._at = now

    def _seen_per_second(self, now: float) -> float:
        """What went there lately, refused or not."""
        count = 0
        for at in reversed(self._sent):
            if at < now - SEEN_SECONDS:
                break
            count += 1
        since = min(SEEN_SECONDS, max(now - self._sent[0], 1.0)) if self._sent else SEEN_SECONDS
        return max(count / since, LEAST_PER_SECOND)
