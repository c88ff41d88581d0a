"""Tells which listed jobs many submits that nobody answered may have started. Reads no answer, and asks nobody."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Any

from gateway.contract.likeness import likeness
from gateway.contract.provider import Call, Found, Listed, Unanswered

MOST_FITTING = 2  # of several that fit nobody can say which one it is


class Lookout:
    """
    First all that are looked for (`expect`), then all that is listed (`see`), then the answers (`found`).

    Where one of the two says where to call back, that decides: the address was given to one attempt alone. Else the
    job must have the call's marks, and the very same input. A job that stands on two pages is one job.
    """

    def __init__(self) -> None:
        self._reached: datetime | None = None  # when the oldest that was seen was made
        self._seen: set[str] = set()
        self._addressed: dict[str, list[Found]] = {}
        self._parties: dict[Hashable, list[_Party]] = {}  # by the likeness of their input

    def expect(self, call: Call, marks: Mapping[str, str]) -> None:
        if call.callback_url is not None:
            self._addressed.setdefault(call.callback_url, [])
        elif self._party(call, marks) is None:
            self._parties.setdefault(likeness(call.input), []).append(_Party(call.input, marks))

    def see(self, job: Listed) -> None:
        if job.created_at is not None and (self._reached is None or job.created_at < self._reached):
            self._reached = job.created_at
        id = job.handle.get("id")
        if id is not None:
            if id in self._seen:
                return
            self._seen.add(id)
        if job.callback_url:
            addressed = self._addressed.get(job.callback_url)
            if addressed is not None:
                addressed.append(Found(handle=job.handle, created_at=job.created_at, is_certain=True))
        elif self._parties:
            for party in self._parties.get(likeness(job.input), ()):
                if party.input == job.input and party.marks.items() <= job.marks.items():
                    party.add(Found(handle=job.handle, created_at=job.created_at))

    def is_past(self, since: datetime) -> bool:
        """Lists begin with the newest: what is not seen yet was made before then."""
        return self._reached is not None and self._reached < since

    def found(self, submit: Unanswered, marks: Mapping[str, str]) -> tuple[Found, ...]:
        """What was seen of it, if it is one of those that are expected."""
        if submit.call.callback_url is None:
            party = self._party(submit.call, marks)
            return () if party is None else party.between(submit.since, submit.until)
        jobs = self._addressed.get(submit.call.callback_url, ())
        return tuple(job for job in jobs if job.created_at is None or job.created_at >= submit.since)

    def _party(self, call: Call, marks: Mapping[str, str]) -> _Party | None:
        for party in self._parties.get(likeness(call.input), ()):
            if party.marks == marks and party.input == call.input:
                return party
        return None


class _Party:
    """All who ask for the same: thousands may, and share what is found."""

    def __init__(self, input: Any, marks: Mapping[str, str]) -> None:
        self.input = input
        self.marks = marks
        self._dated: list[tuple[datetime, Found]] = []
        self._undated: list[Found] = []
        self._is_sorted = True

    def add(self, job: Found) -> None:
        if job.created_at is None:
            self._undated.append(job)
        else:
            self._dated.append((job.created_at, job))
            self._is_sorted = False

    def between(self, since: datetime, until: datetime) -> tuple[Found, ...]:
        if not self._is_sorted:
            self._dated.sort(key=_made_at)
            self._is_sorted = True
        first = bisect_left(self._dated, since, key=_made_at)
        dated = self._dated[first : first + MOST_FITTING]
        found = [*self._undated[:MOST_FITTING], *(job for moment, job in dated if moment <= until)]
        return tuple(found[:MOST_FITTING])


def _made_at(dated: tuple[datetime, Found]) -> datetime:
    return dated[0]
