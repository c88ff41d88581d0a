"""The prediction: what a caller asked for, and its fate. Not how it is stored or shown."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.attempt import Attempt
from gateway.contract.errors import Failure
from gateway.contract.money import Units
from gateway.contract.route import Plan


class Status(enum.StrEnum):
    """Replicate's words. The last four are terminal and final."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"

    @property
    def is_terminal(self) -> bool:
        return self not in (Status.STARTING, Status.PROCESSING)


class WebhookEvent(enum.StrEnum):
    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


class Request(msgspec.Struct, kw_only=True, frozen=True):
    """What the caller asked for, checked and normalised. Never changes after `create`."""

    model: str  # owner/name
    version: str  # 64 hex: the pinned one, or the model's default at the time
    is_pinned: bool  # the caller named the version: only offers declared for it may serve
    input: dict[str, Any]  # after defaults; unknown keys dropped, stray tokens redacted: what the provider gets
    secret: tuple[str, ...] = ()  # keys of `input` that are never shown: fields of the schema with x-cog-secret
    webhook: str | None = None
    webhook_events: tuple[WebhookEvent, ...] = (WebhookEvent.OUTPUT, WebhookEvent.COMPLETED)
    policy: str | None = None  # asked for by the caller or the key; None: the first that matches
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    # What the input asks for, as far as it tells; it outlives the input. None: made by an older gateway.
    facts: Units | None = None
    wants_deadline: bool = False  # the caller sent Cancel-After, and so knows `aborted`
    file_output: bool = False  # the model's Output schema speaks of files: strings there are collected
    file_keys: tuple[str, ...] | None = None  # keys of `input` that are files by the schema; None: it does not say
    source: str = "api"
    fingerprint: str = ""  # of the POST that made it: by it a client's repeat after a broken connection is known
    trace: str = ""  # the caller's W3C traceparent, version 00


class Prediction(msgspec.Struct, kw_only=True, frozen=True):
    """
    One prediction, whole. Changed only by `engine.lifecycle.reduce`, written only by the store.

    Times are UTC-aware. `revision` counts committed changes: the store's compare-and-set works on it.
    """

    id: str  # 26 characters, lower case, no i l o u
    owner: str  # id of the key that made it
    request: Request
    created_at: datetime
    deadline_at: datetime
    stream_token: str  # makes `urls.stream` unguessable
    status: Status = Status.STARTING
    output: Any = None
    error: str | None = None
    failure: Failure | None = None  # the failure behind `error`
    logs: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    data_removed: bool = False
    cancel_requested_at: datetime | None = None
    plan: Plan | None = None  # the first plan, or the one that found nobody left; every candidate with its reasons
    attempts: tuple[Attempt, ...] = ()
    winner: int | None = None  # number of the attempt whose success is the result
    shown: int | None = None  # number of the attempt whose unfinished output the caller has been shown
    events: int = 0  # how many stream events were written: the next one's sequence
    deliveries: int = 0  # how many deliveries were written: the next one's sequence
    revision: int = 0

    @property
    def is_terminal(self) -> bool:
        return self.status.is_terminal

    @property
    def serving(self) -> Attempt | None:
        """The attempt whose success is the result; before there is one, the newest."""
        if self.winner is not None:
            return next((attempt for attempt in self.attempts if attempt.number == self.winner), None)
        return self.attempts[-1] if self.attempts else None

    @property
    def is_rescued(self) -> bool:
        """It succeeded after a failed attempt."""
        winner = self.winner
        if winner is None or self.status is not Status.SUCCEEDED:
            return False
        return any(attempt.number < winner and attempt.failure is not None for attempt in self.attempts)
