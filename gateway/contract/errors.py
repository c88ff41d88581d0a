"""
Every error Turnout raises on purpose, and what a failed attempt asks for.

Our exception hierarchy:

    TurnoutError
      · ConfigurationError         a file or an argument is wrong; the message names file, place and remedy
      · StoreError
          · StoreUnavailable       it may have committed, and did not say so; try again
          · StoreOverloaded        the writer's queue is full; try again later
          · LeaseLost              the worker does not hold the prediction any more
          · PredictionUnreadable   a newer version wrote it in words this one does not know; it is left alone
      · RequestRefused             a caller asked for something we do not do
          · InputInvalid           the input does not fit the model's schema
          · NotFound
          · Unauthenticated
          · Forbidden
          · Conflict               the same idempotency key with another body
          · TooLarge
          · Throttled
      · AddressForbidden           an address a caller named may not be dialled
      · CallbackForged             a callback whose signature does not fit
      · ProviderFailure            one attempt failed; carries its verdict
          · NotSent                no byte left us                                     FAIL_OVER
              · PoolExhausted, InputUnfit, SendWithheld, BudgetSpent: our own side of it
          · Refused                the provider said no before anything ran
              · InputRefused       the input is bad, and would be bad elsewhere        FINAL
              · InputModerated     the input was refused by a content filter           FINAL
              · CredentialRefused  our key or its rights                               FAIL_OVER
              · WalletEmpty        our credit or quota                                 FAIL_OVER
              · RateLimited        too many requests; may name a time                  FAIL_OVER
              · AtCapacity         no slot, still loading, queue full                  FAIL_OVER
              · ModelMissing       the provider does not know the model or version     FAIL_OVER
          · OutcomeUnknown         sent, and no valid answer: it may be running        by policy, never RETRY
          · JobFailed              it ran, or was queued, and ended badly
              · ModelFailed        the model raised                                    FAIL_OVER
              · OutputModerated    the output was withheld by a content filter         FINAL
              · JobLost            the provider no longer knows it                     FAIL_OVER
              · JobCanceled        ended by somebody else's hand                       FAIL_OVER
              · JobTimedOut        our deadline for the attempt, or theirs             FAIL_OVER
              · ResultLost         it succeeded, and its files cannot be had           FAIL_OVER
          · PollFailed             a poll or cancel did not get through                RETRY
          · NoCandidate, DeadlineExceeded, NoLongerNeeded, EngineFailed: the engine's own words      FINAL

`RETRY` (here, the same offer) is only ever asked for a poll or a cancel: a submit is never repeated by itself.
"""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec


class Verdict(enum.StrEnum):
    """What a failure asks the engine to do; the engine does that or less."""

    RETRY = "retry"
    FAIL_OVER = "fail_over"
    FINAL = "final"


class Blame(enum.StrEnum):
    """Whose trouble a failure is: it decides whether a breaker hears of it."""

    PROVIDER = "provider"  # counts against the offer
    THROTTLE = "throttle"  # the rate limiter's business, not the breaker's
    ACCOUNT = "account"  # key or credit: opens the breaker at once, for long
    CALLER = "caller"  # bad input, moderation: says nothing about the offer
    LOCAL = "local"  # our DNS, pool, deadline, cancellation


class Evidence(enum.StrEnum):
    """How far an exchange with a provider had come when it failed, as the transport saw it."""

    NOTHING_LEFT = "nothing_left"  # no byte of the request was handed to a socket
    BYTES_LEFT = "bytes_left"  # some were, or may have been
    ANSWER_BEGAN = "answer_began"
    ANSWER_WHOLE = "answer_whole"


class Failure(msgspec.Struct, kw_only=True, frozen=True):
    """A failure as it is stored and shown: data, no longer an exception."""

    code: str  # snake_case name of the error class, e.g. "rate_limited"
    message: str  # a sentence for people, without secrets
    verdict: Verdict
    blame: Blame
    retry_after_seconds: float | None = None
    status: int | None = None  # HTTP status of the provider, if there was one
    maybe_running: bool = False  # something may be running, and may be billed
    evidence: Evidence | None = None  # None: nobody watched


