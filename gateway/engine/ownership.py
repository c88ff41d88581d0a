"""Says which listed jobs can only be one attempt's, as far as our store knows. Asks no provider."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.likeness import likeness
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Found
from gateway.store.protocol import Page, Search

log = logging.getLogger("turnout.engine")

SKEW = timedelta(seconds=30)  # the provider's clock and ours
LONGEST_LIFE = timedelta(days=1)  # of predictions whose attempts may be mistaken for each other
PAGE = 200
MOST_PAGES = 250
_CHUNK = 100  # in one go: what is done for thousands must not hold up the loop

_MAY_OWN_IT = (AttemptStatus.INTENT, AttemptStatus.UNKNOWN, AttemptStatus.ABANDONED)

Key = tuple[str, int]  # a prediction's id, and the number of one of its attempts


class Reader(Protocol):
    """The part of a store that tells whose job a job may be."""

    async def get(self, id: str) -> Prediction | None: ...

    async def search_predictions(self, search: Search, *, position: str | None = None, limit: int = 100) -> Page: ...


class Fit(NamedTuple):
    """A job that may be this attempt's, by all that its provider shows of it."""

    prediction: Prediction
    attempt: Attempt
    job: Found

    @property
    def key(self) -> Key:
        return self.prediction.id, self.attempt.number


class _Span(NamedTuple):
    """When an attempt's bytes may have left."""

    key: Key
    begun_at: datetime
    until: datetime


class Ownership:
    """
    For one look through a provider's list; the store is searched once for all fits.

    Another attempt has the job, or may have: one of the same input whose own submit nobody answered. Two callers may
    ask for the same thing in the same second, and one job must not count as both of theirs.
    """

    def __init__(self, store: Reader, provider: str) -> None:
        self._store = store
        self._provider = provider

    async def settle(self, fits: Sequence[Fit]) -> set[Key]:
        """Those of the attempts whose job can be no other's. Raises StoreError."""
        fitted: dict[str | None, set[Key]] = defaultdict(set)
        for fit in fits:
            fitted[fit.job.handle.get("id")].add(fit.key)
        left = {fit.key: fit for fit in fits if len(fitted[fit.job.handle.get("id")]) == 1}
        if left:
            rivals = await self._look_through(left)
            await self._rule_out(left, rivals)
        return set(left)

    async def _look_through(self, left: dict[Key, Fit]) -> list[_Span]:
        """Take out those whose job another attempt has. Returns who may have one, of about that time."""
        spans = [_span(key, fit.attempt) for key, fit in left.items()]
        time = _Span(("", 0), min(span.begun_at for span in spans), max(span.until for span in spans))
        owners = {fit.job.handle.get("id"): key for key, fit in left.items()}
        query = Search(provider=self._provider, created_after=time.begun_at - LONGEST_LIFE)
        position: str | None = None
        rivals: list[_Span] = []
        for _ in range(MOST_PAGES):
            page = await self._store.search_predictions(query, position=position, limit=PAGE)
            for key, attempt in self._attempts(page):
                if attempt.handle is not None:
                    owner = owners.get(attempt.handle.get("id"), key)
                    if owner != key:
                        left.pop(owner, None)
                elif attempt.status in _MAY_OWN_IT and _are_close(span := _span(key, attempt), time):
                    rivals.append(span)
            position = page.next
            if position is None or not left:
                return rivals
            await asyncio.sleep(0)
        log.warning("too many predictions at %s to say whose the jobs are that it lists", self._provider)
        left.clear()
        return []

    def _attempts(self, page: Page) -> Iterator[tuple[Key, Attempt]]:
        for prediction in page.predictions:
            for attempt in prediction.attempts:
                if attempt.provider == self._provider:
                    yield (prediction.id, attempt.number), attempt

    async def _rule_out(self, left: dict[Key, Fit], rivals: Sequence[_Span]) -> None:
        """Take out those whose job may be another's, who asked for the same at about the same time."""
        inputs = {fit.prediction.id: fit.prediction.request.input for fit in left.values()}
        alike: dict[Hashable, list[_Span]] = defaultdict(list)
        for number, rival in enumerate(rivals if left else ()):
            id = rival.key[0]
            if id not in inputs:
                prediction = await self._store.get(id)
                if prediction is None:
                    continue
                inputs[id] = prediction.request.input
            alike[likeness(inputs[id])].append(rival)
            await _breathe(number)
        for number, (key, fit) in enumerate(list(left.items())):
            input, span = fit.prediction.request.input, _span(key, fit.attempt)
            if any(
                rival.key != key and _are_close(rival, span) and inputs[rival.key[0]] == input
                for rival in alike.get(likeness(input), ())
            ):
                del left[key]
            await _breathe(number)


def _span(key: Key, attempt: Attempt) -> _Span:
    return _Span(key, attempt.begun_at, attempt.unknown_at or attempt.ended_at or attempt.begun_at)


def _are_close(one: _Span, other: _Span) -> bool:
    return one.begun_at - 2 * SKEW <= other.until and other.begun_at - 2 * SKEW <= one.until


async def _breathe(number: int) -> None:
    if number % _CHUNK == _CHUNK - 1:
        await asyncio.sleep(0)
