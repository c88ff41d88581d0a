"""Finds the jobs that unanswered submits have started, in the providers' own lists. Commits nothing, stops nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.contract.attempt import Attempt
from gateway.contract.errors import PollFailed, ProviderFailure, StoreError
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Driver, Unanswered
from gateway.engine.attempt import call_of
from gateway.engine.ownership import SKEW, Fit, Ownership, Reader
from gateway.engine.parts import Parts

log = logging.getLogger("turnout.engine")

WALK_SECONDS = 60.0  # through the list and through our store; the driver gives up its part much sooner
_CHUNK = 100  # answers in one go: thousands who are told something at once all go on at once

Find = Callable[[Prediction, Attempt], Awaitable[dict[str, str] | None]]
Handle = dict[str, str]
Answer = Handle | Exception | None


class BrokenOff(Exception):
    """The gateway is shutting down: nobody has looked through the list, whatever stands in it."""


@dataclass(frozen=True, eq=False)
class _Asker:
    prediction: Prediction
    attempt: Attempt
    submit: Unanswered
    driver: Driver
    answer: asyncio.Future[Handle | None]


class Search:
    """
    For all runs of a process.

    Of each provider one walk is under way at a time. It serves all who had asked when it began; who asks meanwhile is
    served by the next one, so that nobody is answered from a list that was read before he asked, and however many ask
    after a crash, the provider's list and our store are walked through a few times in all.
    """

    def __init__(self, parts: Parts, store: Reader) -> None:
        self._parts = parts
        self._store = store
        self._waiting: defaultdict[str, list[_Asker]] = defaultdict(list)
        self._walks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    async def find(self, prediction: Prediction, attempt: Attempt) -> Handle | None:
        """
        The handle of the one job that can only be this attempt's; None if there is none, or more than one.

        A list may lag behind, so that None tells nothing. It waits for two walks at most. Raises ProviderFailure (if
        the list could not be looked through), StoreError, and BrokenOff once it is closed.
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
        submit = Unanswered(
            call=call, since=attempt.begun_at - SKEW, until=(attempt.unknown_at or attempt.begun_at) + SKEW
        )
        if self._is_closed:
            raise BrokenOff
        answer: asyncio.Future[Handle | None] = asyncio.get_running_loop().create_future()
        self._waiting[attempt.provider].append(_Asker(prediction, attempt, submit, link.driver, answer))
        if attempt.provider not in self._walks:
            self._walks[attempt.provider] = asyncio.create_task(self._serve(attempt.provider))
        return await answer

    async def aclose(self) -> None:
        """Break off what is under way: whoever waits for it hears that, and may go."""
        self._is_closed = True
        walks = list(self._walks.values())
        for walk in walks:
            walk.cancel()
        if walks:
            await asyncio.wait(walks)

    # -- walks -----------------------------------------------------------------------------------------------------

    async def _serve(self, provider: str) -> None:
        """Walk for as long as somebody waits."""
        askers: list[_Asker] = []
        try:
            while askers := _still_there(self._waiting.pop(provider, [])):
                await self._walk(provider, askers)
        finally:
            del self._walks[provider]
            for asker in _still_there([*askers, *self._waiting.pop(provider, [])]):
                broken = BrokenOff() if self._is_closed else PollFailed("looking through its list was broken off")
                asker.answer.set_exception(broken)
                asker.answer.exception()  # should nobody be left to hear it

    async def _walk(self, provider: str, askers: Sequence[_Asker]) -> None:
        """Once through the list for all of them. Each is answered, whatever happens."""
        answers: Sequence[Answer]
        try:
            async with asyncio.timeout(WALK_SECONDS):
                answers = await self._answers(provider, askers)
        except ProviderFailure as failure:
            answers = [failure] * len(askers)
        except TimeoutError:
            answers = [PollFailed(f"looking through its list took more than {WALK_SECONDS:g} s")] * len(askers)
        except Exception as error:
            # What one asker's case brings about must not crash the runs of all: they look again later.
            log.exception("looking through the list of %s failed", provider)
            answers = [PollFailed(f"looking through its list failed: {type(error).__name__}")] * len(askers)
        for number, (asker, answer) in enumerate(zip(askers, answers, strict=True)):
            if asker.answer.done():
                continue  # he hung up
            if isinstance(answer, Exception):
                asker.answer.set_exception(answer)
            else:
                asker.answer.set_result(answer)
            if number % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)

    async def _answers(self, provider: str, askers: Sequence[_Asker]) -> list[Answer]:
        sightings = await askers[0].driver.find([asker.submit for asker in askers])
        answers: dict[int, Answer] = {}
        fits: dict[int, Fit] = {}  # by the asker's place
        for place, (asker, sighting) in enumerate(zip(askers, sightings, strict=True)):
            answers[place] = sighting if isinstance(sighting, ProviderFailure) else None
            if isinstance(sighting, ProviderFailure) or len(sighting) != 1:
                continue  # of several nobody can say which one it is
            if sighting[0].is_certain:
                answers[place] = sighting[0].handle
            else:
                fits[place] = Fit(asker.prediction, asker.attempt, sighting[0])
        try:
            theirs = await Ownership(self._store, provider).settle(list(fits.values()))
        except StoreError as error:
            answers.update(dict.fromkeys(fits, error))  # the others need no store
        else:
            answers.update({place: fit.job.handle for place, fit in fits.items() if fit.key in theirs})
        return [answers[place] for place in range(len(askers))]


def _still_there(askers: Sequence[_Asker]) -> list[_Asker]:
    return [asker for asker in askers if not asker.answer.done()]
