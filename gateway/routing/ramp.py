"""
The return of an offer that was away: what waited for it goes there bit by bit, the oldest first. It sends nothing.

A thousand predictions that waited for a provider would be its next outage if they all came in its first second.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from datetime import datetime

from gateway.contract.clock import Clock

RAMP_SECONDS = 30.0  # until its usual rate is reached
FIRST_SHARE = 0.1  # of the usual rate, at the beginning
LEAST_PER_SECOND = 1.0  # even at the beginning
UNKNOWN_PER_SECOND = 10.0  # where nothing tells the usual rate, or what was seen is less
AWAY_SECONDS = 5.0  # a shorter absence is none
BURST_SECONDS = 0.25  # so much of what nobody took may be taken late
MISSING_SECONDS = 5.0  # who has not asked again for so long does not wait any more
LOOKS_PER_SECOND = 250.0  # of all who wait for what has no known end
MOST_LOOK_SECONDS = 1.0  # a plan that says to wait for no longer means: look again

_SLOT_SECONDS = 10.0
_SLOTS = 30

Place = tuple[datetime, str]  # in the queue: when a prediction was made, and its id


class Ramps:
    """
    All offers' ramps. The planner tells what it sees of an offer, who waits for it, and who goes there.

    Every answer is arithmetic over the clock. Local to the process, as the breakers are.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ramps: dict[str, Ramp] = {}
        self._usual: dict[str, _Usual] = {}
        self._looking = Queue()

    def away(self, offer: str) -> None:
        """Nothing may be sent there now."""
        ramp = self._ramps.get(offer)
        if ramp is None:
            self._ramps[offer] = Ramp(self._clock.monotonic())
        elif ramp.began_at is not None:
            ramp.relapse()

    def is_back(self, offer: str) -> bool:
        """It was not away, or has long been back: nobody waits for a turn there."""
        return offer not in self._ramps

    def turn_seconds(self, offer: str, *, place: Place | None, capacity_per_second: float | None) -> float:
        """
        When it is the turn of a prediction, or of one that came now; 0: it may go there. Counts nobody.

        `capacity_per_second`: what the offer can take, where a limit and its usual time tell.
        """
        ramp = self._ramps.get(offer)
        if ramp is None:
            return 0.0
        now = self._clock.monotonic()
        if ramp.began_at is None and now - ramp.away_since >= AWAY_SECONDS:
            usual = self._usual.get(offer)
            seen = max(usual.per_second() if usual is not None else 0.0, UNKNOWN_PER_SECOND)
            ramp.begin(now, capacity_per_second or seen)
        if ramp.began_at is None or ramp.is_over(now):
            del self._ramps[offer]
            return 0.0
        return ramp.turn_seconds(now, place)

    def wait(self, offer: str, place: Place, *, seconds: float) -> None:
        """This prediction waits for the offer, among others perhaps, and asks again after so long."""
        ramp = self._ramps.get(offer)
        if ramp is not None:
            ramp.queue.enter(self._clock.monotonic(), place, seconds)

    def again_seconds(self, place: Place, seconds: float) -> float:
        """
        When to look again for something that has no known end, such as a free slot: at least after `seconds`.

        The more wait the less often each looks, and the oldest most often: so they find what is free, and ten thousand
        that wait leave the machine time for something else.
        """
        now = self._clock.monotonic()
        again = max(seconds, self._looking.rank(place) / LOOKS_PER_SECOND)
        self._looking.enter(now, place, again)
        return again

    def admit(self, offer: str, place: Place) -> None:
        """This prediction goes there."""
        now, ramp = self._clock.monotonic(), self._ramps.get(offer)
        if ramp is not None and ramp.began_at is not None:
            ramp.admit(now)
        else:
            self._usual.setdefault(offer, _Usual()).count(now)
        self.leave(place)

    def leave(self, place: Place) -> None:
        """It waits for nothing any more."""
        self._looking.leave(place)
        for ramp in self._ramps.values():
            ramp.queue.leave(place)


