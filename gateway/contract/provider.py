"""
The Protocol a provider's adapter fulfils. Sans I/O: no await, no client, no sleep, no loop, no clock.

An adapter turns a `Call` into an HTTP request, and an HTTP answer, a callback or a stream event into a `Fact`
or a `ProviderFailure`. The driver (`providers._driver`) carries the bytes; the engine decides what follows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import msgspec

from gateway.contract.errors import ProviderFailure
from gateway.contract.fact import Fact

SPEC_VERSION = 1


class Cancel(enum.StrEnum):
    """What a provider does when asked to stop."""

    NONE = "none"
    QUEUED_ONLY = "queued_only"
    ANY_TIME = "any_time"
    DISCONNECT = "disconnect"  # closing the connection of the synchronous call stops it


class Signature(enum.StrEnum):
    """By which scheme a provider proves that a callback is its own."""

    NONE = "none"
    STANDARD_WEBHOOKS = "standard_webhooks"  # HMAC-SHA256 over id, time and body
    HMAC_SHA256 = "hmac_sha256"  # a scheme of the provider's own
    ED25519_KEYS = "ed25519_keys"  # by a published set of keys
    SHARED_SECRET = "shared_secret"  # noqa: S105 - the name of a scheme: it shows a secret, and signs nothing


class CostForm(enum.StrEnum):
    """How far a provider tells what a job cost."""

    NONE = "none"  # nothing: the price list and the input must do
    UNITS = "units"  # tokens, seconds, units of its own: times the offer's price
    MONEY = "money"  # an amount


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
    signature: Signature = Signature.NONE
    takes_callback_secret: bool = False  # each submit tells it what to sign that job's callbacks with
    idempotent_submit: bool = False  # the same `Call.idempotency_id` again does not start a second job
    lists: bool = False  # it tells which jobs it has, so that one whose submit was not answered can be found
    cost: CostForm = CostForm.UNITS
    result_forms: frozenset[str] = frozenset({"url"})  # of "url", "data" (inline), "json" (values, text)
    result_lifetime_seconds: float | None = None  # how long the provider keeps the result; None: not stated
    result_needs_credentials: bool = False  # its files, on its own origins, are shown to our credentials only
    min_poll_seconds: float = 0.5
    # How files may be given: "url", "data" (a data URI; the adapter may make multipart of it), "upload" (first).
    input_forms: frozenset[str] = frozenset({"url", "data"})
    max_inline_bytes: int = 10_000_000  # of one data URI
    max_upload_bytes: int = 100_000_000
    result_hosts: tuple[str, ...] = ()  # hosts, beside its own, on which results may lie; ".x.y" covers subdomains
    takes_traceparent: bool = False  # W3C trace context is of use to it


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One submit, whole: what to run, for how long, and where to call back."""

    prediction: str
    attempt: int
    name: str  # the provider's name of the model
    version: str | None  # the provider's version, if it takes one
    input: dict[str, Any]  # already mapped for this offer; files in a form the provider takes
    idempotency_id: str  # the same for every sending of this attempt; 26 characters
    callback_url: str | None  # None: no callback possible or wanted
    deadline_seconds: float  # from now, for the whole
    start_seconds: float | None = None  # from now until it runs; None: any time before the deadline
    run_seconds: float | None = None  # from when it runs; None: any time before the deadline
    stream: bool = False  # facts should come as they arise, if the provider streams
    options: dict[str, Any] = msgspec.field(default_factory=dict)  # Offer.options
    # What callbacks of this attempt alone are to be signed with, for providers that are told a secret at each submit.
    callback_secret: str | None = None
    traceparent: str = ""  # W3C trace context of the attempt

    @property
    def seconds_to_start(self) -> float:
        """From now: what runs no sooner is not worth starting."""
        return self.deadline_seconds if self.start_seconds is None else min(self.start_seconds, self.deadline_seconds)

    @property
    def seconds_to_run(self) -> float:
        """From when it runs."""
        return self.deadline_seconds if self.run_seconds is None else min(self.run_seconds, self.deadline_seconds)

    @property
    def seconds_to_end(self) -> float:
        """From now: whatever comes later is of no use."""
        return min(self.deadline_seconds, self.seconds_to_start + self.seconds_to_run)


