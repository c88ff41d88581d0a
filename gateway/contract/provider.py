"""
The Protocol a provider's adapter fulfils. Sans I/O: no await, no client, no sleep, no loop, no clock.

An adapter turns a `Call` into an HTTP request, and an HTTP answer, a callback or a stream event into a `Fact`
or a `ProviderFailure`. The driver (`providers._driver`) carries the bytes; the engine decides what follows.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import msgspec

from gateway.contract.fact import Fact

SPEC_VERSION = 1


class Cancel(enum.StrEnum):
    """What a provider does when asked to stop."""

    NONE = "none"
    QUEUED_ONLY = "queued_only"
    ANY_TIME = "any_time"
    DISCONNECT = "disconnect"  # closing the connection of the synchronous call stops it


class Callbacks(enum.StrEnum):
    """Whether a provider calls back, and how far it is believed."""

    NONE = "none"
    UNSIGNED = "unsigned"  # only a nudge to poll
    SIGNED = "signed"  # may end the attempt


class Capabilities(msgspec.Struct, kw_only=True, frozen=True):
    """What a provider can do, as data. The router chooses by it, the engine waits by it."""

    modes: frozenset[str]  # of "sync", "queue", "stream": sync holds the call until the end, queue answers at once
    cancel: Cancel = Cancel.NONE
    callbacks: Callbacks = Callbacks.NONE
    pollable: bool = True  # False: the submit's own answer, stream or callback is the only word
    idempotent_submit: bool = False  # the same `Call.idempotency_id` again does not start a second job
    result_lifetime_seconds: float | None = None  # how long the provider keeps the result; None: not stated
    min_poll_seconds: float = 0.5
    input_forms: frozenset[str] = frozenset({"url", "data"})  # how files may be given: "url", "data"
    max_inline_bytes: int = 10_000_000  # of one data URI
    result_hosts: tuple[str, ...] = ()  # hosts, beside its own, on which results may lie; ".x.y" covers subdomains


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One submit, whole: what to run, for how long, and where to call back."""

    prediction: str
    attempt: int
    name: str  # the provider's name of the model
    version: str | None  # the provider's version, if it takes one
    input: dict[str, Any]  # already mapped for this offer; files in a form the provider takes
    idempotency_id: str  # the same for every sending of this attempt; 26 characters
    callback_url: str | None  # None: no callback possible or wanted
    deadline_seconds: float  # from now
    stream: bool = False  # facts should come as they arise, if the provider streams
    options: dict[str, Any] = msgspec.field(default_factory=dict)  # Offer.options


class HttpRequest(msgspec.Struct, kw_only=True, frozen=True):
    """What to send. `url` is a path under the provider's base, or an absolute URL on an origin of the provider's."""

    method: str
    url: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    json: Any = msgspec.UNSET
    content: bytes | None = None
    form: tuple[tuple[str, str], ...] = ()  # multipart text fields
    files: tuple[tuple[str, str, str, bytes], ...] = ()  # multipart files: field, filename, content type, bytes
    expects_stream: bool = False  # the answer may be server-sent events
    holds_until_end: bool = False  # the answer comes when the job is over: wait as long as the deadline allows


class HttpResponse(msgspec.Struct, kw_only=True, frozen=True):
    """What came back, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServerSentEvent(msgspec.Struct, kw_only=True, frozen=True):
    """One event of a stream, fields as the standard has them."""

    event: str
    data: str
    id: str | None = None


class Cancellation(enum.StrEnum):
    """The answer to a cancel."""

    STOPPED = "stopped"  # it is over
    REQUESTED = "requested"  # heard; keep watching
    TOO_LATE = "too_late"  # it had ended already: look what became of it
    UNSUPPORTED = "unsupported"


class Callback(msgspec.Struct, kw_only=True, frozen=True):
    """A callback, taken apart. `fact` is None when it may only nudge us to poll."""

    fact: Fact | None
    dedupe: str | None = None  # the provider's own id of this callback


class EventReader(Protocol):
    """Reads one stream from its beginning; keeps what it has seen, so its facts are cumulative."""

    def read(self, event: ServerSentEvent) -> Fact | None:
        """A fact, or None for an event that says nothing. Raises ProviderFailure."""
        ...

    def end(self) -> Fact:
        """The stream ended in good order. Raises OutcomeUnknown if it ended before its end."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """
    One provider's HTTP API. Pure; safe to share.

    Every `read_*` raises a ProviderFailure for an answer that is a refusal or makes no sense, and returns a Fact
    with phase FAILED for a job that ran and failed.
    """

    spec_version: int
    name: str
    base_url: str  # where the provider lives, if the configuration does not say otherwise
    auth_scheme: str  # "bearer", "key" …: the driver adds `Authorization: <scheme> <token>`; no secret comes in here
    capabilities: Capabilities

    def submit(self, call: Call) -> HttpRequest: ...

    def read_submit(self, call: Call, response: HttpResponse) -> Fact: ...

    def read_events(self, call: Call) -> EventReader:
        """A reader for the answer of a submit that came as server-sent events."""
        ...

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        """None: the provider cannot be asked."""
        ...

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact:
        """Raises PollFailed if the poll itself did not get through (429, 5xx): the job is untouched."""
        ...

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        """None: there is nothing to send."""
        ...

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation: ...

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """Raises CallbackForged. Without `secrets` a signed provider's callback is a nudge."""
        ...


class Driver(Protocol):
    """An adapter with its connections: what the engine holds. Its only implementation is `providers._driver`."""

    name: str
    capabilities: Capabilities

    async def submit(self, call: Call, *, on_fact: Any = None) -> Fact: ...

    async def poll(self, handle: dict[str, str]) -> Fact: ...

    async def cancel(self, handle: dict[str, str]) -> Cancellation: ...

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Callback: ...

    async def aclose(self) -> None: ...