class Queue:
    """Who waits, by age. Whoever does not ask again in time is not in it any more."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._until: dict[Place, float] = {}  # it will have asked again by then, or is gone
        self._pruned_at = -math.inf

    def __len__(self) -> int:
        return len(self._places)

    def rank(self, place: Place) -> int:
        """How many are older."""
        return bisect.bisect_left(self._places, place)

    def enter(self, now: float, place: Place, seconds: float) -> None:
        self.prune(now)
        if place not in self._until:
            bisect.insort(self._places, place)
        self._until[place] = now + seconds + MISSING_SECONDS

    def leave(self, place: Place) -> None:
        if self._until.pop(place, None) is not None:
            del self._places[bisect.bisect_left(self._places, place)]

    def expect_all(self, now: float) -> None:
        """Who was told to ask much later than this sleeps still: nobody waits for the sleeper."""
        self._until = {place: min(until, now + MISSING_SECONDS) for place, until in self._until.items()}

    def prune(self, now: float) -> None:
        if now - self._pruned_at < 1.0:
            return
        self._pruned_at = now
        if any(until < now for until in self._until.values()):
            self._until = {place: until for place, until in self._until.items() if until >= now}
            self._places = sorted(self._until)


class Ramp:
    """One absence of one offer, and its return. Times are the monotonic clock's."""

    def __init__(self, away_since: float) -> None:
        self.away_since = away_since
        self.began_at: float | None = None
        self.queue = Queue()
        self._level = 1.0  # how many may go now
        self._level_at = 0.0
        self._first = self._growth = 0.0  # per second, per second and second

    def relapse(self) -> None:
        """It is away again before all have gone: its next return is slow as well, however soon it comes."""
        self.away_since, self.began_at, self._level = -math.inf, None, 1.0

    def begin(self, now: float, usual_per_second: float) -> None:
        self.began_at = self._level_at = now
        self._first = max(FIRST_SHARE * usual_per_second, LEAST_PER_SECOND)
        self._growth = max(usual_per_second - self._first, 0.0) / RAMP_SECONDS
        self.queue.expect_all(now)

    def is_over(self, now: float) -> bool:
        self.queue.prune(now)
        return self.began_at is None or (now - self.began_at >= RAMP_SECONDS and not self.queue)

    def turn_seconds(self, now: float, place: Place | None) -> float:
        self._fill(now)
        rank = len(self.queue) if place is None else self.queue.rank(place)
        missing = rank + 1 - self._level
        # It grows on beyond the usual rate while somebody waits: what the offer can take may have grown as well.
        return 0.0 if missing <= 1e-9 else _solve(self._rate(now), self._growth, missing)

    def admit(self, now: float) -> None:
        self._fill(now)
        self._level -= 1.0

    def _rate(self, now: float) -> float:
        return self._first + self._growth * (now - (self.began_at or now))

    def _fill(self, now: float) -> None:
        seconds = now - self._level_at
        if seconds > 0:
            rate = (self._rate(self._level_at) + self._rate(now)) / 2
            self._level = min(self._level + rate * seconds, max(1.0, self._rate(now) * BURST_SECONDS))
            self._level_at = now


class _Usual:
    """How many went there per second, in the busiest ten seconds of the last five minutes of peace."""

    def __init__(self) -> None:
        self._slots: deque[list[int]] = deque(maxlen=_SLOTS)  # [slot number, admissions]

    def count(self, now: float) -> None:
        number = int(now / _SLOT_SECONDS)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0])
        self._slots[-1][1] += 1

    def per_second(self) -> float:
        newest = self._slots[-1][0] if self._slots else 0
        counts = [count for number, count in self._slots if number > newest - _SLOTS]
        return max(counts, default=0) / _SLOT_SECONDS


def _solve(rate: float, growth: float, amount: float) -> float:
    """After how many seconds a rate that grows evenly has brought `amount`."""
    if growth <= 1e-9:
        return amount / rate
    return (math.sqrt(rate * rate + 2 * growth * amount) - rate) / growth
