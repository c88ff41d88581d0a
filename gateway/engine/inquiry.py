"""Asks a provider what has become of an attempt, by its handle or in a list. When it is asked others decide."""

from __future__ import annotations

import logging

from gateway.contract.attempt import Attempt
from gateway.contract.errors import JobLost, ProviderFailure, ResultLost
from gateway.contract.fact import AttemptEnded, Fact, Phase, Source
from gateway.contract.provider import Callbacks
from gateway.engine.attempt import shaped
from gateway.engine.hand import Hand
from gateway.engine.seam import Link
from gateway.engine.search import BrokenOff

log = logging.getLogger("turnout.engine")

CALLBACK_SECONDS = 2.0  # a callback may still be on its way so long after the end


class Inquiry:
    def __init__(self, hand: Hand) -> None:
        self._hand = hand

    async def poll(self, attempt: Attempt) -> bool:
        """Ask the provider. True if it answered."""
        hand, observer = self._hand, self._hand.parts.observer
        link = hand.parts.links[attempt.provider]
        handle = attempt.handle
        if handle is None:
            return False
        is_unasked = hand.agenda.polling(attempt)
        before = hand.prediction.revision
        try:
            fact = await link.driver.poll(handle)
        except (JobLost, ResultLost) as failure:
            observer.poll_made(attempt.provider, "news")
            await hand.commit(AttemptEnded(attempt=attempt.number, failure=failure.failure))
            return True
        except ProviderFailure:
            observer.poll_made(attempt.provider, "failed")
            hand.agenda.polled(attempt.number, answered=False)
            return False
        hand.agenda.polled(attempt.number, answered=True)
        if is_unasked and fact.phase.is_end:
            self._miss_callback(attempt, link, fact)
        await hand.learn(attempt.number, shaped(fact, hand.offer(attempt)), Source.POLL)
        observer.poll_made(attempt.provider, "news" if hand.prediction.revision > before else "same")
        return True

    async def look_in_list(self, attempt: Attempt) -> bool:
        """Look for the job of an attempt that has no handle. False: a shutdown broke it off, and nobody has looked."""
        self._hand.agenda.listing(attempt.number)
        try:
            handle = await self._hand.find(self._hand.prediction, attempt)
        except BrokenOff:
            return False
        except ProviderFailure as failure:
            log.debug("the jobs of %s could not be looked through: %s", attempt.provider, failure)
            return True
        if handle is not None:
            await self._hand.learn(attempt.number, Fact(phase=Phase.QUEUED, handle=handle), Source.LISTING)
            self._hand.agenda.found(attempt)
        return True

    def _miss_callback(self, attempt: Attempt, link: Link, fact: Fact) -> None:
        """It has ended, and nobody called. One that has only just ended may still."""
        hand = self._hand
        able = hand.capabilities(attempt, link)
        if not link.callbacks or able.callbacks is Callbacks.NONE or attempt.cancel_requested_at is not None:
            return
        if fact.completed_at is not None and (hand.now() - fact.completed_at).total_seconds() < CALLBACK_SECONDS:
            return
        hand.parts.callbacks.missed(attempt.provider, hand.parts.clock.monotonic())
