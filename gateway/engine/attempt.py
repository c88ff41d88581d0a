"""One attempt against its provider: the call that is sent, and when it is polled. Decides nothing about failover."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from gateway.contract.attempt import Attempt
from gateway.contract.clock import derived_id, hash_token
from gateway.contract.errors import InputUnfit, ModelFailed, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Call, Callbacks, Capabilities
from gateway.contract.route import Choice, Offer, OutputMapping, Plan
from gateway.engine.seam import Intake, Link

log = logging.getLogger("turnout.engine")

_AS_IT_IS = OutputMapping()

OnFact = Callable[[Fact], Awaitable[None]]


class Timing(msgspec.Struct, kw_only=True, frozen=True):
    """The engine's patience, in seconds."""

    hold: float = 20.0  # an unknown outcome may report by callback for so long before another attempt starts
    cancel_grace: float = 30.0  # a requested cancel is final after this, confirmed or not
    cancel_tries: int = 5
    first_poll: float = 5.0  # where a callback is expected; else the provider's least interval
    longest_poll: float = 60.0  # where a callback is expected
    longest_poll_alone: float = 5.0  # where polling is the only word
    silence: float = 60.0  # a provider whose polls fail for so long may have lost the job
    resend_pauses: tuple[float, ...] = (0.5, 2.0, 5.0)  # before each repeat of a submit that starts no second job
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
    prediction: Prediction, offer: Offer, choice: Choice, plan: Plan, *, secret: bytes, now: datetime
) -> Attempt:
    """The intent: what will be sent once this is durable."""
    number = len(prediction.attempts) + 1
    deadline = prediction.deadline_at
    if plan.attempt_seconds:
        deadline = min(deadline, now + timedelta(seconds=plan.attempt_seconds))
    return Attempt(
        number=number,
        offer=offer.id,
        provider=offer.provider,
        remote=offer.name,
        version=offer.version,
        token_hash=hash_token(callback_token(secret, prediction.id, number)),
        begun_at=now,
        deadline_at=deadline,
        is_fallback=choice.is_fallback,
        expected_nanos=choice.expected_nanos,
        reason=choice.reasons[0] if choice.reasons else None,
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
    traceparent: str = "",
) -> Fact:
    """
    Submit an attempt whose intent is committed. Returns what the provider's answer says; raises ProviderFailure.

    `on_fact` hears of progress where the provider streams.
    """
    capabilities = link.driver.capabilities_for(offer.options)
    try:
        input = await intake.fit(
            prediction.request.input,
            owner=prediction.owner,
            capabilities=capabilities,
            reaches_us=link.reaches_us,
            file_keys=prediction.request.file_keys,
        )
    except ProviderFailure:
        raise
    except Exception as error:
        # Whatever it was: no byte has left, and that must not be forgotten.
        log.exception("the input of prediction %s could not be made ready for %s", prediction.id, attempt.provider)
        raise InputUnfit("the input could not be made ready for this provider") from error
    callback, token = None, callback_token(secret, prediction.id, attempt.number)
    if link.callbacks and capabilities.callbacks is not Callbacks.NONE:
        callback = f"{callback_base}/cb/{token}"
    call = Call(
        prediction=prediction.id,
        attempt=attempt.number,
        name=offer.name,
        version=offer.remote_version,
        input=offer.input.apply(input),
        idempotency_id=derived_id(prediction.id, str(attempt.number)),
        callback_url=callback,
        deadline_seconds=max(0.1, (attempt.deadline_at - now).total_seconds()),
        # What grows is to be seen growing: by the provider's stream, or by the callbacks it sends of each step.
        stream="stream" in capabilities.modes or callback is not None,
        options=offer.options,
        traceparent=traceparent,
        callback_secret=callback_secret(token),
    )

    async def tell(fact: Fact) -> None:
        await on_fact(shaped(fact, offer))

    return shaped(await link.driver.submit(call, on_fact=tell), offer)


class PollSchedule:
    """When the next poll of one attempt is due: ever sparser, jittered, never too sparse for the result to live."""

    def __init__(
        self, capabilities: Capabilities, timing: Timing, *, is_called_back: bool, expected_seconds: float | None
    ) -> None:
        least = capabilities.min_poll_seconds
        if is_called_back:
            # The callback is the fast path: the poll is only there in case it is lost.
            self._interval = max(least, timing.first_poll, min(2 * (expected_seconds or 0), timing.longest_poll))
            self._longest = timing.longest_poll
        else:
            self._interval = max(least, min(0.5 * (expected_seconds or 0), timing.longest_poll_alone))
            self._longest = max(least, timing.longest_poll_alone)
        if capabilities.result_lifetime_seconds is not None:
            self._longest = min(self._longest, max(least, capabilities.result_lifetime_seconds / 3))
        self._least = least
        self._interval = min(self._interval, self._longest)

    def next_seconds(self, draw: Callable[[], float]) -> float:
        """Seconds until the next poll, +-20 %."""
        interval = self._interval
        self._interval = min(self._longest, self._interval * 1.6)
        return max(self._least, interval * (0.8 + 0.4 * draw()))
