"""Stops attempts that nobody waits for, gives up those that cannot be, and looks for those later. Begins nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure, NoLongerNeeded, ProviderFailure, StoreError
from gateway.contract.fact import AttemptEnded, CancelSent, Collected, Sought
from gateway.contract.provider import Cancel, Cancellation
from gateway.engine.attempt import overdue
from gateway.engine.hand import Hand
from gateway.engine.inquiry import Inquiry
from gateway.engine.lifecycle import open_attempts
from gateway.engine.orphan import next_look, orphans

log = logging.getLogger("turnout.engine")

LONGEST_PAUSE_SECONDS = 5.0  # between two requests to stop the same attempt


class Withdrawal:
    def __init__(self, hand: Hand, inquiry: Inquiry) -> None:
        self._hand = hand
        self._inquiry = inquiry

    # -- stopping --------------------------------------------------------------------------------------------------

    async def time_out(self, attempt: Attempt) -> None:
        """One of its times is over, the prediction's is not: stop it, unless it is done, and let another go on."""
        hand, timing = self._hand, self._hand.parts.timing
        await self._inquiry.poll(attempt)  # what should have called back may have been done, or begun, long ago
        current = hand.attempt(attempt.number)
        failure = overdue(current, hand.now())
        if hand.prediction.winner is not None or current.status.is_closed or failure is None:
            return
        is_heard = await self._cancel(current, failure.failure)
        current = hand.attempt(attempt.number)
        if current.status.is_closed or hand.prediction.winner is not None:
            return
        grace = timedelta(seconds=timing.cancel_grace)
        asked_at = current.cancel_requested_at or hand.now()
        if not is_heard and current.cancel_tries < timing.cancel_tries and hand.now() < asked_at + grace:
            # Nobody needs it, and it is billed for as long as it runs.
            hand.agenda.cancel_again(current)
            return
        await self.give_up(attempt, failure.failure)

    async def stop(self) -> None:
        """Nobody waits for these attempts any more: stop them, settle them, or let them go after a grace."""
        hand = self._hand
        over = hand.now() >= hand.grace_until()
        for attempt in open_attempts(hand.prediction):
            if attempt.status is AttemptStatus.COLLECTING:
                await hand.commit(Collected(attempt=attempt.number, output=None))
                return
            if over or self._is_beyond_reach(attempt):
                await self.give_up(attempt, NoLongerNeeded().failure)
                return
        for attempt in open_attempts(hand.prediction):
            if await self._press(attempt):
                return
        tries = max((attempt.cancel_tries for attempt in open_attempts(hand.prediction)), default=0)
        await hand.sleep(_pause_seconds(tries))

    async def press_losers(self, turns: int) -> float:
        """
        Another has won, but its files are not here yet: find those that may run, have them stop, and let none go.

        Should the files be lost, they may still say how they ended. Returns for how many seconds that will do, this
        being one of so many `turns`.
        """
        hand = self._hand
        for attempt in self._losers():
            try:
                await self._press_loser(attempt)
            except StoreError:
                raise
            except Exception:
                # The winner's result must not hang on it: once that is here, whoever stops them fails by himself.
                log.exception("attempt %d of prediction %s could not be stopped", attempt.number, hand.prediction.id)
        if await self.look():
            return 0.0
        seconds = _pause_seconds(turns) if self._losers() else hand.parts.timing.cancel_grace
        look_at = next_look(hand.prediction)
        return seconds if look_at is None else max(0.0, min(seconds, (look_at - hand.now()).total_seconds()))

    def _losers(self) -> tuple[Attempt, ...]:
        prediction = self._hand.prediction
        return tuple(attempt for attempt in open_attempts(prediction) if attempt.number != prediction.winner)

    async def _press_loser(self, attempt: Attempt) -> None:
        if attempt.handle is None:
            listing_at = self._hand.agenda.listing_at(attempt)
            if listing_at is not None and listing_at <= self._hand.now():
                await self._inquiry.look_in_list(attempt)
        elif not self._is_beyond_reach(attempt):
            await self._press(attempt)

    async def _press(self, attempt: Attempt) -> bool:
        """Ask once more that it be stopped, and how it stands. True: it has ended."""
        hand = self._hand
        if attempt.cancel_tries < hand.parts.timing.cancel_tries:
            await self._cancel(attempt)
        if hand.attempt(attempt.number).status.is_closed:
            return True
        return await self._inquiry.poll(attempt) and hand.attempt(attempt.number).status.is_closed

    def _is_beyond_reach(self, attempt: Attempt) -> bool:
        """Nothing can be sent to it and nothing will come of it, so waiting has no point."""
        link = self._hand.link(attempt)
        if link is None:
            return True
        if attempt.handle is None:
            return not link.callbacks
        able = self._hand.capabilities(attempt, link)
        return able.cancel is Cancel.NONE and not able.pollable and not link.callbacks

    async def _cancel(self, attempt: Attempt, failure: Failure | None = None) -> bool:
        """
        Ask the provider to stop it; `failure` says which of its times is over, if one is.

        False: the provider did not hear, or what became of it is not known yet, so that it is worth asking again.
        """
        hand, number = self._hand, attempt.number
        link = hand.link(attempt)
        if link is None or attempt.handle is None:
            return True
        if hand.capabilities(attempt, link).cancel is Cancel.NONE:
            return True
        is_heard = True
        try:
            answer = await link.driver.cancel(attempt.handle)
        except ProviderFailure as error:
            log.debug("cancel at %s failed: %s", attempt.provider, error.code)
            answer, is_heard = Cancellation.UNSUPPORTED, False
        if answer is Cancellation.TOO_LATE:
            await self._inquiry.poll(hand.attempt(number))
            is_heard = hand.attempt(number).status.is_closed
            if is_heard or hand.prediction.winner == number:
                return True
        confirmed = answer is Cancellation.STOPPED
        if confirmed and attempt.running_at is None:
            # It may have begun to run since we heard of it: whether it is billed is the provider's to say.
            await hand.commit(CancelSent(attempt=number, confirmed=False, failure=failure))
            await self._inquiry.poll(hand.attempt(number))
            if hand.attempt(number).status.is_closed or hand.prediction.winner == number:
                return True
        await hand.commit(CancelSent(attempt=number, confirmed=confirmed, failure=failure))
        return is_heard

    # -- looking for what was given up -----------------------------------------------------------------------------

    async def look(self) -> bool:
        """Look for the one that is due, if one is."""
        hand, now = self._hand, self._hand.now()
        for attempt in orphans(hand.prediction):
            if attempt.look_at is None or attempt.look_at > now:
                continue
            try:
                if attempt.handle is not None:
                    await self._stop_orphan(attempt)
                elif not await self._inquiry.look_in_list(attempt):
                    return True  # whoever takes it up next has this look
            except StoreError:
                raise
            except Exception:
                # Nobody waits for it: a bug on the way costs this look, and not the worker's peace.
                log.exception("looking for attempt %d of prediction %s failed", attempt.number, hand.prediction.id)
            current = hand.attempt(attempt.number)
            if current.look_at == attempt.look_at:
                look_at = self._look_again(current, looks=current.looks + 1)
                await hand.commit(Sought(attempt=attempt.number, look_at=look_at))
            return True
        return False

    async def _stop_orphan(self, attempt: Attempt) -> None:
        """It was found where nobody needs it, or was never heard to stop: ask again, and see what became of it."""
        hand = self._hand
        if attempt.cancel_tries < hand.parts.timing.cancel_tries:
            await self._cancel(attempt)
        current, link = hand.attempt(attempt.number), hand.link(attempt)
        if current.look_at is None or link is None:
            return
        if hand.capabilities(attempt, link).pollable:
            await self._inquiry.poll(current)

    async def give_up(self, attempt: Attempt, failure: Failure) -> None:
        """Nobody waits for it any more. Something may be running: it is looked for, where there is a way to."""
        look_at = self._look_again(attempt, looks=0)
        await self._hand.commit(AttemptEnded(attempt=attempt.number, failure=failure, look_at=look_at))

    def _look_again(self, attempt: Attempt, *, looks: int) -> datetime | None:
        link, pauses = self._hand.link(attempt), self._hand.parts.timing.look_pauses
        if link is None or looks >= len(pauses):
            return None
        able = self._hand.capabilities(attempt, link)
        has_a_way = able.lists if attempt.handle is None else able.pollable or able.cancel is not Cancel.NONE
        return self._hand.now() + timedelta(seconds=pauses[looks]) if has_a_way else None


def _pause_seconds(tries: int) -> float:
    """Half a second, one, two …"""
    return min(0.5 * 2.0 ** min(tries, 10), LONGEST_PAUSE_SECONDS)
