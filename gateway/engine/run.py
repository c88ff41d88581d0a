"""Drives one prediction from where it stands to its end. The lifecycle says what is true, this does what is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import (
    BudgetSpent,
    EngineFailed,
    Failure,
    LeaseLost,
    OutcomeUnknown,
    PredictionUnreadable,
    StoreError,
)
from gateway.contract.fact import AttemptEnded, Collected, DeadlinePassed, GivenUp, Planned, SubmitFailed
from gateway.contract.prediction import Prediction
from gateway.contract.route import Plan
from gateway.engine.attempt import next_limit, overdue
from gateway.engine.collection import Collection
from gateway.engine.failover import Need, Next, choose, exhausted, next_need
from gateway.engine.hand import Commit, Hand, break_off
from gateway.engine.inquiry import Inquiry
from gateway.engine.lifecycle import open_attempts
from gateway.engine.orphan import next_look
from gateway.engine.parts import Parts
from gateway.engine.purse import Purse, without
from gateway.engine.search import Find
from gateway.engine.submission import Submission
from gateway.engine.withdrawal import Withdrawal

log = logging.getLogger("turnout.engine")


class Run:
    """
    One prediction in one worker's hands: what is due next, and whose task that is.

    `update` is called with a newer state that somebody else committed (a callback, a caller's cancel), and wakes the
    run.
    """

    def __init__(
        self,
        prediction: Prediction,
        parts: Parts,
        commit: Commit,
        *,
        purse: Purse,
        may_send: Callable[[], bool],
        find: Find,
    ) -> None:
        self._hand = Hand(prediction, parts, commit, purse=purse, may_send=may_send, find=find)
        self._inquiry = Inquiry(self._hand)
        self._withdrawal = Withdrawal(self._hand, self._inquiry)
        self._submission = Submission(self._hand, self._withdrawal)
        self._collection = Collection(self._hand)
        self._draining = False

    @property
    def prediction(self) -> Prediction:
        """The newest committed state that this process knows."""
        return self._hand.prediction

    # -- from outside ----------------------------------------------------------------------------------------------

    def update(self, prediction: Prediction) -> None:
        self._hand.update(prediction)

    def nudge(self, attempt: int) -> None:
        """A callback that is not believed: look for yourself, now."""
        self._hand.agenda.nudge(attempt)
        self._hand.wake()

    def drain(self) -> None:
        """Let go at the next safe point: a submit in flight is waited for, files that are being copied are not."""
        self._draining = True
        self._hand.wake()

    async def fail(self, message: str) -> None:
        """The last resort after a bug: the prediction ends rather than being tried for ever."""
        failure = EngineFailed(message).failure
        if self.prediction.winner is not None:
            await self._hand.commit(AttemptEnded(attempt=self.prediction.winner, failure=failure))
        await self._hand.commit(GivenUp(failure=failure))

    # -- the loop --------------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Returns when nothing is left to do, or when draining. Raises StoreError, LeaseLost."""
        hand = self._hand
        hand.feedback.adopt(self.prediction)
        try:
            await self._resume()
            while not self._draining:
                hold_seconds, silent = self._hold_seconds(), hand.agenda.silent()
                step = next_need(self.prediction, hand.now(), hold_seconds=hold_seconds, silent=silent)
                if step.need is Need.REST and not await self._withdrawal.look():
                    return
                await self._do(step)
        finally:
            hand.feedback.close()

    async def _do(self, step: Next) -> None:
        match step.need:
            case Need.START:
                await self._start(pays_twice=step.pays_twice)
            case Need.WATCH:
                await self._watch(step.until)
            case Need.COLLECT:
                await self._collect()
            case Need.STOP:
                await self._withdrawal.stop()
            case Need.EXPIRE:
                await self._hand.commit(DeadlinePassed())
                if not self.prediction.is_terminal:
                    await self._hand.sleep(self._hand.parts.timing.store_pause)  # the store's clock is behind ours
            case Need.GIVE_UP if step.failure is not None:
                await self._hand.commit(GivenUp(failure=step.failure))

    async def _resume(self) -> None:
        """Attempts a dead worker left between intent and answer: nobody knows whether their bytes went out."""
        failure = OutcomeUnknown("the gateway stopped before the provider had answered").failure
        for attempt in open_attempts(self.prediction):
            if attempt.handle is not None or attempt.status is AttemptStatus.COLLECTING:
                continue
            if attempt.status is AttemptStatus.INTENT:
                await self._hand.commit(SubmitFailed(attempt=attempt.number, failure=failure))
            elif attempt.status is not AttemptStatus.UNKNOWN:
                await self._withdrawal.give_up(attempt, failure)

    # -- starting --------------------------------------------------------------------------------------------------

    async def _start(self, *, pays_twice: bool) -> None:
        hand, prediction, planner = self._hand, self.prediction, self._hand.parts.planner
        for attempt in open_attempts(prediction):
            # It may have been held by a worker that died: whoever died has told nobody whether he had looked.
            if hand.agenda.is_unlooked(attempt):
                await self._inquiry.look_in_list(attempt)
                return
        tried = frozenset(attempt.offer for attempt in prediction.attempts)
        plan = planner.plan(prediction, excluded=tried, now=hand.now())
        if len(prediction.attempts) >= plan.max_attempts:
            await self._give_up_or_watch(plan)
            return
        refused: dict[str, BudgetSpent] = {}
        for choice in choose(prediction, plan, pays_twice=pays_twice):
            if choice.is_fallback and any(one.bars_fallback for one in refused.values()):
                continue
            try:
                if await self._submission.begin(choice, plan, refused, pays_twice=pays_twice):
                    return
            except BudgetSpent as spent:
                refused[choice.offer] = spent
        if refused:
            await self._give_up_or_watch(without(plan, refused), next(iter(refused.values())).failure)
            return
        seconds = planner.again_seconds(prediction, plan)
        if seconds is not None and plan.wait_seconds is not None and plan.wait_seconds < hand.left_seconds():
            await hand.commit(Planned(plan=plan))
            await self._watch(hand.now() + timedelta(seconds=max(0.05, seconds)))
            return
        await self._give_up_or_watch(plan)

    async def _give_up_or_watch(self, plan: Plan, failure: Failure | None = None) -> None:
        if open_attempts(self.prediction):
            await self._watch(None)  # an unknown one may still report, until the deadline
            return
        await self._hand.commit(Planned(plan=plan))
        await self._hand.commit(GivenUp(failure=failure or exhausted(self.prediction, plan)))

    # -- watching --------------------------------------------------------------------------------------------------

    async def _watch(self, until: datetime | None) -> None:
        """Wait for news or for the next thing that is due: a poll, an attempt's deadline, the prediction's."""
        now = self._hand.now()
        due = self.prediction.deadline_at if until is None else min(until, self.prediction.deadline_at)
        if await self._withdrawal.look():
            return
        due = min(due, next_look(self.prediction) or due)
        for attempt in open_attempts(self.prediction):
            if attempt.status is AttemptStatus.COLLECTING:
                continue
            attempt_due = await self._tend(attempt, now)
            if attempt_due is None:
                return
            due = min(due, attempt_due)
        await self._hand.sleep((due - now).total_seconds())

    async def _tend(self, attempt: Attempt, now: datetime) -> datetime | None:
        """Do what is due for it now, and return None; or when the next thing is."""
        agenda = self._hand.agenda
        if overdue(attempt, now) is not None and now < self.prediction.deadline_at:
            again_at = agenda.cancel_at(attempt, now)
            if again_at is not None and again_at > now:
                return again_at
            await self._withdrawal.time_out(attempt)
            return None
        due = next_limit(attempt)
        listing_at = agenda.listing_at(attempt)
        if listing_at is not None and listing_at <= now:
            await self._inquiry.look_in_list(attempt)
            return None
        resend_at = agenda.resend_at(attempt, now)
        if resend_at is not None and resend_at <= now:
            await self._submission.resend(attempt)
            return None
        poll_at = agenda.poll_at(attempt, now)
        if poll_at is not None and poll_at <= now:
            await self._inquiry.poll(attempt)
            return None
        return min(due, listing_at or due, resend_at or due, poll_at or due)

    def _hold_seconds(self) -> float:
        """
        An unknown outcome is only waited for where somebody may still call back, or list it.

        Where it can be sent again nothing else is begun until that has been tried as often as it will be: it costs
        nothing, and it is the one way to be sure.
        """
        hand, now, seconds = self._hand, self._hand.now(), 0.0
        for attempt in self.prediction.attempts:
            if attempt.status is not AttemptStatus.UNKNOWN:
                continue
            if hand.agenda.resend_at(attempt, now) is not None:
                unknown_at = attempt.unknown_at or attempt.begun_at
                seconds = max(seconds, (self.prediction.deadline_at - unknown_at).total_seconds())
            link = hand.link(attempt)
            if link is not None and (link.callbacks or hand.agenda.listing_at(attempt) is not None):
                seconds = max(seconds, link.hold_seconds)
        return seconds

    # -- ending ----------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        """
        Copy the winner's files, and have the others stopped meanwhile: a copy may be slow, and those are billed.

        A drain breaks the copying off. The attempt stays as it is in the store, and whoever adopts it copies again.
        """
        hand, number = self._hand, self.prediction.winner
        if number is None:
            return
        files = asyncio.create_task(self._collection.collect(hand.attempt(number)))
        files.add_done_callback(lambda _: hand.wake())
        losers = asyncio.create_task(self._press_losers(files))
        try:
            await asyncio.wait({files, losers}, return_when=asyncio.FIRST_COMPLETED)
            if files.done():
                await hand.commit(files.result())
            await losers
        finally:
            await break_off(files, losers, seconds=hand.parts.timing.store_pause)

    async def _press_losers(self, files: asyncio.Task[Collected | AttemptEnded]) -> None:
        """Until the files are here, or a drain has come."""
        hand, turns = self._hand, 0
        while not files.done() and not self._draining:
            turns += 1
            try:
                seconds = await self._withdrawal.press_losers(turns)
            except (LeaseLost, PredictionUnreadable):
                raise
            except StoreError as error:
                log.warning("stopping the others of prediction %s waits for the store: %s", self.prediction.id, error)
                seconds = hand.parts.timing.store_pause
            if not files.done() and not self._draining:
                await hand.sleep(seconds)
