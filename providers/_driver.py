"""
The one driver: carries an adapter's requests over httpx, with bounds, and says truly what became of them.

Repeats nothing and decides nothing: a failed submit is NotSent or OutcomeUnknown, and the engine takes it from there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import httpx
import msgspec

from gateway.contract.clock import Clock, SystemClock
from gateway.contract.errors import (
    CallbackForged,
    ConfigurationError,
    NotSent,
    OutcomeUnknown,
    PollFailed,
    PoolExhausted,
    ProviderFailure,
)
from gateway.contract.fact import Fact
from gateway.contract.provider import Adapter, Call, Callback, Cancellation, HttpRequest, HttpResponse
from providers._adapter import quote
from providers._address import Home, UrlRefused
from providers._decoding import BodyTooLarge, BodyUndecodable, make_decoder
from providers._follow import OnFact, follow
from providers._transport import make_transport

CONNECT_SECONDS = 5.0
SUBMIT_KEEP_ALIVE_SECONDS = 2.0  # a submit that meets a connection just being closed has an unknown outcome
QUERY_KEEP_ALIVE_SECONDS = 15.0
MAX_ANSWER_BYTES = 64_000_000

# Raised before anything of the request has left. Whatever is not listed here counts as sent.
NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

_BREAK = re.compile(r"[\r\n\0]")
_read_url = functools.lru_cache(maxsize=1_024)(httpx.URL)  # a third of the cost of a request
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Failure = type[ProviderFailure]


class HttpDriver:
    """
    An adapter with its connections; implements `gateway.contract.provider.Driver`.

    `submit_seconds` and `poll_seconds` bound a whole exchange, connecting included; a submit that holds until the end
    or streams is bounded by its call's deadline instead. `transport` replaces both pools, for tests. It must be used
    within one event loop. Raises ConfigurationError for a base URL or token that cannot be.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        *,
        base_url: str = "",
        token: str | None = None,
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
        self._home = Home(base_url or adapter.base_url, provider=name, result_hosts=self.capabilities.result_hosts)
        self._token = token or ""
        self._authorization = _authorization(name, adapter.auth_scheme, self._token)
        self._submit_seconds = submit_seconds
        self._poll_seconds = poll_seconds
        self._max_connections = max_connections
        self._callback_secrets = callback_secrets
        self._max_answer_bytes = max_answer_bytes
        self._clock: Clock = clock or SystemClock()
        # Two pools: a thousand held submits must not keep one poll or cancel from being sent.
        self._submits = _Pool(transport or self._make_transport(SUBMIT_KEEP_ALIVE_SECONDS))
        self._queries = _Pool(transport or self._make_transport(QUERY_KEEP_ALIVE_SECONDS))

    def _make_transport(self, keep_alive_seconds: float) -> httpx.AsyncBaseTransport:
        return make_transport(
            max_connections=self._max_connections,
            keep_alive_seconds=keep_alive_seconds,
            unix_socket=self._home.unix_socket,
        )

    @property
    def trusted_hosts(self) -> tuple[str, ...]:
        """Hosts on which its results may lie: its own `host` or `host:port`, and the capabilities' result hosts."""
        return self._home.trusted_hosts

    # -- what the engine asks ----------------------------------------------------------------------------------------

    async def submit(self, call: Call, *, on_fact: OnFact | None = None) -> Fact:
        """
        Start the job; the fact its answer, or the end of its stream, is.

        `on_fact` is awaited with the facts of a stream as they arise, at most every 50 ms and always with the newest;
        the last fact is returned. What it raises ends the stream and comes out as it is. Raises NotSent if nothing of
        the request left, OutcomeUnknown if it left and no valid answer came, or what the adapter reads in the answer.
        """
        request = self._ask(NotSent, self.adapter.submit, call)
        message = self._message(request, NotSent)
        seconds = call.deadline_seconds
        if not (request.holds_until_end or request.expects_stream):
            seconds = min(seconds, self._submit_seconds)
        async with self._exchange(self._submits, message, seconds, OutcomeUnknown) as response:
            if request.expects_stream and _is_event_stream(response):
                reader = self._ask(OutcomeUnknown, self.adapter.read_events, call)
                async with aclosing(self._chunks(response, OutcomeUnknown)) as chunks:
                    fact = await follow(chunks, reader, on_fact=on_fact, clock=self._clock, ask=self._ask)
            else:
                answer = await self._read(response, OutcomeUnknown)
                fact = self._ask(OutcomeUnknown, self.adapter.read_submit, call, answer)
        return self._scrubbed(fact)

    async def poll(self, handle: dict[str, str]) -> Fact:
        """Raises PollFailed if no valid answer came: the job is untouched."""
        request = self._ask(PollFailed, self.adapter.poll, handle)
        if request is None:
            raise PollFailed("the provider cannot be asked about this job")
        answer = await self._query(request)
        return self._scrubbed(self._ask(PollFailed, self.adapter.read_poll, handle, answer))

    async def cancel(self, handle: dict[str, str]) -> Cancellation:
        """Raises PollFailed if no valid answer came; it may be asked again."""
        request = self._ask(PollFailed, self.adapter.cancel, handle)
        if request is None:
            return Cancellation.UNSUPPORTED
        answer = await self._query(request)
        return self._ask(PollFailed, self.adapter.read_cancel, handle, answer)

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Callback:
        """Raises CallbackForged. A callback the adapter stumbles over is a nudge to poll."""
        try:
            return self.adapter.read_callback(headers, body, secrets=self._callback_secrets, now=now)
        except CallbackForged:
            raise
        except Exception:
            _log.exception("provider %s: its adapter stumbled over a callback", self.name)
            return Callback(fact=None)

    async def aclose(self) -> None:
        """Close all connections; what is under way fails."""
        await self._submits.transport.aclose()
        await self._queries.transport.aclose()

    # -- one exchange ------------------------------------------------------------------------------------------------

    async def _query(self, request: HttpRequest) -> HttpResponse:
        message = self._message(request, PollFailed)
        async with self._exchange(self._queries, message, self._poll_seconds, PollFailed) as response:
            return await self._read(response, PollFailed)

    @asynccontextmanager
    async def _exchange(
        self, pool: _Pool, message: httpx.Request, seconds: float, failure: _Failure
    ) -> AsyncIterator[httpx.Response]:
        """Send, and hand over an answer whose head is there; all of it within `seconds`. The answer is let go after."""
        # Below the wall, so that a connection that is not made is known as such.
        connect = min(CONNECT_SECONDS, seconds / 2)
        message.extensions = {"timeout": {"connect": connect, "pool": connect, "read": None, "write": None}}
        wall = asyncio.timeout(seconds)
        pool.in_use += 1
        try:
            async with wall:
                response = await self._send(pool, message, failure)
                try:
                    yield response
                finally:
                    await _let_go(response)
        except TimeoutError:
            if not wall.expired():
                raise
            raise failure(f"no answer within {seconds:g} s") from None
        finally:
            pool.in_use -= 1

    async def _send(self, pool: _Pool, message: httpx.Request, failure: _Failure) -> httpx.Response:
        try:
            return await pool.transport.handle_async_request(message)
        except NOT_SENT as error:
            if failure is not OutcomeUnknown:
                raise self._failed(failure, "it could not be reached", error) from error
            if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout) and pool.in_use > self._max_connections:
                raise PoolExhausted(f"all {self._max_connections} connections to it are in use") from error
            raise self._failed(NotSent, "it could not be reached", error) from error
        except Exception as error:
            raise self._failed(failure, "no valid answer came", error) from error

    async def _read(self, response: httpx.Response, failure: _Failure) -> HttpResponse:
        async with aclosing(self._chunks(response, failure)) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        return HttpResponse(status=response.status_code, headers=_headers(response), body=body)

    async def _chunks(self, response: httpx.Response, failure: _Failure) -> AsyncGenerator[bytes, None]:
        """The body decoded, piece by piece, never more than the limit. All its trouble comes out as `failure`."""
        try:
            decode = make_decoder(response.headers.get("content-encoding", ""), max_bytes=self._max_answer_bytes)
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - what httpx's transport API promises
            async for raw in stream:
                yield decode(raw)
        except (BodyTooLarge, BodyUndecodable) as error:
            raise failure(f"the answer cannot be read: {error}", status=response.status_code) from error
        except Exception as error:
            raise self._failed(failure, "the answer broke off", error, status=response.status_code) from error

    def _message(self, request: HttpRequest, failure: _Failure) -> httpx.Request:
        """What is sent, whole. Raises `failure` where the adapter asks for what cannot be or must not be sent."""
        try:
            target = self._home.resolve(request.url)
            headers = {"accept": "*/*", "user-agent": "turnout"}
            headers |= {name.lower(): value for name, value in request.headers.items()}
            headers["accept-encoding"] = "identity"
            headers.pop("authorization", None)
            if target.is_ours and self._authorization:
                headers["authorization"] = self._authorization
            _check_headers(headers)
            return _compose(request, _read_url(target.url), headers)
        except UrlRefused as error:
            raise failure(f"its adapter asked for {error}") from None
        except Exception as error:
            raise self._failed(failure, "the request could not be written", error) from error

    # -- the adapter, trusted with nothing ---------------------------------------------------------------------------

    def _ask(self, otherwise: _Failure, verb: Callable[..., _T], *args: Any) -> _T:
        """`verb(*args)`. Its own failures come out without our token; a stumble of the adapter is `otherwise`."""
        try:
            return verb(*args)
        except ProviderFailure as error:
            if self._token and self._token in str(error):
                error.args = (self._scrub(str(error)),)
                error.__cause__ = error.__context__ = None
            raise
        except Exception as error:
            _log.exception("provider %s: its adapter stumbled", self.name)
            raise self._failed(otherwise, "its adapter stumbled", error) from error

    def _failed(self, kind: _Failure, sentence: str, error: Exception, *, status: int | None = None) -> ProviderFailure:
        words = self._scrub(quote(str(error), 200))
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        return kind(f"{sentence} ({reason})", status=status)

    def _scrubbed(self, fact: Fact) -> Fact:
        if fact.failure is None or not self._token or self._token not in fact.failure.message:
            return fact
        failure = msgspec.structs.replace(fact.failure, message=self._scrub(fact.failure.message))
        return msgspec.structs.replace(fact, failure=failure)

    def _scrub(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


class _Pool:
    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.in_use = 0


def _authorization(provider: str, scheme: str, token: str) -> str:
    if not token:
        return ""
    if not token.isascii() or not token.isprintable() or token != token.strip():
        # The token itself is never shown, not even its length.
        raise ConfigurationError(
            f"provider {provider}: token has characters no header may hold; look for line breaks and typographic quotes"
        )
    # Schemes are case-insensitive (RFC 9110 11.1), and some servers compare with "Bearer" all the same.
    return f"{scheme[:1].upper()}{scheme[1:]} {token}" if scheme else token


def _check_headers(headers: dict[str, str]) -> None:
    if _BREAK.search("".join((*headers, *headers.values()))):
        raise ValueError("a line break in a header")


def _compose(request: HttpRequest, url: httpx.URL, headers: dict[str, str]) -> httpx.Request:
    if request.form or request.files:
        texts = [(name, (None, value.encode(), "text/plain; charset=utf-8")) for name, value in request.form]
        files = [(field, (filename, content, kind)) for field, filename, kind, content in request.files]
        message = httpx.Request(request.method, url, headers=headers, files=[*texts, *files])
        message.read()
        return message
    if request.json is not msgspec.UNSET:
        headers.setdefault("content-type", "application/json")
        return httpx.Request(request.method, url, headers=headers, content=msgspec.json.encode(request.json))
    return httpx.Request(request.method, url, headers=headers, content=request.content)


def _headers(response: httpx.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw:  # httpx would guess their encoding anew for each
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _is_event_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return 200 <= response.status_code < 300 and kind.partition(";")[0].strip().lower() == "text/event-stream"


async def _let_go(response: httpx.Response) -> None:
    try:
        stream = response.stream
        if isinstance(stream, httpx.AsyncByteStream):
            await stream.aclose()
    except Exception as error:
        # The answer is had or has failed already: closing adds nothing.
        _log.debug("closing an answer failed: %s", type(error).__name__)
