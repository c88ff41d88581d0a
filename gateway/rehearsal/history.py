"""
Offers that behave as they were recorded: what comes of an attempt is what came of another one there, at about that time
and of about that size. Nearest-neighbour resampling: times, failures and bills stay together, and outages stay where
they were. It knows no policy.
"""

from __future__ import annotations

import bisect
import random
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from gateway.contract.money import NANOS
from gateway.rehearsal.play import Ended
from gateway.rehearsal.trace import FAILED, GOOD, REFUSED, STOPPED, Asked, Tried
from gateway.routing.unit import size_of

NEIGHBOURS = 30  # of which one is drawn
ENOUGH = 8  # attempts of one size, below which those of other sizes stand in
STOPPED_BILL = 0.5  # of the price, where nobody has seen what is billed for what is stopped
DEAD_SECONDS = 1.0  # until it is known that a provider is gone
REFUSAL_SECONDS = 0.1


class WhatIf(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be different from what was recorded."""

    dead: frozenset[str] = frozenset()  # providers that fail whatever they are sent
    prices: dict[str, float] = msgspec.field(default_factory=dict)  # provider → times its price


class _Past:
    """What is known of one offer for work of one size, by age."""

    def __init__(self, tried: Sequence[Tried]) -> None:
        self._tried = sorted(tried, key=lambda one: one.at)
        self._at = [one.at for one in self._tried]

    def __len__(self) -> int:
        return len(self._tried)

    def near(self, now: float) -> Sequence[Tried]:
        """The NEIGHBOURS that are nearest in time."""
        place = bisect.bisect_left(self._at, now)
        first, last = place, place
        while last - first < min(NEIGHBOURS, len(self._tried)):
            goes_back = first > 0 and (last >= len(self._at) or now - self._at[first - 1] <= self._at[last] - now)
            first, last = (first - 1, last) if goes_back else (first, last + 1)
        return self._tried[first:last]


class History:
    """
    A `play.House`. The same prediction meets the same luck at an offer in every run of one seed; where it was really
    sent there, it meets what it met.

    An offer of which nothing was recorded behaves as its model's others do.
    """

    def __init__(self, asked: Sequence[Asked], *, what_if: WhatIf | None = None, seed: int = 0) -> None:
        self._asked = asked
        self._what_if = what_if or WhatIf()
        self._seed = seed
        by_size: defaultdict[tuple[str, int], list[Tried]] = defaultdict(list)
        by_offer: defaultdict[str, list[Tried]] = defaultdict(list)
        by_model: defaultdict[str, list[Tried]] = defaultdict(list)
        stops: defaultdict[str, list[float]] = defaultdict(list)
        for one in asked:
            size = size_of(one.facts)
            for tried in one.tried:
                if tried.how == STOPPED:
                    if tried.nanos is not None and tried.expected_nanos:
                        stops[tried.offer].append(tried.nanos / tried.expected_nanos)
                    continue
                by_size[tried.offer, size].append(tried)
                by_offer[tried.offer].append(tried)
                by_model[one.model].append(tried)
        self._by_size = {key: _Past(tried) for key, tried in by_size.items() if len(tried) >= ENOUGH}
        self._by_offer = {offer: _Past(tried) for offer, tried in by_offer.items()}
        self._by_model = {model: _Past(tried) for model, tried in by_model.items()}
        self._stops = {offer: sum(shares) / len(shares) for offer, shares in stops.items()}

    def attempts(self, offer: str) -> int:
        """How many were recorded there."""
        past = self._by_offer.get(offer)
        return 0 if past is None else len(past)

    def expected_nanos(self, prediction: int, offer: str) -> int | None:
        """What it was expected to cost there, as prices are supposed to be; None: nobody reckoned it."""
        nanos = self._asked[prediction].expected.get(offer)
        return None if nanos is None else round(nanos * self.price_factor(offer))

    def price_factor(self, offer: str) -> float:
        return self._what_if.prices.get(_provider(offer), 1.0)

    def take(self, prediction: int, offer: str, now: float) -> Ended:
        if _provider(offer) in self._what_if.dead:
            return Ended(prediction, offer, now, now + DEAD_SECONDS, False, False, 0.0, 0.0)
        tried = self._met(prediction, offer, now)
        if tried is None:
            return Ended(prediction, offer, now, now + DEAD_SECONDS, False, False, 0.0, 0.0)
        if tried.how == REFUSED:
            return Ended(prediction, offer, now, now + REFUSAL_SECONDS, False, True, 0.0, 0.0)
        dollars = self._dollars(prediction, offer, tried)
        start = min(tried.start_seconds or 0.0, tried.seconds)
        return Ended(prediction, offer, now, now + tried.seconds, tried.how == GOOD, False, start, dollars)

    def stopped(self, ended: Ended, until: float) -> Ended:
        share = self._stops.get(ended.offer, STOPPED_BILL) if ended.is_good else 1.0
        start = min(ended.start_seconds, until - ended.begun)
        return ended._replace(now=until, is_good=False, dollars=ended.dollars * share, start_seconds=start)

    def leave(self, ended: Ended) -> None:
        """Nobody's load is felt here: what was recorded was recorded under the load of its time."""

    def _met(self, prediction: int, offer: str, now: float) -> Tried | None:
        asked = self._asked[prediction]
        for tried in asked.tried:
            if tried.offer == offer and tried.how in (GOOD, FAILED):
                return tried
        past = self._by_size.get((offer, size_of(asked.facts))) or self._by_offer.get(offer)
        if past is None:
            past = self._by_model.get(asked.model)
        if past is None:
            return None
        near = past.near(now)
        return near[int(random.Random(f"{self._seed} {asked.id} {offer}").random() * len(near))]

    def _dollars(self, prediction: int, offer: str, tried: Tried) -> float:
        """Billed as it was there, in proportion to what this prediction was expected to cost."""
        expected = self.expected_nanos(prediction, offer)
        if tried.nanos is None:
            return (expected or 0) / NANOS if tried.how == GOOD else 0.0
        if tried.expected_nanos and expected is not None:
            return expected * tried.nanos / tried.expected_nanos / NANOS
        return tried.nanos * self.price_factor(offer) / NANOS


def _provider(offer: str) -> str:
    return offer.rpartition("@")[2].partition("#")[0]
