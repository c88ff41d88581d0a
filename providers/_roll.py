"""Reads a provider's list of jobs once for all who look for theirs. Whose a job may be the lookout says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from gateway.contract.clock import Clock
from gateway.contract.errors import PollFailed, ProviderFailure
from gateway.contract.provider import Adapter, Found, HttpRequest, HttpResponse, Listing, Sighting, Unanswered
from providers._follow import Ask
from providers._lookout import Lookout

# One reading serves thousands, so that it may be long: a gateway may have 10,000 in flight, and as many may have ended
# meanwhile; Replicate shows a hundred on a page. The time is for those who wait until it is read.
MAX_PAGES = 200
LIST_SECONDS = 10.0  # after which no further page is begun
_CHUNK = 200  # submits in one go: what is done for thousands must not hold up the loop


class Roll:
    """One reading. `query` sends, `ask` calls the adapter, `check` raises for a job that must not be told."""

    def __init__(
        self,
        adapter: Adapter,
        *,
        query: Callable[[HttpRequest], Awaitable[HttpResponse]],
        ask: Ask,
        check: Callable[[Found], None],
        clock: Clock,
    ) -> None:
        self._adapter = adapter
        self._query = query
        self._ask = ask
        self._check = check
        self._clock = clock
        self._lookout = Lookout()
        self._failure: ProviderFailure | None = None  # what kept it from being read to its end

    async def find(self, submits: Sequence[Unanswered]) -> list[Sighting]:
        """For each submit the jobs it may have started. One submit's failure is no other's."""
        marks: list[Mapping[str, str] | ProviderFailure] = []
        for number, submit in enumerate(submits):
            marks.append(self._expect(submit))
            await _breathe(number)
        if submits:
            await self._read(min(submit.since for submit in submits))
        told: list[Sighting] = []
        for number, (submit, marked) in enumerate(zip(submits, marks, strict=True)):
            told.append(marked if isinstance(marked, ProviderFailure) else self._told(submit, marked))
            await _breathe(number)
        return told

    def _expect(self, submit: Unanswered) -> Mapping[str, str] | ProviderFailure:
        def expect() -> Mapping[str, str]:
            marks = self._adapter.marks(submit.call)
            self._lookout.expect(submit.call, marks)
            return marks

        try:
            return self._ask(PollFailed, expect)
        except ProviderFailure as failure:
            return failure

    async def _read(self, since: datetime) -> None:
        """Page by page until then."""
        until = self._clock.monotonic() + LIST_SECONDS
        pages = 0
        try:
            request = self._ask(PollFailed, self._adapter.listing, since)
            while request is not None and not self._lookout.is_past(since):
                if pages == MAX_PAGES:
                    raise PollFailed(f"its list of jobs is longer than {MAX_PAGES} pages")
                if self._clock.monotonic() > until:
                    raise PollFailed(f"its list of jobs takes longer to read than {LIST_SECONDS:g} s")
                answer = await self._query(request)
                request = self._ask(PollFailed, self._see, answer).next
                pages += 1
        except ProviderFailure as failure:
            self._failure = failure

    def _see(self, answer: HttpResponse) -> Listing:
        listing = self._adapter.read_listing(answer)
        for job in listing.jobs:
            self._lookout.see(job)
        return listing

    def _told(self, submit: Unanswered, marks: Mapping[str, str]) -> Sighting:
        """
        What could be read is believed as far as it goes.

        Back to a submit's `since` that is all; else only what carries its own address, since of the rest nobody could
        say whether it is the only one.
        """
        found = self._lookout.found(submit, marks)
        if self._failure is not None and not self._lookout.is_past(submit.since):
            found = tuple(job for job in found if job.is_certain)
            if not found:
                return self._failure
        try:
            for job in found:
                self._check(job)
        except ProviderFailure as failure:
            return failure
        return found


async def _breathe(number: int) -> None:
    if number % _CHUNK == _CHUNK - 1:
        await asyncio.sleep(0)
