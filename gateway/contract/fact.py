"""What we learn of an attempt, from whichever side it comes. Not what follows from it: that is the lifecycle's."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.attempt import Attempt
from gateway.contract.errors import Failure
from gateway.contract.money import Cost
from gateway.contract.route import Plan


class Phase(enum.StrEnum):
    """Where the provider says the job is. The last three are its ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_end(self) -> bool:
        return self not in (Phase.QUEUED, Phase.RUNNING)


class Source(enum.StrEnum):
    SUBMIT = "submit"
    CALLBACK = "callback"
    POLL = "poll"
    STREAM = "stream"
    LISTING = "listing"  # found among the jobs the provider says it has


class Fact(msgspec.Struct, kw_only=True, frozen=True):
    """
    What a provider's answer, callback or stream event says of one job. Adapters make these.

    `output` and `logs` are cumulative: the whole text or list so far, so that a fact applied twice changes nothing.
    None means "says nothing of it".
    """

    phase: Phase
    handle: dict[str, str] | None = None
    output: Any = None
    logs: str | None = None
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    cost: Cost | None = None  # only what the provider reports in money
    failure: Failure | None = None  # with FAILED, and with CANCELED if there is something to say
    started_at: datetime | None = None  # the provider's own clock, if it tells
    completed_at: datetime | None = None


# What the lifecycle is fed. Each is idempotent; `attempt` is the attempt's number.


class Planned(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """A plan was made."""

    plan: Plan


class Begun(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The intent: this attempt will be sent once this is committed."""

    attempt: Attempt
    plan: Plan | None = None


class Learned(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """A fact about an attempt arrived."""

    attempt: int
    fact: Fact
    source: Source
    cost: Cost | None = None  # settled by the engine from the fact and the offer's price, when the fact ends the job


class SubmitFailed(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The submit was refused, not sent, or its outcome is unknown (`failure.maybe_running`)."""

    attempt: int
    failure: Failure


class AttemptEnded(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """
    The engine gives an attempt up: its time is over, its job is lost, or nobody needs it any more.

    `look_at`: where something may be running, it is looked for again then, to stop it or to learn its end.
    """

    attempt: int
    failure: Failure
    look_at: datetime | None = None


class Sought(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """An attempt that was given up has been looked for, in vain; `look_at`: once more then, or never again."""

    attempt: int
    look_at: datetime | None


class Collected(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The files of a succeeded attempt are in our keeping; `output` names them."""

    attempt: int
    output: Any


class CancelRequested(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The caller asked to cancel."""


class CancelSent(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """
    The provider was asked to stop an attempt; `confirmed` if it says that it has.

    `failure` says which of its times was over, if that is why: nobody else asked for it.
    """

    attempt: int
    confirmed: bool
    failure: Failure | None = None


class DeadlinePassed(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The prediction's deadline is over."""


class GivenUp(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """No candidate is left, or a failure is final: the prediction fails with this."""

    failure: Failure


class DataRemoved(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """Its time of keeping is over: what was put in and what came out is erased, that it happened stays."""


Happening = (
    Planned
    | Begun
    | Learned
    | SubmitFailed
    | AttemptEnded
    | Sought
    | Collected
    | CancelRequested
    | CancelSent
    | DeadlinePassed
    | GivenUp
    | DataRemoved
)


# What the lifecycle answers with, beside the new state. All are written in the same transaction.


class StreamEvent(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """One stored server-sent event. `event` is one of output, logs, error, done."""

    event: str
    data: str


class Notify(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """A delivery to the caller's webhook; the body is snapshotted by the store in the same transaction."""

    event: str  # WebhookEvent


class LedgerEntry(msgspec.Struct, kw_only=True, frozen=True, tag=True):
    """The money row of one attempt: `reserved → settled | released | maybe`."""

    attempt: int
    offer: str
    provider: str
    state: str  # reserved, settled, released, maybe
    nanos: int | None  # None: unknown
    basis: str
    given_up_at: datetime | None = None  # its end is told late: until then it was thought lost, and told as `maybe`
    corrects_nanos: int | None = None  # what was settled for it before, and is told better now


Effect = StreamEvent | Notify | LedgerEntry
