"""Copies the files of the attempt that has won, as far as the engine minds: until when, and what it comes to."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt
from gateway.contract.errors import ResultLost
from gateway.contract.fact import AttemptEnded, Collected
from gateway.engine.hand import Hand
from gateway.engine.seam import Link, no_credentials


class Collection:
    def __init__(self, hand: Hand) -> None:
        self._hand = hand

    async def collect(self, attempt: Attempt) -> Collected | AttemptEnded:
        """
        What is to be committed once the files are here, or cannot be had. Commits nothing itself.

        It may be broken off anywhere: repeated, by whomever, it gives the same links.
        """
        hand, link = self._hand, self._hand.link(attempt)
        try:
            output = await hand.parts.collector.collect(
                hand.prediction,
                attempt,
                attempt.output,
                trusted_hosts=link.trusted_hosts if link else (),
                direct_hosts=link.direct_hosts if link else (),
                credentials_for=link.driver.credentials_for if link else no_credentials,
                until=self._keeps_until(attempt, link),
            )
        except ResultLost as lost:
            return AttemptEnded(attempt=attempt.number, failure=lost.failure)
        return Collected(attempt=attempt.number, output=output)

    def _keeps_until(self, attempt: Attempt, link: Link | None) -> datetime:
        """How long the provider keeps the files, as far as the prediction can wait for them."""
        hand = self._hand
        seconds = hand.parts.timing.collect
        if link is not None:
            kept = hand.capabilities(attempt, link).result_lifetime_seconds
            seconds = min(seconds, kept) if kept is not None else seconds
        ended_at = attempt.ended_at or hand.now()
        return min(ended_at + timedelta(seconds=seconds), hand.prediction.deadline_at)
