"""One attempt against its provider: the call that is sent, and when it is polled. Decides nothing about failover."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import derived_id, hash_token
from gateway.contract.errors import (
    InputUnfit,
    JobTimedOut,
    ModelFailed,
    OutcomeUnknown,
    PlanMovedOn,
    ProviderFailure,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Call, Callbacks
from gateway.contract.route import Choice, Offer, OutputMapping, Plan
from gateway.engine.event import any_text
from gateway.engine.seam import Intake, Link

log = logging.getLogger("turnout.engine")

_AS_IT_IS = OutputMapping()

OnFact = Callable[[Fact], Awaitable[None]]


class Timing(msgspec.Struct, kw_only=True, frozen=True):
    """The engine's patience, in seconds."""

    cancel_grace: float = 30.0  # a requested cancel is final after this, confirmed or not
    cancel_tries: int = 5
    first_poll: float = 5.0  # where a callback is expected; else the provider's least interval
    longest_poll: float = 60.0  # where a callback is expected
    longest_wait: float = 8.0  # … of a job that runs for less, while the provider's callbacks are doubtful
    longest_poll_alone: float = 5.0  # where polling is the only word
    collect: float = 600.0  # files of a result are tried for so long, if the provider keeps them as long
    silence: float = 60.0  # a provider whose polls fail for so long may have lost the job
    resend_pauses: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0)  # before each repeat of a submit that starts no second job
    listing_pauses: tuple[float, ...] = (30.0, 120.0)  # after the hold, before each look in a list; the last for ever
    # Before each look for an attempt that was given up while it may be running: an hour in all.
    look_pauses: tuple[float, ...] = (5.0, 15.0, 40.0, 120.0, 420.0, 1200.0, 1800.0)
    prepare: float = 180.0  # the files of an input may take so long to be fetched and uploaded, before it is sent
    store_pause: float = 1.0  # after the store failed