class HttpRequest(msgspec.Struct, kw_only=True, frozen=True):
    """
    What to send. `url` is a path under one of the provider's sites, or an absolute URL on an origin of the provider's.

    Nothing in it is secret: credentials are added on the way out, by the adapter's `auth`.
    """

    method: str
    url: str
    site: str = ""  # which of `Adapter.sites` a path belongs to; empty: the base
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    json: Any = msgspec.UNSET
    content: bytes | None = None
    form: tuple[tuple[str, str], ...] = ()  # multipart text fields
    files: tuple[tuple[str, str, str, bytes], ...] = ()  # multipart files: field, filename, content type, bytes
    expects_stream: bool = False  # the answer may be server-sent events
    # The answer comes when the job is over: a submit waits for it as long as the deadline allows, and a poll that
    # hears nothing within its time has heard that the job still runs.
    holds_until_end: bool = False


class HttpResponse(msgspec.Struct, kw_only=True, frozen=True):
    """What came back, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Ask(msgspec.Struct, kw_only=True, frozen=True):
    """
    One question more before it can be told: its answer is read by the same verb again, with this handle.

    For results that lie behind an address of their own, and for states that must be looked at before they are changed.
    """

    request: HttpRequest
    handle: dict[str, str]


class Listed(msgspec.Struct, kw_only=True, frozen=True):
    """A job as a provider lists it. How far it has come is not believed: lists may leave outputs out."""

    handle: dict[str, str]
    created_at: datetime | None = None  # aware, by the provider's own clock
    callback_url: str | None = None  # as it was given; None: it was given none, or the list does not show it
    input: Any = None
    marks: dict[str, str] = msgspec.field(default_factory=dict)  # what it runs, in the words of `Adapter.marks`


class Listing(msgspec.Struct, kw_only=True, frozen=True):
    """One page of a provider's jobs, newest first; `next` asks for those before them."""

    jobs: tuple[Listed, ...] = ()
    next: HttpRequest | None = None


class Unanswered(msgspec.Struct, kw_only=True, frozen=True):
    """A submit that nobody answered, and between when its job was made, if one was: by the provider's own clock."""

    call: Call
    since: datetime
    until: datetime


class Found(msgspec.Struct, kw_only=True, frozen=True):
    """A job that a provider has, and that may be the one a submit of ours started. Where it stands is for a poll."""

    handle: dict[str, str]
    created_at: datetime | None  # the provider's own clock
    is_certain: bool = False  # it carries the attempt's own callback address; else all that is known of it fits


# What a look through a list says of one submit: the jobs that fit it, or why nobody can say.
Sighting = tuple[Found, ...] | ProviderFailure


class File(msgspec.Struct, kw_only=True, frozen=True):
    """A file of the input, on its way to a provider that wants it uploaded first."""

    name: str
    content_type: str
    content: bytes


class Grant(msgspec.Struct, kw_only=True, frozen=True):
    """A short-lived credential that was had for long-lived ones."""

    token: str
    lifetime_seconds: float


