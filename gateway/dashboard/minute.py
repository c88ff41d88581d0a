"""Counts of the last hour by the minute, bounded whatever comes. Knows no clock, and hears no announcement itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

MINUTES = 60
TROUBLE_MINUTES = 15
MOST_OFFERS = 2_000  # within a minute; what is beyond is counted in the totals only
MOST_MODELS = 500
MOST_TROUBLES = 100  # ways to fail within a minute; the rest is one more
MOST_OWNERS = 10  # named for each of them
REST = "others"

TroubleKey = tuple[str, str | None, str]  # model, provider, code
_REST_KEY: TroubleKey = (REST, None, REST)


class OfferCount:
    __slots__ = ("attempts", "good", "served", "served_nanos", "served_priced", "told")

    def __init__(self) -> None:
        self.attempts = 0  # ended
        self.told = 0  # of them, those whose end says something of the offer
        self.good = 0
        self.served = 0  # predictions that it won
        self.served_priced = 0  # of them, those whose cost is known
        self.served_nanos = 0


class ModelCount:
    __slots__ = ("deadline_misses", "ended")

    def __init__(self) -> None:
        self.ended = 0
        self.deadline_misses = 0


class TroubleCount:
    """`example` and `prediction` are those of the latest."""

    __slots__ = ("count", "example", "first_at", "last_at", "owners", "prediction")

    def __init__(self, at: datetime) -> None:
        self.count = 0
        self.owners: dict[str, int] = {}
        self.first_at = self.last_at = at
        self.example = ""
        self.prediction = ""

    def add(self, owner: str, at: datetime, example: str, prediction: str) -> None:
        self.count += 1
        if owner not in self.owners and len(self.owners) >= MOST_OWNERS:
            owner = REST
        self.owners[owner] = self.owners.get(owner, 0) + 1
        if at >= self.last_at:
            self.last_at, self.example, self.prediction = at, example, prediction
        self.first_at = min(self.first_at, at)

    def merge(self, other: TroubleCount) -> None:
        """`other` is of a later minute."""
        self.count += other.count
        for owner, count in other.owners.items():
            if owner not in self.owners and len(self.owners) >= 2 * MOST_OWNERS:
                owner = REST
            self.owners[owner] = self.owners.get(owner, 0) + count
        self.last_at, self.example, self.prediction = other.last_at, other.example, other.prediction


class Minute:
    __slots__ = (
        "canceled",
        "created",
        "failed",
        "maybe",
        "maybe_nanos",
        "models",
        "nanos",
        "number",
        "offers",
        "ran",
        "rescued",
        "succeeded",
        "troubles",
        "unknown",
        "wasted",
    )

    def __init__(self, number: int) -> None:
        self.number = number  # minutes since 1970
        self.created = self.succeeded = self.failed = self.canceled = self.rescued = 0
        self.nanos = 0  # known costs of attempts that ended
        self.wasted = 0  # of them, of those that did not serve
        self.ran = 0  # attempts that ended, ran, and were not left unresolved
        self.unknown = 0  # of them, those whose price nobody knows
        self.maybe = 0  # attempts that ended unresolved: they may be billed
        self.maybe_nanos = 0
        self.offers: dict[str, OfferCount] = {}
        self.models: dict[str, ModelCount] = {}
        self.troubles: dict[TroubleKey, TroubleCount] = {}

    def offer(self, id: str) -> OfferCount:
        found = self.offers.get(id)
        if found is None:
            if len(self.offers) >= MOST_OFFERS:
                id = REST
            found = self.offers.setdefault(id, OfferCount())
        return found

    def model(self, name: str) -> ModelCount:
        found = self.models.get(name)
        if found is None:
            if len(self.models) >= MOST_MODELS:
                name = REST
            found = self.models.setdefault(name, ModelCount())
        return found

    def trouble(self, key: TroubleKey, at: datetime) -> TroubleCount:
        found = self.troubles.get(key)
        if found is None:
            if len(self.troubles) >= MOST_TROUBLES:
                key = _REST_KEY
            found = self.troubles.setdefault(key, TroubleCount(at))
        return found


class Minutes:
    """The last sixty, of those in which something happened."""

    def __init__(self) -> None:
        self._minutes: dict[int, Minute] = {}
        self._newest = 0

    def at(self, moment: datetime) -> Minute | None:
        """The minute of `moment`; None if it is an hour ago, as seen from the newest."""
        number = int(moment.timestamp()) // 60
        found = self._minutes.get(number)
        if found is not None:
            return found
        if number <= self._newest - MINUTES:
            return None
        found = self._minutes[number] = Minute(number)
        if number > self._newest:
            self._newest = number
            self._forget()
        return found

    def since(self, now: datetime, minutes: int = MINUTES) -> Iterator[Minute]:
        """Of the last so many minutes up to `now`, oldest first."""
        last = int(now.timestamp()) // 60
        for number in range(last - minutes + 1, last + 1):
            found = self._minutes.get(number)
            if found is not None:
                yield found

    def __len__(self) -> int:
        return len(self._minutes)

    def _forget(self) -> None:
        for number in [number for number in self._minutes if number <= self._newest - MINUTES]:
            del self._minutes[number]
        for minute in self._minutes.values():
            if minute.number <= self._newest - TROUBLE_MINUTES - 1:
                minute.troubles = {}
