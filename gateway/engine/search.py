"""Finds the job that an unanswered submit has started, in the provider's own list. Commits nothing, stops nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import PollFailed
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Found
from gateway.engine.attempt import call_of
from gateway.engine.parts import Parts
from gateway.store.protocol import Page
from gateway.store.protocol import Search as Query

log = logging.getLogger("turnout.engine")

SKEW_SECONDS = 30.0  # the provider's clock and ours
LONGEST_LIFE = timedelta(days=1)  # of predictions whose attempts may be mistaken for each other
MOST_PAGES = 20
# A list is long, and after a crash there are many to look for: they must not be a provider's next outage.
AT_ONCE = 2  # of each provider
WAIT_SECONDS = 5.0  # for the others; then it is another time's turn

_MAY_OWN_IT = (AttemptStatus.INTENT, AttemptStatus.UNKNOWN, AttemptStatus.ABANDONED)

Find = Callable[[Prediction, Attempt], Awaitable[dict[str, str] | None]]


class Reader(Protocol):
    """The part of a store that tells whose job a job may be."""

    async def get(self, id: str) -> Prediction | None: ...

    async def search_predictions(self, search: Query, *, position: str | None = None, limit: int = 100) -> Page: ...


class Search:
    """For all runs of a process."""

    def __init__(self, parts: Parts, store: Reader) -> None:
        self._parts = parts
        self._store = store
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def find(self, prediction: Prediction, attempt: Attempt) -> dict[str, str] | None:
        """
        The handle of the one job that can only be this attempt's; None if there is none, or more than one.

        A list may lag behind, so that None tells nothing. Raises PollFailed, StoreError.
        """
        offer, link = self._parts.offer(attempt.offer), self._parts.links.get(attempt.provider)
        if offer is None or link is None or not link.capabilities_for(offer).lists:
            return None
        # Files are not made ready again: of an input that holds some, only the callback's address tells.
        call = call_of(
            prediction,
            attempt,
            offer,
            link,
            prediction.request.input,
            callback_base=self._parts.callback_base,
            secret=self._parts.secret,
            now=self._parts.clock.now(),
        )
        skew = timedelta(seconds=SKEW_SECONDS)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._slots[attempt.provider].acquire()
        except TimeoutError:
            raise PollFailed("others are looking through its list") from None
        try:
            jobs = await link.driver.find(call, since=attempt.begun_at - skew)
        finally:
            self._slots[attempt.provider].release()
        certain = [job for job in jobs if job.is_certain]
        if certain:
            return certain[0].handle if len(certain) == 1 else None
        until = (attempt.unknown_at or attempt.begun_at) + skew
        fitting = [job for job in jobs if job.created_at is None or job.created_at <= until]
        if len(fitting) != 1 or await self._may_be_anothers(fitting[0], prediction, attempt):
            return None
        return fitting[0].handle

    async def _may_be_anothers(self, job: Found, prediction: Prediction, attempt: Attempt) -> bool:
        """
        Another attempt has this job, or may have: one of the same input whose own submit nobody answered.

        Two callers may ask for the same thing in the same second, and one job must not count as both of theirs.
        """
        query = Query(provider=attempt.provider, created_after=attempt.begun_at - LONGEST_LIFE)
        position: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._store.search_predictions(query, position=position)
            for other in page.predictions:
                for theirs in other.attempts:
                    is_itself = (other.id, theirs.number) == (prediction.id, attempt.number)
                    if theirs.provider != attempt.provider or is_itself:
                        continue
                    if theirs.handle is not None and theirs.handle.get("id") == job.handle.get("id"):
                        return True
                    may_own_it = theirs.handle is None and theirs.status in _MAY_OWN_IT and _are_close(theirs, attempt)
                    if may_own_it and await self._asks_the_same(other.id, prediction):
                        return True
            position = page.next
            if position is None:
                return False
        log.warning("too many predictions at %s to say whose a job is that it lists", attempt.provider)
        return True

    async def _asks_the_same(self, id: str, prediction: Prediction) -> bool:
        other = await self._store.get(id)
        return other is not None and other.request.input == prediction.request.input


def _are_close(one: Attempt, other: Attempt) -> bool:
    reach = timedelta(seconds=2 * SKEW_SECONDS)
    return _span(one)[0] - reach <= _span(other)[1] and _span(other)[0] - reach <= _span(one)[1]


def _span(attempt: Attempt) -> tuple[datetime, datetime]:
    """When its bytes may have left."""
    return attempt.begun_at, attempt.unknown_at or attempt.ended_at or attempt.begun_at