class Message(msgspec.Struct, kw_only=True, frozen=True):
    """A request as it leaves, for those who sign it. Header names are lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Auth(Protocol):
    """
    How requests prove who we are. Sans I/O like the adapter: secrets are handed in, and never kept.

    `parts` names the credentials it takes, each with the environment variable it is customarily found in ("" if
    there is none); those in `optional` may be missing.
    """

    parts: Mapping[str, str]
    optional: frozenset[str]

    def headers(self, message: Message, secrets: Mapping[str, str], *, now: datetime) -> dict[str, str]:
        """Headers to add to `message`. `secrets` holds the parts, and `grant` where one is needed."""
        ...

    def exchange(self, secrets: Mapping[str, str], *, now: datetime) -> HttpRequest | None:
        """What to send to be granted a short-lived credential, as an absolute URL; None: none is needed."""
        ...

    def read_exchange(self, response: HttpResponse) -> Grant:
        """Raises CredentialRefused, PollFailed."""
        ...


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
    sites: Mapping[str, str]  # further bases of the provider's own, by a word for `HttpRequest.site`
    origins: tuple[str, ...]  # further hosts of its own, which its answers may name; ".x.y" covers subdomains
    auth: tuple[Auth, ...]  # ways to prove who we are: the first whose parts are all there is taken
    capabilities: Capabilities

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        """What holds for an offer of these options: not all that a provider does takes files in the same forms."""
        ...

    def submit(self, call: Call) -> HttpRequest: ...

    def read_submit(self, call: Call, response: HttpResponse) -> Fact: ...

    def read_events(self, call: Call) -> EventReader:
        """A reader for the answer of a submit that came as server-sent events."""
        ...

    def poll(self, handle: dict[str, str]) -> HttpRequest | None:
        """None: the provider cannot be asked."""
        ...

    def read_poll(self, handle: dict[str, str], response: HttpResponse) -> Fact | Ask:
        """Raises PollFailed if the poll itself did not get through (429, 5xx): the job is untouched."""
        ...

    def cancel(self, handle: dict[str, str]) -> HttpRequest | None:
        """None: there is nothing to send."""
        ...

    def read_cancel(self, handle: dict[str, str], response: HttpResponse) -> Cancellation | Ask: ...

    def listing(self, since: datetime) -> HttpRequest | None:
        """What asks for the jobs created since then, newest first; None: the provider does not tell."""
        ...

    def read_listing(self, response: HttpResponse) -> Listing:
        """All on the page, whoever's they are. Raises PollFailed."""
        ...

    def marks(self, call: Call) -> dict[str, str]:
        """By what, beside its input, the job of this call is known in a list: these of `Listed.marks` it must have."""
        ...

    def upload(self, file: File) -> HttpRequest | None:
        """None: there is nowhere to upload to."""
        ...

    def read_upload(self, file: File, handle: dict[str, str], response: HttpResponse) -> str | Ask:
        """
        What stands for the file in the input: a URL, or the provider's own word for it.

        `handle` is empty for the first answer. Raises InputUnfit, PollFailed.
        """
        ...

    def callback_keys(self) -> HttpRequest | None:
        """Where the keys that callbacks are signed with are published; None: they are not."""
        ...

    def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        """
        Raises CallbackForged. Without `secrets` a signed provider's callback is a nudge.

        `secrets` are those of the configuration, the attempt's own, and the published set of keys as it came.
        """
        ...


class Driver(Protocol):
    """An adapter with its connections: what the engine holds. Its only implementation is `providers._driver`."""

    name: str
    capabilities: Capabilities

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        """What holds for an offer of these options."""
        ...

    async def submit(self, call: Call, *, on_fact: Any = None, may_send: Callable[[], bool] | None = None) -> Fact:
        """`may_send` is asked in the last moment: if it says no, nothing is sent, and it raises SendWithheld."""
        ...

    async def poll(self, handle: dict[str, str]) -> Fact: ...

    async def cancel(self, handle: dict[str, str]) -> Cancellation: ...

    async def find(self, submits: Sequence[Unanswered]) -> Sequence[Sighting]:
        """
        For each in its turn the jobs it may have started; none, if the provider does not list.

        The list is read once for all. A job that carries a submit's own callback address is certain. Of those that
        merely fit, and were made between its times, two are told at most: of several nobody can say which it is. If
        the list could not be read as far back as a submit's `since`, then what is certain of it is told, else the
        failure. One that is everybody's may be raised.
        """
        ...

    async def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, now: datetime, secret: str | None = None
    ) -> Callback:
        """`secret` is the attempt's own `Call.callback_secret`. Raises CallbackForged."""
        ...

    async def credentials_for(self, url: str) -> dict[str, str]:
        """Headers that fetch a result at `url`: ours if it is on the provider's own origin and asks for them."""
        ...

    async def aclose(self) -> None: ...
