"""
The one driver: asks an adapter what to send, has the line carry it, and lets nothing out of an answer go unlooked at.

Repeats nothing and decides nothing: a failed submit is NotSent or OutcomeUnknown, and the engine takes it from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, TypeVar

import httpx
import msgspec

from gateway.contract.clock import Clock, SystemClock
from gateway.contract.errors import (
    CallbackForged,
    Evidence,
    InputUnfit,
    NotSent,
    OutcomeUnknown,
    PollFailed,
    ProviderFailure,
)
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import (
    Adapter,
    Ask,
    Call,
    Callback,
    Cancellation,
    Capabilities,
    File,
    Found,
    HttpRequest,
    HttpResponse,
    Message,
    Sighting,
    Unanswered,
)
from providers._address import Home, UrlRefused, is_absolute
from providers._bound import bounded, is_too_long
from providers._credential import PublishedKeys
from providers._follow import OnFact, follow
from providers._line import Line
from providers._roll import Roll
from providers._upload import upload_files

UPLOAD_SECONDS = 120.0  # for all files of one submit
MAX_ANSWER_BYTES = 64_000_000
MAX_ASKS = 4  # requests for one poll or cancel

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Failure = type[ProviderFailure]


class HttpDriver:
    """
    An adapter with its connections; implements `gateway.contract.provider.Driver`.

    `credentials` are the parts of one of the adapter's ways to prove who we are. With a `base_url` that is not the
    adapter's own, its further sites and origins are not believed any more, unless `sites` names them. `submit_seconds`
    and `poll_seconds` bound a whole exchange, connecting included; a submit that holds until the end or streams is
    bounded by its call's deadline instead. `transport` replaces both pools, for tests. It must be used within one event
    loop. Raises ConfigurationError for a base URL or credentials that cannot be.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        *,
        base_url: str = "",
        sites: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        submit_seconds: float = 15.0,
        poll_seconds: float = 10.0,
        max_connections: int = 1_000,
        callback_secrets: tuple[str, ...] = (),
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.adapter = adapter
        self.capabilities = adapter.capabilities
        self._clock: Clock = clock or SystemClock()
        self._line = Line(
            name,
            _home(name, adapter, base_url or adapter.base_url, sites or {}),
            adapter.auth,
            credentials or {},
            query_seconds=poll_seconds,
            max_connections=max_connections,
            max_answer_bytes=max_answer_bytes,
            transport=transport,
            clock=self._clock,
        )
        self._keys = PublishedKeys(self._clock)
        self._submit_seconds = submit_seconds
        self._poll_seconds = poll_seconds
        self._callback_secrets = callback_secrets

    @property
    def headroom(self) -> float | None:
        """0…1 of its rate limit that is left, as its latest answers told."""
        return self._line.headroom

    @property
    def trusted_hosts(self) -> tuple[str, ...]:
        """Hosts on which its results may lie: its own `host` or `host:port`, and the capabilities' result hosts."""
        return self._line.home.trusted_hosts

    # -- what the engine asks ----------------------------------------------------------------------------------------

    def capabilities_for(self, options: Mapping[str, Any]) -> Capabilities:
        """What holds for an offer of these options."""
        try:
            return self.adapter.capabilities_for(options)
        except Exception as error:
            self._note_stumble(error)
            return self.capabilities

    async def submit(
        self, call: Call, *, on_fact: OnFact | None = None, may_send: Callable[[], bool] | None = None
    ) -> Fact:
        """
        Start the job; the fact its answer, or the end of its stream, is.

        `on_fact` is awaited with the facts of a stream as they arise, at most every 50 ms and always with the newest;
        the last fact is returned. What it raises ends the stream and comes out as it is. `may_send` is asked when all
        is ready and the connection stands: if it says no, nothing is sent. Raises NotSent if nothing of the request
        left, OutcomeUnknown if it left and no valid answer came, or what the adapter reads in the answer.
        """
        call = await self._uploaded(call)
        request = self._ask(NotSent, self.adapter.submit, call)
        trace = call.traceparent if self.capabilities.takes_traceparent else ""
        message = await self._line.message(request, NotSent, traceparent=trace)
        seconds = call.deadline_seconds
        if not (request.holds_until_end or request.expects_stream):
            seconds = min(seconds, self._submit_seconds)
        exchange = self._line.exchange(self._line.submits, message, seconds, OutcomeUnknown, may_send=may_send)
        async with exchange as response:
            if request.expects_stream and _is_event_stream(response):
                reader = self._ask(OutcomeUnknown, self.adapter.read_events, call)
                async with aclosing(self._line.chunks(response, OutcomeUnknown)) as chunks:
                    fact = await follow(chunks, reader, on_fact=on_fact, clock=self._clock, ask=self._ask)
            else:
                answer = await self._line.read(response, OutcomeUnknown)
                fact = self._read_submit(call, answer)
        return self._checked(fact, {}, OutcomeUnknown)

    def _read_submit(self, call: Call, answer: HttpResponse) -> Fact:
        try:
            return self._ask(OutcomeUnknown, self.adapter.read_submit, call, answer)
        except ProviderFailure as failure:
            failure.evidence = Evidence.ANSWER_WHOLE
            raise

    async def poll(self, handle: dict[str, str]) -> Fact:
        """Raises PollFailed if no valid answer came: the job is untouched."""
        request = self._ask(PollFailed, self.adapter.poll, handle)
        if request is None:
            raise PollFailed("the provider cannot be asked about this job")
        try:
            async with asyncio.timeout(self._poll_seconds if request.holds_until_end else None) as wait:
                fact = await self._answered(request, handle, self.adapter.read_poll)
        except TimeoutError:
            if not wait.expired():
                raise
            return Fact(phase=Phase.RUNNING, handle=handle)  # it is held until the job ends: silence says that it runs
        return self._checked(fact, handle, PollFailed)

    async def cancel(self, handle: dict[str, str]) -> Cancellation:
        """Raises PollFailed if no valid answer came; it may be asked again."""
        request = self._ask(PollFailed, self.adapter.cancel, handle)
        if request is None:
            return Cancellation.UNSUPPORTED
        return await self._answered(request, handle, self.adapter.read_cancel)

    async def find(self, submits: Sequence[Unanswered]) -> list[Sighting]:
        """For each the jobs it may have started, by reading the provider's list once for all."""
        roll = Roll(self.adapter, query=self._line.query, ask=self._ask, check=self._check_job, clock=self._clock)
        return await roll.find(submits)

    async def read_callback(
        self, headers: Mapping[str, str], body: bytes, *, now: datetime, secret: str | None = None
    ) -> Callback:
        """Raises CallbackForged. A callback the adapter stumbles over, or whose keys cannot be had, is a nudge."""
        secrets = self._callback_secrets
        if secret and self.capabilities.takes_callback_secret:
            secrets = (secret, *secrets)
        try:
            request = self.adapter.callback_keys()
            if request is None:
                return self._heard(self.adapter.read_callback(headers, body, secrets=secrets, now=now))
            return await self._read_by_keys(request, headers, body, secrets, now)
        except CallbackForged:
            raise
        except Exception as error:
            self._note_stumble(error)
            return Callback(fact=None)

    async def credentials_for(self, url: str) -> dict[str, str]:
        """Headers for a GET of a result at `url`; none unless it is the provider's own and asks for them."""
        if not self.capabilities.result_needs_credentials or not is_absolute(url):
            return {}
        try:
            target = self._line.home.resolve(url)
        except UrlRefused:
            return {}
        if not target.is_ours:
            return {}
        return await self._line.credentials.headers(Message(method="GET", url=target.url, headers={}, body=b""))

    async def aclose(self) -> None:
        """Close all connections; what is under way fails."""
        await self._line.aclose()

    # -- what goes before and after ----------------------------------------------------------------------------------

    async def _answered(
        self, request: HttpRequest, handle: dict[str, str], read: Callable[..., _T | Ask], *leading: Any
    ) -> _T:
        """What `read` makes of the answer, and of the answers to what it asks beside."""
        for _ in range(MAX_ASKS):
            answer = await self._line.query(request)
            said = self._ask(PollFailed, read, *leading, handle, answer)
            if not isinstance(said, Ask):
                return said
            request, handle = said.request, said.handle
        raise PollFailed(f"its adapter asked more than {MAX_ASKS} times before it could tell")

    async def _uploaded(self, call: Call) -> Call:
        """The call with those files uploaded that are too large to stand in it. Raises NotSent."""
        capabilities = self.capabilities_for(call.options)
        if "upload" not in capabilities.input_forms:
            return call
        try:
            async with asyncio.timeout(min(call.deadline_seconds, UPLOAD_SECONDS)):
                input = await upload_files(call.input, capabilities, self._upload)
        except TimeoutError:
            raise NotSent("its files could not be uploaded in time") from None
        except PollFailed as error:
            raise NotSent(f"its files could not be uploaded: {error}", status=error.status) from error
        return call if input is call.input else msgspec.structs.replace(call, input=input)

    async def _upload(self, file: File) -> str:
        request = self._ask(PollFailed, self.adapter.upload, file)
        if request is None:
            raise InputUnfit(f"a file of {len(file.content)} bytes is more than the provider takes inline")
        return await self._answered(request, {}, self.adapter.read_upload, file)

    async def _read_by_keys(
        self, request: HttpRequest, headers: Mapping[str, str], body: bytes, secrets: tuple[str, ...], now: datetime
    ) -> Callback:
        keys = await self._keys.get(lambda: self._line.query(request))
        if keys is None:
            return Callback(fact=None)  # nothing to prove it by: the poll will tell
        try:
            return self._heard(self.adapter.read_callback(headers, body, secrets=(*secrets, keys), now=now))
        except CallbackForged:
            newer = await self._keys.get(lambda: self._line.query(request), other_than=keys)
            if newer is None or newer == keys:
                raise
            return self._heard(self.adapter.read_callback(headers, body, secrets=(*secrets, newer), now=now))

    def _heard(self, callback: Callback) -> Callback:
        fact = callback.fact
        if fact is None:
            return callback
        return msgspec.structs.replace(callback, fact=self._checked(fact, {}, CallbackForged))

    def _checked(self, fact: Fact, handle: dict[str, str], failure: Callable[[str], Exception]) -> Fact:
        """
        The fact, without our secrets. Raises `failure` if it tells of another job than was asked about, or would have
        us ask an address that is not the provider's: neither is a word to go by.
        """
        fact, told = bounded(fact), fact.handle or {}
        if is_too_long(told):
            raise failure("its answer names a job in words that are too long")
        if handle.get("id") and told.get("id") not in (None, handle["id"]):
            raise failure("it answered about another job")
        for value in told.values():
            if is_absolute(value):
                try:
                    self._line.home.resolve(value)
                except UrlRefused as error:
                    raise failure(f"its answer names {error}") from None
        if fact.failure is None or not self._line.credentials.is_in(fact.failure.message):
            return fact
        message = self._line.credentials.scrub(fact.failure.message)
        return msgspec.structs.replace(fact, failure=msgspec.structs.replace(fact.failure, message=message))

    def _check_job(self, job: Found) -> None:
        self._checked(Fact(phase=Phase.QUEUED, handle=job.handle), {}, PollFailed)

    # -- the adapter, trusted with nothing ---------------------------------------------------------------------------

    def _ask(self, otherwise: _Failure, verb: Callable[..., _T], *args: Any) -> _T:
        """`verb(*args)`. Its own failures come out without our token; a stumble of the adapter is `otherwise`."""
        try:
            return verb(*args)
        except ProviderFailure as error:
            if self._line.credentials.is_in(str(error)):
                error.args = (self._line.credentials.scrub(str(error)),)
                error.__cause__ = error.__context__ = None
            raise
        except Exception as error:
            self._note_stumble(error)
            raise self._line.failed(otherwise, "its adapter stumbled", error) from error

    def _note_stumble(self, error: Exception) -> None:
        # Where it happened and of what kind it is; its words may quote what a caller or the provider wrote.
        plain = AdapterStumbled(type(error).__name__)
        trace = (AdapterStumbled, plain, error.__traceback__)
        _log.error("provider %s: its adapter stumbled", self.name, exc_info=trace)


class AdapterStumbled(Exception):
    """For logs: an exception that is none of an adapter's to raise, by its kind alone."""


def _is_event_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return 200 <= response.status_code < 300 and kind.partition(";")[0].strip().lower() == "text/event-stream"


def _home(provider: str, adapter: Adapter, base_url: str, sites: Mapping[str, str]) -> Home:
    is_own = base_url == adapter.base_url
    found = dict(adapter.sites) if is_own else dict.fromkeys(adapter.sites, base_url)
    return Home(
        base_url,
        provider=provider,
        result_hosts=adapter.capabilities.result_hosts,
        sites={**found, **sites},
        origins=adapter.origins if is_own else (),
    )
