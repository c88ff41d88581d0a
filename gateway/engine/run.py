"""Drives one prediction from where it stands to its end. The lifecycle says what is true, this does what is due."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import (
    EngineFailed,
    JobFailed,
    JobLost,
    JobTimedOut,
    LeaseLost,
    NoLongerNeeded,
    OutcomeUnknown,
    ProviderFailure,
    ResultLost,
    StoreError,
)
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    CancelSent,
    Collected,
    DeadlinePassed,
    Fact,
    GivenUp,
    Happening,
    Learned,
    Planned,
    Source,
    SubmitFailed,
)
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Cancel, Cancellation
from gateway.contract.route import Choice, Offer, Plan
from gateway.engine.agenda import Agenda
from gateway.engine.attempt import new_attempt, send, shaped
from gateway.engine.cost import cost_of
from gateway.engine.failover import Need, Next, choose, exhausted, next_need
from gateway.engine.feedback import Feedback
from gateway.engine.lifecycle import open_attempts
from gateway.engine.parts import Parts
from gateway.engine.seam import Link, no_credentials

log = logging.getLogger("turnout.engine")

Commit = Callable[[str, Happening], Awaitable[Prediction]]


class Run:
    """
    One prediction in one worker's hands.

    `prediction` is the newest committed state this process knows; `update` is called with a newer one that somebody
    else committed (a callback, a caller's cancel), and wakes the run. Its own commits do not: it would never sleep.
    """

    def __init__(self, prediction: Prediction, parts: Parts, commit: Commit) -> None:
        self.prediction = prediction
        self._parts = parts
        self._commit_as_holder = commit
        self._feedback = Feedback(parts.board, parts.observer)
        self._woken = asyncio.Event()
        self._draining = False
        self._agenda = Agenda(parts)

    # -- from outside ----------------------------------------------------------------------------------------------

    def update(self, prediction: Prediction) -> None:
        self._take(prediction)
        self._woken.set()

    def nudge(self, attempt: int) -> None:
        """A callback that is not believed: look for yourself, now."""
        self._agenda.nudge(attempt)
        self._woken.set()

    def drain(self) -> None:
        """Let go at the next safe point; a submit in flight is waited for, never broken off."""
        self._draining = True
        self._woken.set()

    async def fail(self, message: str) -> None:
        """The last resort after a bug: the prediction ends rather than being tried for ever."""
        failure = EngineFailed(message).failure
        if self.prediction.winner is not None:
            await self._commit(AttemptEnded(attempt=self.prediction.winner, failure=failure))
        await self._commit(GivenUp(failure=failure))

    # -- the loop --------------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Returns when nothing is left to do, or when draining. Raises StoreError, LeaseLost."""
        self._feedback.adopt(self.prediction)
        try:
            await self._resume()
            while not self._draining:
                hold_seconds, silent = self._hold_seconds(), self._agenda.silent()
                step = next_need(self.prediction, self._now(), hold_seconds=hold_seconds, silent=silent)
                if step.need is Need.REST:
                    return
                await self._do(step)
        finally:
            self._feedback.close()

    async def _do(self, step: Next) -> None:
        match step.need:
            case Need.START:
                await self._start(pays_twice=step.pays_twice)
            case Need.WATCH:
                await self._watch(step.until)
            case Need.COLLECT:
                await self._collect()
            case Need.STOP:
                await self._stop()
            case Need.EXPIRE:
                await self._commit(DeadlinePassed())
                if not self.prediction.is_terminal:
                    await self._sleep(self._parts.timing.store_pause)  # the store's clock is behind ours
            case Need.GIVE_UP if step.failure is not None:
                await self._commit(GivenUp(failure=step.failure))

    async def _resume(self) -> None:
        """Attempts a dead worker left between intent and answer: nobody knows whether their bytes went out."""
        failure = OutcomeUnknown("the gateway stopped before the provider had answered").failure
        for attempt in open_attempts(self.prediction):
            if attempt.handle is not None or attempt.status is AttemptStatus.COLLECTING:
                continue
            if attempt.status is AttemptStatus.INTENT:
                await self._commit(SubmitFailed(attempt=attempt.number, failure=failure))
            elif attempt.status is not AttemptStatus.UNKNOWN:
                await self._commit(AttemptEnded(attempt=attempt.number, failure=failure))

    # -- starting --------------------------------------------------------------------------------------------------

    async def _start(self, *, pays_twice: bool) -> None:
        prediction = self.prediction
        tried = frozenset(attempt.offer for attempt in prediction.attempts)
        plan = self._parts.planner.plan(prediction, excluded=tried, now=self._now())
        if len(prediction.attempts) >= plan.max_attempts:
            await self._give_up_or_watch(plan)
            return
        for choice in choose(prediction, plan, pays_twice=pays_twice):
            if await self._try(choice, plan):
                return
        if plan.wait_seconds is not None and plan.wait_seconds < self._deadline_seconds():
            await self._commit(Planned(plan=plan))
            await self._watch(self._now() + timedelta(seconds=max(0.05, plan.wait_seconds)))
            return
        await self._give_up_or_watch(plan)

    async def _give_up_or_watch(self, plan: Plan) -> None:
        if open_attempts(self.prediction):
            await self._watch(None)  # an unknown one may still report, until the deadline
            return
        await self._commit(Planned(plan=plan))
        await self._commit(GivenUp(failure=exhausted(self.prediction, plan)))

    async def _try(self, choice: Choice, plan: Plan) -> bool:
        """False: this candidate cannot be tried now, and nothing was written."""
        parts = self._parts
        offer, link = parts.offer(choice.offer), parts.links.get(choice.provider)
        if offer is None or link is None:
            return False
        ticket = parts.breakers.admit(offer.id)
        if ticket is None:
            return False
        attempt = new_attempt(self.prediction, offer, choice, plan, secret=parts.secret, now=self._now())
        if self.prediction.attempts:
            parts.observer.failed_over(self.prediction, self.prediction.attempts[-1])
        before = self.prediction.revision
        try:
            await self._commit(Begun(attempt=attempt, plan=plan))
        except StoreError:
            ticket.neutral()
            raise
        if self.prediction.revision == before or len(self.prediction.attempts) < attempt.number:
            ticket.neutral()  # canceled, ended or expired in the meantime: the loop will see
            return True
        self._feedback.begun(self.prediction, attempt, ticket)
        await self._send(attempt, offer, link)
        return True

    async def _send(self, attempt: Attempt, offer: Offer, link: Link) -> None:
        number = attempt.number

        async def on_fact(fact: Fact) -> None:
            await self._learn(number, fact, Source.STREAM)

        submit = asyncio.create_task(
            send(
                self.prediction,
                attempt,
                offer,
                link,
                intake=self._parts.intake,
                callback_base=self._parts.callback_base,
                secret=self._parts.secret,
                now=self._now(),
                on_fact=on_fact,
                traceparent=self._parts.traceparent(self.prediction, number),
            )
        )
        begun = self._parts.clock.monotonic()
        try:
            fact = await self._answer(submit, attempt, link)
        except StoreError:
            raise
        except ProviderFailure as failure:
            await self._submit_failed(attempt, failure)
        except Exception:
            log.exception("the driver of %s failed in a submit", attempt.provider)
            await self._submit_failed(attempt, OutcomeUnknown("the provider's adapter failed; the log says how"))
        else:
            if fact is None:
                return
            if not fact.phase.is_end:
                self._feedback.submitted(number, self._parts.clock.monotonic() - begun)
            await self._learn(number, fact, Source.SUBMIT)
        finally:
            self._agenda.sent(number)
            if not submit.done():
                submit.cancel()

    async def _answer(self, submit: asyncio.Task[Fact], attempt: Attempt, link: Link) -> Fact | None:
        """
        What the submit answers; None if the attempt has ended without it.

        Drivers keep the deadline by themselves. One that does not is not waited for: then the outcome is unknown.
        """
        submit.add_done_callback(lambda _: self._woken.set())
        cancel = link.capabilities_for(self._parts.offer(attempt.offer)).cancel
        while not submit.done():
            self._woken.clear()
            unwanted = self.prediction.is_terminal or self.prediction.cancel_requested_at is not None
            if unwanted and cancel is Cancel.DISCONNECT:
                await self._break_off(submit)
                await self._commit(CancelSent(attempt=attempt.number, confirmed=True))
                return None
            if self.prediction.attempts[attempt.number - 1].status.is_closed:
                # A callback has told the end before the submit was answered.
                await asyncio.wait({submit}, timeout=self._parts.timing.store_pause)
                return None
            until = attempt.deadline_at + timedelta(seconds=self._parts.timing.store_pause)
            if unwanted:
                until = min(until, self._grace_until())
            left = (until - self._now()).total_seconds()
            if left <= 0:
                await self._break_off(submit)
                raise OutcomeUnknown("the provider did not answer in its time")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._woken.wait()
        return submit.result()

    async def _break_off(self, submit: asyncio.Task[Fact]) -> None:
        submit.cancel()
        await asyncio.wait({submit}, timeout=self._parts.timing.store_pause)

    async def _submit_failed(self, attempt: Attempt, failure: ProviderFailure) -> None:
        current = self.prediction.attempts[attempt.number - 1]
        if current.status is AttemptStatus.INTENT:
            await self._commit(SubmitFailed(attempt=attempt.number, failure=failure.failure))
        elif current.handle is None and current.status is not AttemptStatus.UNKNOWN:
            # It had begun to answer (a stream) and broke off; there is no handle by which it could be asked.
            if not isinstance(failure, (JobFailed, OutcomeUnknown)):
                failure = OutcomeUnknown(str(failure))
            await self._commit(AttemptEnded(attempt=attempt.number, failure=failure.failure))
        # One that was sent before stays unknown: a repeat that fails says nothing of the first.

    async def _resend(self, attempt: Attempt) -> None:
        offer, link = self._parts.offer(attempt.offer), self._parts.links[attempt.provider]
        self._agenda.resending(attempt.number)
        if offer is not None:
            await self._send(attempt, offer, link)

    # -- watching --------------------------------------------------------------------------------------------------

    async def _watch(self, until: datetime | None) -> None:
        """Wait for news or for the next thing that is due: a poll, an attempt's deadline, the prediction's."""
        now = self._now()
        due = self.prediction.deadline_at if until is None else min(until, self.prediction.deadline_at)
        for attempt in open_attempts(self.prediction):
            if attempt.status is AttemptStatus.COLLECTING:
                continue
            if now >= attempt.deadline_at and attempt.deadline_at < self.prediction.deadline_at:
                await self._time_out(attempt)
                return
            due = min(due, attempt.deadline_at)
            resend_at = self._agenda.resend_at(attempt, now)
            if resend_at is not None and resend_at <= now:
                await self._resend(attempt)
                return
            if resend_at is not None:
                due = min(due, resend_at)
            poll_at = self._agenda.poll_at(attempt, now)
            if poll_at is not None and poll_at <= now:
                await self._poll(attempt)
                return
            if poll_at is not None:
                due = min(due, poll_at)
        await self._sleep((due - now).total_seconds())

    async def _poll(self, attempt: Attempt) -> bool:
        """Ask the provider. True if it answered."""
        link = self._parts.links[attempt.provider]
        handle = attempt.handle
        if handle is None:
            return False
        self._agenda.polling(attempt.number)
        before = self.prediction.revision
        try:
            fact = await link.driver.poll(handle)
        except (JobLost, ResultLost) as failure:
            self._parts.observer.poll_made(attempt.provider, "news")
            await self._commit(AttemptEnded(attempt=attempt.number, failure=failure.failure))
            return True
        except ProviderFailure:
            self._parts.observer.poll_made(attempt.provider, "failed")
            self._agenda.polled(attempt.number, answered=False)
            return False
        self._agenda.polled(attempt.number, answered=True)
        await self._learn(attempt.number, shaped(fact, self._parts.offer(attempt.offer)), Source.POLL)
        self._parts.observer.poll_made(attempt.provider, "news" if self.prediction.revision > before else "same")
        return True

    async def _time_out(self, attempt: Attempt) -> None:
        """Its time is over, the prediction's is not: stop it, unless it is done, and let another have the rest."""
        await self._poll(attempt)  # what should have called back may have been done long ago
        if self.prediction.winner is not None or self.prediction.attempts[attempt.number - 1].status.is_closed:
            return
        await self._cancel_upstream(attempt)
        current = self.prediction.attempts[attempt.number - 1]
        if not current.status.is_closed and self.prediction.winner != attempt.number:
            unknown = current.status is AttemptStatus.UNKNOWN
            failure = OutcomeUnknown("nobody said in its time what became of it") if unknown else JobTimedOut()
            await self._commit(AttemptEnded(attempt=attempt.number, failure=failure.failure))

    # -- ending ----------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        prediction = self.prediction
        if prediction.winner is None:
            return
        attempt = prediction.attempts[prediction.winner - 1]
        link = self._parts.links.get(attempt.provider)
        try:
            output = await self._parts.collector.collect(
                prediction,
                attempt,
                attempt.output,
                trusted_hosts=link.trusted_hosts if link else (),
                direct_hosts=link.direct_hosts if link else (),
                credentials_for=link.driver.credentials_for if link else no_credentials,
            )
        except ResultLost as lost:
            await self._commit(AttemptEnded(attempt=attempt.number, failure=lost.failure))
        else:
            await self._commit(Collected(attempt=attempt.number, output=output))

    async def _stop(self) -> None:
        """Nobody waits for these attempts any more: stop them, settle them, or let them go after a grace."""
        over = self._now() >= self._grace_until()
        for attempt in open_attempts(self.prediction):
            if attempt.status is AttemptStatus.COLLECTING:
                await self._commit(Collected(attempt=attempt.number, output=None))
                return
            if over or self._is_beyond_reach(attempt):
                await self._commit(AttemptEnded(attempt=attempt.number, failure=NoLongerNeeded().failure))
                return
        for attempt in open_attempts(self.prediction):
            before = self.prediction.revision
            if attempt.cancel_tries < self._parts.timing.cancel_tries:
                await self._cancel_upstream(attempt)
            if self.prediction.revision > before and self.prediction.attempts[attempt.number - 1].status.is_closed:
                return
            if attempt.handle is not None and await self._poll(attempt):
                current = self.prediction.attempts[attempt.number - 1]
                if current.status.is_closed:
                    return
        tries = max((attempt.cancel_tries for attempt in open_attempts(self.prediction)), default=0)
        await self._sleep(min(0.5 * 2**tries, 5.0))

    def _grace_until(self) -> datetime:
        asked_at = self.prediction.cancel_requested_at or self.prediction.completed_at or self._now()
        return asked_at + timedelta(seconds=self._parts.timing.cancel_grace)

    def _is_beyond_reach(self, attempt: Attempt) -> bool:
        """Nothing can be sent to it and nothing will come of it, so waiting has no point."""
        link = self._parts.links.get(attempt.provider)
        if link is None:
            return True
        if attempt.handle is None:
            return not link.callbacks
        able = link.capabilities_for(self._parts.offer(attempt.offer))
        return able.cancel is Cancel.NONE and not able.pollable and not link.callbacks

    async def _cancel_upstream(self, attempt: Attempt) -> None:
        link = self._parts.links.get(attempt.provider)
        if link is None or attempt.handle is None:
            return
        if link.capabilities_for(self._parts.offer(attempt.offer)).cancel is Cancel.NONE:
            return
        try:
            answer = await link.driver.cancel(attempt.handle)
        except ProviderFailure as failure:
            log.debug("cancel at %s failed: %s", attempt.provider, failure.code)
            answer = Cancellation.UNSUPPORTED
        if answer is Cancellation.TOO_LATE:
            await self._poll(self.prediction.attempts[attempt.number - 1])
            return
        await self._commit(CancelSent(attempt=attempt.number, confirmed=answer is Cancellation.STOPPED))

    # -- small pieces ----------------------------------------------------------------------------------------------

    async def _learn(self, number: int, fact: Fact, source: Source) -> None:
        cost = cost_of(self.prediction, number, fact, offer=self._parts.offer, now=self._now())
        await self._commit(Learned(attempt=number, fact=fact, source=source, cost=cost))

    async def _commit(self, happening: Happening) -> None:
        """
        Raises StoreError for a step that can be decided again.

        What a provider said once may never be said again: that waits for the store.
        """
        while True:
            try:
                self._take(await self._commit_as_holder(self.prediction.id, happening))
                return
            except LeaseLost:
                raise
            except StoreError as error:
                if not isinstance(happening, (Learned, SubmitFailed)):
                    raise
                log.warning("a fact about prediction %s waits for the store: %s", self.prediction.id, error)
                await asyncio.sleep(self._parts.timing.store_pause)

    def _take(self, prediction: Prediction) -> None:
        if prediction.revision > self.prediction.revision:
            self.prediction = prediction
            self._feedback.update(prediction)

    async def _sleep(self, seconds: float) -> None:
        """Until something was committed, a nudge or a drain came, or the time is over."""
        if not self._woken.is_set() and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        self._woken.clear()

    def _now(self) -> datetime:
        return self._parts.clock.now()

    def _deadline_seconds(self) -> float:
        return (self.prediction.deadline_at - self._now()).total_seconds()

    def _hold_seconds(self) -> float:
        """An unknown outcome is only waited for where somebody may still call back, or it can be sent again."""
        now = self._now()
        for attempt in self.prediction.attempts:
            if attempt.status is not AttemptStatus.UNKNOWN:
                continue
            link = self._parts.links.get(attempt.provider)
            if (link is not None and link.callbacks) or self._agenda.resend_at(attempt, now) is not None:
                return self._parts.timing.hold
        return 0.0
