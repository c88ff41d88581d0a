"""One try on one candidate: intent, handle, outcome, timing, cost."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.errors import Failure
from gateway.contract.money import UNKNOWN_COST, Cost
from gateway.contract.reason import Reason


class AttemptStatus(enum.StrEnum):
    """
    `intent → (rejected | accepted | unknown) → running → (collecting →) succeeded | failed | canceled | abandoned`.

    `unknown` is open: a callback, a poll or the deadline resolves it.
    """

    INTENT = "intent"  # durable before any byte is sent
    UNKNOWN = "unknown"  # sent, then silence: may be running, may be billed
    ACCEPTED = "accepted"  # the provider has it, queued
    RUNNING = "running"
    COLLECTING = "collecting"  # it succeeded; its files are being copied into our keeping
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"  # nothing ran
    FAILED = "failed"
    CANCELED = "canceled"
    ABANDONED = "abandoned"  # never resolved, and nobody waits for it any more

    @property
    def is_closed(self) -> bool:
        return self in _CLOSED

    @property
    def rank(self) -> int:
        """Facts of a lower rank change nothing: intent < unknown < accepted < running < collecting < closed."""
        return _RANKS[self]


_CLOSED = frozenset(
    {
        AttemptStatus.SUCCEEDED,
        AttemptStatus.REJECTED,
        AttemptStatus.FAILED,
        AttemptStatus.CANCELED,
        AttemptStatus.ABANDONED,
    }
)
_RANKS = {
    AttemptStatus.INTENT: 0,
    AttemptStatus.UNKNOWN: 1,
    AttemptStatus.ACCEPTED: 2,
    AttemptStatus.RUNNING: 3,
    AttemptStatus.COLLECTING: 4,
} | dict.fromkeys(_CLOSED, 5)


class Attempt(msgspec.Struct, kw_only=True, frozen=True):
    """
    One try. Times are UTC-aware; money is nano-dollars.

    `handle` is what the adapter needs to find the job again after a crash, and is opaque to everybody else.
    """

    number: int  # 1, 2, …
    offer: str  # Offer.id
    provider: str
    remote: str  # what the provider calls the model
    version: str  # the public version this offer is declared for: what really served
    token_hash: str  # SHA-256 (hex) of the callback token; the token itself is never stored
    begun_at: datetime
    deadline_at: datetime  # of the whole
    submit_deadline_at: datetime | None = None  # until then the submit is answered; None: it is held as long as it runs
    start_deadline_at: datetime | None = None  # until then it runs; None: any time
    move_on_at: datetime | None = None  # its plan goes on with the next then; None: only its limits end it
    run_seconds: float | None = None  # most it may run, from when the provider began; None: any time
    run_deadline_at: datetime | None = None  # what that comes to, once it runs
    is_fallback: bool = False
    quality: str = "full"  # of the offer, as declared
    reason: Reason | None = None  # why it was chosen, when it was
    status: AttemptStatus = AttemptStatus.INTENT
    handle: dict[str, str] | None = None
    unknown_at: datetime | None = None  # since when nobody knows what became of the submit
    accepted_at: datetime | None = None
    running_at: datetime | None = None
    ended_at: datetime | None = None
    output: Any = None  # as the provider gave it, until its files are ours
    logs: str = ""
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    failure: Failure | None = None
    cancel_requested_at: datetime | None = None  # we asked the provider to stop it
    cancel_tries: int = 0
    pays_twice: bool = False  # begun by policy while something else may have been running, and may be billed
    resolved_by: str | None = None  # the source of the word that ended the doubt about its submit
    look_at: datetime | None = None  # given up, and looked for again then; None: no more, or not yet
    looks: int = 0  # … so often, since it was given up or found
    expected_nanos: int | None = None
    reserved_nanos: int | None = None  # put aside for it under budgets; None: it falls under none
    cost: Cost = UNKNOWN_COST
