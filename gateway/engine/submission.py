"""Sends an attempt, once its intent is committed, and commits what its answer or its failure says. Chooses none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import (
    BudgetSpent,
    JobFailed,
    LeaseLost,
    OutcomeUnknown,
    PredictionUnreadable,
    ProviderFailure,
    StoreError,
)
from gateway.contract.fact import Begun, CancelSent, Fact, Source, SubmitFailed
from gateway.contract.provider import Cancel
from gateway.contract.route import Choice, Offer, Plan
from gateway.engine.attempt import new_attempt, send, submit_limit
from gateway.engine.hand import Hand, break_off
from gateway.engine.purse import without
from gateway.engine.seam import Link
from gateway.engine.sweep import PATIENCE_SECONDS
from gateway.engine.withdrawal import Withdrawal

log = logging.getLogger("turnout.engine")


class Submission:
    def __init__(self, hand: Hand, withdrawal: Withdrawal) -> None:
        self._hand = hand
        self._withdrawal = withdrawal

    async def begin(self, choice: Choice, plan: Plan, refused: Mapping[str, BudgetSpent], *, pays_twice: bool) -> bool:
        """
        False: this candidate cannot be tried now, and nothing was written. Raises BudgetSpent, nor was anything then.

        `refused`: offers of the plan that a budget did not let through.
        """
        hand, parts = self._hand, self._hand.parts
        offer, link = parts.offer(choice.offer), parts.links.get(choice.provider)
        if offer is None or link is None:
            return False
        ticket = parts.breakers.admit(offer.id)
        if ticket is None:
            return False
        asked_at = parts.clock.monotonic()
        try:
            reserved = await hand.purse.reserve(hand.prediction, len(hand.prediction.attempts) + 1, choice, plan)
        except BaseException:
            ticket.neutral()
            raise
        attempt = new_attempt(
            hand.prediction,
            offer,
            choice,
            plan,
            secret=parts.secret,
            now=hand.now(),
            pays_twice=pays_twice,
            submit_seconds=submit_limit(hand.prediction, link, offer, parts.timing),
            reserved_nanos=reserved,
        )
        if hand.prediction.attempts:
            parts.observer.failed_over(hand.prediction, hand.prediction.attempts[-1])
        before = hand.prediction.revision
        try:
            await hand.commit(Begun(attempt=attempt, plan=without(plan, refused)))
        except StoreError:
            ticket.neutral()
            raise
        if hand.prediction.revision == before or len(hand.prediction.attempts) < attempt.number:
            ticket.neutral()  # canceled, ended or expired in the meantime: the loop will see
            await hand.purse.release(hand.prediction, attempt)
            return True
        hand.feedback.begun(hand.prediction, attempt, ticket)
        is_late = parts.clock.monotonic() - asked_at > PATIENCE_SECONDS
        if reserved is None or not is_late or await self._reserve_again(attempt, choice, plan):
            await self._send(attempt, offer, link)
        return True

    async def _reserve_again(self, attempt: Attempt, choice: Choice, plan: Plan) -> bool:
        """
        False: it ended without being sent.

        Its intent took so long to be written that the sweep may have taken it for one that will never come.
        """
        hand = self._hand
        while True:
            try:
                await hand.purse.reserve(hand.prediction, attempt.number, choice, plan)
            except BudgetSpent as spent:
                await hand.commit(SubmitFailed(attempt=attempt.number, failure=spent.failure))
                return False
            except StoreError as error:
                log.warning("prediction %s is not sent before its budgets answer: %s", hand.prediction.id, error)
                await asyncio.sleep(hand.parts.timing.store_pause)
            else:
                return True

    async def resend(self, attempt: Attempt) -> None:
        """The same bytes with the same id, where the provider starts no second job for them."""
        offer, link = self._hand.offer(attempt), self._hand.parts.links[attempt.provider]
        self._hand.agenda.resending(attempt.number)
        if offer is not None:
            await self._send(attempt, offer, link)

    async def _send(self, attempt: Attempt, offer: Offer, link: Link) -> None:
        hand, number = self._hand, attempt.number

        async def on_fact(fact: Fact) -> None:
            await hand.learn(number, fact, Source.STREAM)

        submit = asyncio.create_task(
            send(
                hand.prediction,
                attempt,
                offer,
                link,
                intake=hand.parts.intake,
                callback_base=hand.parts.callback_base,
                secret=hand.parts.secret,
                now=hand.now(),
                on_fact=on_fact,
                confirm=lambda: self._confirm(attempt),
                may_send=hand.may_send,
                traceparent=hand.parts.traceparent(hand.prediction, number),
            )
        )
        begun = hand.parts.clock.monotonic()
        try:
            fact = await self._answer(submit, attempt, link)
        except StoreError:
            raise
        except ProviderFailure as failure:
            await self._fail(attempt, failure)
        except Exception:
            log.exception("the driver of %s failed in a submit", attempt.provider)
            await self._fail(attempt, OutcomeUnknown("the provider's adapter failed; the log says how"))
        else:
            if fact is None:
                return
            if not fact.phase.is_end:
                hand.feedback.submitted(number, hand.parts.clock.monotonic() - begun)
            await hand.learn(number, fact, Source.SUBMIT)
        finally:
            hand.agenda.sent(number)
            if not submit.done():
                submit.cancel()

    async def _confirm(self, attempt: Attempt) -> None:
        """
        Right before bytes leave: it must still be ours to send. Raises LeaseLost.

        A process that slept, or lost the store, may have been taken for dead.
        """
        hand = self._hand
        while not hand.may_send():
            try:
                await hand.prove(attempt)
            except (LeaseLost, PredictionUnreadable):
                raise
            except StoreError as error:
                log.warning("prediction %s is not sent before the store answers: %s", hand.prediction.id, error)
            if not hand.may_send():
                await asyncio.sleep(hand.parts.timing.store_pause)

    async def _answer(self, submit: asyncio.Task[Fact], attempt: Attempt, link: Link) -> Fact | None:
        """
        What the submit answers; None if the attempt has ended without it, and it does not come at once.

        Drivers keep the deadline by themselves. One that does not is not waited for: then the outcome is unknown.
        """
        hand, pause = self._hand, self._hand.parts.timing.store_pause
        submit.add_done_callback(lambda _: hand.wake())
        cancel = hand.capabilities(attempt, link).cancel
        while not submit.done():
            hand.hush()
            unwanted = hand.prediction.is_terminal or hand.prediction.cancel_requested_at is not None
            if unwanted and cancel is Cancel.DISCONNECT:
                await break_off(submit, seconds=pause)
                await hand.commit(CancelSent(attempt=attempt.number, confirmed=True))
                return None
            if hand.attempt(attempt.number).status.is_closed:
                # A callback has told the end before the submit was answered.
                await asyncio.wait({submit}, timeout=pause)
                return submit.result() if submit.done() else None
            until = attempt.submit_deadline_at or attempt.deadline_at
            until += timedelta(seconds=pause)
            if unwanted:
                until = min(until, hand.grace_until())
            left = (until - hand.now()).total_seconds()
            if left <= 0:
                await break_off(submit, seconds=pause)
                raise OutcomeUnknown("the provider did not answer in its time")
            await hand.wait(left)
        return submit.result()

    async def _fail(self, attempt: Attempt, failure: ProviderFailure) -> None:
        current = self._hand.attempt(attempt.number)
        if current.status is AttemptStatus.INTENT:
            await self._hand.commit(SubmitFailed(attempt=attempt.number, failure=failure.failure))
        elif current.handle is None and current.status is not AttemptStatus.UNKNOWN:
            # It had begun to answer (a stream) and broke off; there is no handle by which it could be asked.
            if not isinstance(failure, (JobFailed, OutcomeUnknown)):
                failure = OutcomeUnknown(str(failure))
            await self._withdrawal.give_up(current, failure.failure)
        # One that was sent before stays unknown: a repeat that fails says nothing of the first.