class TurnoutError(Exception):
    """Root of every error raised on purpose."""


class ConfigurationError(TurnoutError):
    """A file or an argument is wrong: says where, what, and what to do. One line."""


class StoreError(TurnoutError):
    """The store could not do it."""


class StoreUnavailable(StoreError):
    """The store does not answer, or cannot write. Its answer may be all that was lost: it may have committed."""


class StoreOverloaded(StoreError):
    """The store's queue is full; nothing was committed."""


class LeaseLost(StoreError):
    """The worker does not hold this prediction (any more): it must let go and write nothing but facts."""


class PredictionUnreadable(StoreError):
    """What is kept of a prediction cannot be read by this version: it is left as it is, for one that can."""


class RequestRefused(TurnoutError):
    """A caller asked for something that is not to be had. `status` is the HTTP status that says so."""

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Bad request"


class InvalidField(msgspec.Struct, kw_only=True, frozen=True):
    """One line of a 422: wording as Replicate's (gojsonschema's default locale)."""

    type: str
    field: str
    description: str


class InputInvalid(RequestRefused):
    """Input or body does not fit. `fields` in the order they are shown."""

    status = 422
    title = "Input validation failed"

    def __init__(self, fields: tuple[InvalidField, ...]) -> None:
        self.fields = fields
        super().__init__(
            "".join(f"- {f.field}: {f.description}\n" if f.field else f"- {f.description}\n" for f in fields)
        )


class NotFound(RequestRefused):
    """No such thing, or not yours: the two are told apart by nobody."""

    status = 404
    title = "Not found"


class Unauthenticated(RequestRefused):
    """No token, or a wrong one."""

    status = 401
    title = "Unauthenticated"


class Forbidden(RequestRefused):
    """The key is good and lacks the right."""

    status = 403
    title = "Forbidden"


class Conflict(RequestRefused):
    """The same idempotency key came with another body."""

    status = 422
    title = "Idempotency key reused"


class TooLarge(RequestRefused):
    """A body or file over its limit."""

    status = 413
    title = "Too large"


class Throttled(RequestRefused):
    """Too many requests of this key. `retry_after_seconds` is whole seconds."""

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AddressForbidden(TurnoutError):
    """An address that a caller or a provider named may not be dialled."""


class CallbackForged(TurnoutError):
    """A callback's signature does not fit its body, or its time is out of the window."""


class ProviderFailure(TurnoutError):
    """
    One attempt failed. Subclasses fix `code`, `verdict` and `blame`; adapters pick the subclass.

    `message` must already be free of secrets; the provider's own words may be quoted in it.
    """

    code: ClassVar[str] = "provider_failure"
    verdict: ClassVar[Verdict] = Verdict.FAIL_OVER
    blame: ClassVar[Blame] = Blame.PROVIDER
    maybe_running: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        retry_after_seconds: float | None = None,
        status: int | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        super().__init__(message or (self.__doc__ or self.code).strip().splitlines()[0])
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.evidence = evidence

    @property
    def failure(self) -> Failure:
        return Failure(
            code=self.code,
            message=str(self),
            verdict=self.verdict,
            blame=self.blame,
            retry_after_seconds=self.retry_after_seconds,
            status=self.status,
            maybe_running=self.maybe_running,
            evidence=self.evidence,
        )


class NotSent(ProviderFailure):
    """The provider could not be reached; no byte of the request left us."""

    code = "not_sent"


class PoolExhausted(NotSent):
    """All our connections to the provider are in use."""

    code = "pool_exhausted"
    blame = Blame.LOCAL


class SendWithheld(NotSent):
    """It was not sure any more, when it was about to be sent, that the prediction was still ours to send."""

    code = "send_withheld"
    blame = Blame.LOCAL