def callback_token(secret: bytes, prediction: str, attempt: int) -> str:
    """
    256 bits that nobody can guess and that need no keeping: the same again after a crash, for an idempotent resend.

    Only its hash is stored, which is what finds the attempt when the callback comes.
    """
    digest = hmac.new(secret, f"callback\x00{prediction}\x00{attempt}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def callback_secret(token: str) -> str:
    """What a provider is told to sign the callbacks of one attempt with: only who knows the token can know it."""
    return hashlib.sha256(f"callback secret\x00{token}".encode()).hexdigest()


def shaped(fact: Fact, offer: Offer | None) -> Fact:
    """The fact with its output as callers of the model expect it, where the offer says how to get there."""
    if offer is None or fact.output is None or offer.output == _AS_IT_IS:
        return fact
    try:
        return msgspec.structs.replace(fact, output=offer.output.apply(fact.output))
    except LookupError as error:
        if fact.phase is not Phase.SUCCEEDED:
            return msgspec.structs.replace(fact, output=None)  # half an output has no shape yet
        failure = ModelFailed(f"the provider's output has no {error.args[0]}").failure
        return msgspec.structs.replace(fact, phase=Phase.FAILED, output=None, failure=failure)


def new_attempt(
    prediction: Prediction,
    offer: Offer,
    choice: Choice,
    plan: Plan,
    *,
    secret: bytes,
    now: datetime,
    pays_twice: bool = False,
    submit_seconds: float | None = None,
    reserved_nanos: int | None = None,
) -> Attempt:
    """The intent: what will be sent once this is durable. `submit_seconds`: most its answer may take; None: any."""
    number = len(prediction.attempts) + 1
    deadline = prediction.deadline_at
    if plan.attempt_seconds:
        deadline = min(deadline, now + timedelta(seconds=plan.attempt_seconds))
    start_deadline = now + timedelta(seconds=plan.start_seconds) if plan.start_seconds else None
    submit_deadline = now + timedelta(seconds=submit_seconds) if submit_seconds else None
    return Attempt(
        number=number,
        offer=offer.id,
        provider=offer.provider,
        remote=offer.name,
        version=offer.version,
        token_hash=hash_token(callback_token(secret, prediction.id, number)),
        begun_at=now,
        deadline_at=deadline,
        submit_deadline_at=min(submit_deadline, deadline) if submit_deadline is not None else None,
        start_deadline_at=min(start_deadline, deadline) if start_deadline is not None else None,
        move_on_at=now + timedelta(seconds=choice.until_seconds) if choice.until_seconds else None,
        run_seconds=plan.run_seconds or None,
        is_fallback=choice.is_fallback,
        quality=offer.quality,
        expected_nanos=choice.expected_nanos,
        reserved_nanos=reserved_nanos,
        pays_twice=pays_twice,
        reason=choice.reasons[0] if choice.reasons else None,
    )


def submit_limit(prediction: Prediction, link: Link, offer: Offer, timing: Timing) -> float | None:
    """Seconds in which a submit is answered, its files made ready before; None where it may be held until the end."""
    if link.submit_seconds is None or link.capabilities_for(offer).modes != {"queue"}:
        return None
    has_files = any_text(prediction.request.input, lambda text: text.startswith(("data:", "http://", "https://")))
    return link.submit_seconds + (timing.prepare if has_files else 0.0)


def overdue(attempt: Attempt, now: datetime) -> ProviderFailure | None:
    """Which of its times is over, in words; None while none is. Where nothing is known of it, only the last counts."""
    seconds = attempt.run_seconds
    if (
        attempt.run_deadline_at is not None
        and attempt.status is AttemptStatus.RUNNING
        and now >= attempt.run_deadline_at
    ):
        return JobTimedOut(f"it ran longer than the {seconds or 0:g} s it may")
    start = attempt.start_deadline_at
    if start is not None and attempt.status is AttemptStatus.ACCEPTED and now >= start:
        return JobTimedOut(f"it did not begin to run within {_between(attempt.begun_at, start):g} s")
    if now >= attempt.deadline_at:
        if attempt.status is AttemptStatus.UNKNOWN:
            return OutcomeUnknown("nobody said in its time what became of it")
        return JobTimedOut(f"it did not end within {_between(attempt.begun_at, attempt.deadline_at):g} s")
    move_on_at = _move_on_at(attempt)
    if move_on_at is not None and now >= move_on_at:
        return PlanMovedOn(
            f"it did not end within the {_between(attempt.begun_at, move_on_at):g} s its plan had for it"
        )
    return None


def next_limit(attempt: Attempt) -> datetime:
    """When the next of its times is over, as things stand."""
    due = attempt.deadline_at
    if attempt.run_deadline_at is not None and attempt.status is AttemptStatus.RUNNING:
        due = min(due, attempt.run_deadline_at)
    if attempt.start_deadline_at is not None and attempt.status is AttemptStatus.ACCEPTED:
        due = min(due, attempt.start_deadline_at)
    move_on_at = _move_on_at(attempt)
    return due if move_on_at is None else min(due, move_on_at)


def _move_on_at(attempt: Attempt) -> datetime | None:
    """Only what can be asked to stop is left for another: of a submit without an answer nobody knows what it costs."""
    is_known = attempt.status in (AttemptStatus.ACCEPTED, AttemptStatus.RUNNING)
    return attempt.move_on_at if is_known else None


def _between(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 3)


def _seconds_until(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.1, (moment - now).total_seconds())


def call_of(
    prediction: Prediction,
    attempt: Attempt,
    offer: Offer,
    link: Link,
    input: dict[str, Any],
    *,
    callback_base: str,
    secret: bytes,
    now: datetime,
    traceparent: str = "",
) -> Call:
    """What is sent, or was: the same again after a crash, but for the time that is left. `input` is of the caller."""
    capabilities = link.driver.capabilities_for(offer.options)
    callback, token = None, callback_token(secret, prediction.id, attempt.number)
    if link.callbacks and capabilities.callbacks is not Callbacks.NONE:
        callback = f"{callback_base}/cb/{token}"
    return Call(
        prediction=prediction.id,
        attempt=attempt.number,
        name=offer.name,
        version=offer.remote_version,
        input=offer.input.apply(input),
        idempotency_id=derived_id(prediction.id, str(attempt.number)),
        callback_url=callback,
        deadline_seconds=max(0.1, (attempt.deadline_at - now).total_seconds()),
        start_seconds=_seconds_until(attempt.start_deadline_at, now),
        run_seconds=attempt.run_seconds,
        # What grows is to be seen growing: by the provider's stream, or by the callbacks it sends of each step.
        stream="stream" in capabilities.modes or callback is not None,
        options=offer.options,
        traceparent=traceparent,
        callback_secret=callback_secret(token),
    )


async def send(
    prediction: Prediction,
    attempt: Attempt,
    offer: Offer,
    link: Link,
    *,
    intake: Intake,
    callback_base: str,
    secret: bytes,
    now: datetime,
    on_fact: OnFact,
    confirm: Callable[[], Awaitable[None]],
    may_send: Callable[[], bool],
    traceparent: str = "",
) -> Fact:
    """
    Submit an attempt whose intent is committed. Returns what the provider's answer says; raises ProviderFailure.

    `on_fact` hears of progress where the provider streams. `confirm` is asked last: it raises LeaseLost where the
    attempt is no longer ours to send; `may_send` once more when the connection stands.
    """
    capabilities = link.driver.capabilities_for(offer.options)
    try:
        input = await intake.fit(
            prediction.request.input,
            owner=prediction.owner,
            capabilities=capabilities,
            reaches_us=link.reaches_us,
            file_keys=prediction.request.file_keys,
            prediction=prediction.id,
        )
    except ProviderFailure:
        raise
    except Exception as error:
        # Whatever it was: no byte has left, and that must not be forgotten.
        log.exception("the input of prediction %s could not be made ready for %s", prediction.id, attempt.provider)
        raise InputUnfit("the input could not be made ready for this provider") from error
    call = call_of(
        prediction,
        attempt,
        offer,
        link,
        input,
        callback_base=callback_base,
        secret=secret,
        now=now,
        traceparent=traceparent,
    )

    async def tell(fact: Fact) -> None:
        await on_fact(shaped(fact, offer))

    await confirm()
    return shaped(await link.driver.submit(call, on_fact=tell, may_send=may_send), offer)
