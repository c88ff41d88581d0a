"""What an open prediction needs next, and which candidate is tried next. Pure: decides, does nothing."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Failure, NoCandidate, OutcomeUnknown, Verdict
from gateway.contract.prediction import Prediction
from gateway.contract.route import Choice, Plan
from gateway.engine.lifecycle import open_attempts


class Need(enum.StrEnum):
    REST = "rest"  # nothing is left to do
    STOP = "stop"  # attempts nobody waits for are to be stopped
    COLLECT = "collect"  # the winner's files are to be copied
    EXPIRE = "expire"  # the deadline is over
    WATCH = "watch"  # an attempt is under way
    START = "start"  # another candidate is to be tried
    GIVE_UP = "give_up"


class Next(msgspec.Struct, kw_only=True, frozen=True):
    need: Need
    attempt: int | None = None  # with COLLECT
    until: datetime | None = None  # with WATCH: look again at the latest then
    failure: Failure | None = None  # with GIVE_UP
    pays_twice: bool = False  # with START: something may already be running elsewhere, and be billed


def next_need(
    prediction: Prediction, now: datetime, *, hold_seconds: float, silent: frozenset[int] = frozenset()
) -> Next:
    """
    What to do for `prediction` now.

    `hold_seconds`: how long an attempt with an unknown outcome is given to report by callback before another starts.
    `silent`: attempts whose provider cannot be asked: nothing is known of them either, but they have been waited for.
    """
    pending = open_attempts(prediction)
    if prediction.is_terminal or (prediction.cancel_requested_at is not None and prediction.winner is None):
        return Next(need=Need.STOP if pending else Need.REST)
    if prediction.winner is not None:
        return Next(need=Need.COLLECT, attempt=prediction.winner)
    if now >= prediction.deadline_at:
        return Next(need=Need.EXPIRE)
    known = [attempt for attempt in pending if attempt.number not in silent]
    if any(attempt.status is not AttemptStatus.UNKNOWN for attempt in known):
        return Next(need=Need.WATCH)
    held_until = max((hold_until(attempt, hold_seconds) for attempt in known), default=now)
    if held_until > now:
        return Next(need=Need.WATCH, until=held_until)
    final = final_failure(prediction)
    if final is not None:
        return Next(need=Need.WATCH) if pending else Next(need=Need.GIVE_UP, failure=final)
    if prediction.plan is not None and len(prediction.attempts) >= prediction.plan.max_attempts:
        return Next(need=Need.WATCH) if pending else Next(need=Need.GIVE_UP, failure=exhausted(prediction))
    return Next(need=Need.START, pays_twice=bool(pending) or _may_be_billed(prediction))


def hold_until(attempt: Attempt, hold_seconds: float) -> datetime:
    return (attempt.unknown_at or attempt.begun_at) + timedelta(seconds=hold_seconds)


def choose(prediction: Prediction, plan: Plan, *, pays_twice: bool) -> tuple[Choice, ...]:
    """
    The kept choices that may be tried now, in order.

    The last attempt a policy allows belongs to the fallback, if the plan has one: it is what it is there for.
    """
    tried = {attempt.offer for attempt in prediction.attempts}
    choices = tuple(choice for choice in plan.kept if choice.offer not in tried)
    fallbacks = tuple(choice for choice in choices if choice.is_fallback)
    if fallbacks and plan.max_attempts - len(prediction.attempts) <= 1:
        choices = fallbacks
    if pays_twice:
        limit = plan.pay_twice_up_to_nanos
        choices = tuple(c for c in choices if c.expected_nanos is not None and c.expected_nanos <= limit)
    return choices


def final_failure(prediction: Prediction) -> Failure | None:
    """The newest failure that no other provider would mend, such as a bad input."""
    for attempt in reversed(prediction.attempts):
        if attempt.failure is not None and attempt.status.is_closed and attempt.failure.verdict is Verdict.FINAL:
            return attempt.failure
    return None


def exhausted(prediction: Prediction, plan: Plan | None = None) -> Failure:
    """Nothing is left to try: says what was tried, and how each failed."""
    tried = [
        f"{attempt.provider}: {attempt.failure.message}"
        for attempt in prediction.attempts
        if attempt.failure is not None
    ]
    if any(attempt.status is AttemptStatus.UNKNOWN for attempt in prediction.attempts):
        return OutcomeUnknown("no provider said what became of it in time: " + "; ".join(tried)).failure
    if len(tried) == 1 and len(prediction.attempts) == 1:
        # There was one to try: what it said is what the caller wants to read.
        only = prediction.attempts[0].failure
        return replace(only, verdict=Verdict.FINAL) if only is not None else NoCandidate().failure
    if tried:
        return NoCandidate("every candidate failed: " + "; ".join(tried)).failure
    plan = plan or prediction.plan
    dropped = [f"{c.offer}: {c.reasons[0].text}" for c in (plan.choices if plan else ()) if not c.kept and c.reasons]
    reason = "; ".join(dropped) if dropped else "the model has no offers"
    return NoCandidate(f"no offer may serve this prediction: {reason}").failure


def _may_be_billed(prediction: Prediction) -> bool:
    return any(
        attempt.status is AttemptStatus.ABANDONED
        and attempt.failure is not None
        and attempt.failure.code == OutcomeUnknown.code
        for attempt in prediction.attempts
    )