class BudgetSpent(NotSent):
    """A budget has not enough left for it. `bars_fallback`: nor is the fallback there for that."""

    code = "budget_spent"
    blame = Blame.LOCAL

    def __init__(self, message: str = "", *, bars_fallback: bool = False) -> None:
        super().__init__(message)
        self.bars_fallback = bars_fallback


class InputUnfit(NotSent):
    """The input, or a file of it, has not the form or the size that this provider takes; others may take it."""

    code = "input_unfit"
    blame = Blame.LOCAL


class Refused(ProviderFailure):
    """The provider refused before anything ran."""

    code = "refused"


class InputRefused(Refused):
    """The provider refused the input."""

    code = "input_refused"
    verdict = Verdict.FINAL
    blame = Blame.CALLER


class InputModerated(Refused):
    """The input was refused by a content filter."""

    code = "input_moderated"
    verdict = Verdict.FINAL
    blame = Blame.CALLER


class CredentialRefused(Refused):
    """The provider refused our credentials."""

    code = "credential_refused"
    blame = Blame.ACCOUNT


class WalletEmpty(Refused):
    """Our credit or quota with the provider is used up."""

    code = "wallet_empty"
    blame = Blame.ACCOUNT


class RateLimited(Refused):
    """The provider asks us to slow down."""

    code = "rate_limited"
    blame = Blame.THROTTLE


class AtCapacity(Refused):
    """The provider has no free slot now."""

    code = "at_capacity"
    blame = Blame.THROTTLE


class ModelMissing(Refused):
    """The provider does not know the model or version."""

    code = "model_missing"


class OutcomeUnknown(ProviderFailure):
    """The request was sent and no valid answer came: it may be running, and billed."""

    code = "outcome_unknown"
    maybe_running = True


class JobFailed(ProviderFailure):
    """The job ended badly at the provider."""

    code = "job_failed"


class ModelFailed(JobFailed):
    """The model raised an error."""

    code = "model_failed"


class OutputModerated(JobFailed):
    """The output was withheld by a content filter."""

    code = "output_moderated"
    verdict = Verdict.FINAL
    blame = Blame.CALLER


class JobLost(JobFailed):
    """The provider no longer knows the job."""

    code = "job_lost"


class JobCanceled(JobFailed):
    """The job was canceled at the provider, not by us."""

    code = "job_canceled"


class JobTimedOut(JobFailed):
    """The job did not end in its time."""

    code = "job_timed_out"
    maybe_running = True


class PlanMovedOn(JobFailed):
    """The job was given the time its plan had for it; another is tried now. It says nothing of its provider."""

    code = "plan_moved_on"
    blame = Blame.LOCAL
    maybe_running = True


class ResultLost(JobFailed):
    """The job succeeded, and its result could not be had any more."""

    code = "result_lost"


class NoCandidate(ProviderFailure):
    """No offer is left that may serve this prediction."""

    code = "no_candidate"
    verdict = Verdict.FINAL
    blame = Blame.LOCAL


class DeadlineExceeded(ProviderFailure):
    """The prediction did not end before its deadline."""

    code = "deadline_exceeded"
    verdict = Verdict.FINAL
    blame = Blame.LOCAL


class EngineFailed(ProviderFailure):
    """The gateway itself could not go on with the prediction."""

    code = "engine_failed"
    verdict = Verdict.FINAL
    blame = Blame.LOCAL


class NoLongerNeeded(ProviderFailure):
    """The prediction ended without this attempt, and the provider did not say what became of it."""

    code = "no_longer_needed"
    verdict = Verdict.FINAL
    blame = Blame.LOCAL
    maybe_running = True


class PollFailed(ProviderFailure):
    """A poll or a cancel did not get through; the job itself is untouched."""

    code = "poll_failed"
    verdict = Verdict.RETRY


def refuse(problem: str, *, place: str, remedy: str) -> ConfigurationError:
    """One line that names what is wrong, where, and what to do."""
    return ConfigurationError(f"{place}: {problem}; {remedy}")
