"""
The line to one provider: what is sent goes through here, with credentials where they belong, within bounds.

Says truly what became of it: that nothing left, or that no valid answer came. Knows no adapter and repeats nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

import httpx
import msgspec

from gateway.contract.clock import Clock
from gateway.contract.errors import (
    CredentialRefused,
    Evidence,
    NotSent,
    OutcomeUnknown,
    PollFailed,
    PoolExhausted,
    ProviderFailure,
    SendWithheld,
)
from gateway.contract.provider import Auth, HttpRequest, HttpResponse, Message
from providers._address import Home, UrlRefused
from providers._credential import Credentials
from providers._decoding import BodyTooLarge, BodyUndecodable, make_decoder
from providers._headroom import read_headroom
from providers._reading import quote
from providers._transport import EXCHANGE, Exchange, make_transport

CONNECT_SECONDS = 5.0
SUBMIT_KEEP_ALIVE_SECONDS = 2.0  # a submit that meets a connection just being closed has an unknown outcome
QUERY_KEEP_ALIVE_SECONDS = 15.0

# By their names raised before anything of the request has left. Only for a transport that does not watch what leaves.
_BY_NAME_NOT_SENT = (
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
_Failure = type[ProviderFailure]


class Line:
    """
    Raises ConfigurationError for credentials that cannot be. It must be used within one event loop.

    `transport` replaces both pools, for tests. `submits` and `queries` are kept apart: a thousand held submits must not
    keep one poll or cancel from being sent.
    """

    def __init__(
        self,
        provider: str,
        home: Home,
        ways: tuple[Auth, ...],
        credentials: Mapping[str, str],
        *,
        query_seconds: float,
        max_connections: int,
        max_answer_bytes: int,
        transport: httpx.AsyncBaseTransport | None,
        clock: Clock,
    ) -> None:
        self.headroom: float | None = None  # 0…1 of its rate limit that is left, as its latest answers told
        self.home = home
        self.credentials = Credentials(provider, ways, credentials, clock=clock, send=self._exchanged)
        self._query_seconds = query_seconds
        self._max_connections = max_connections
        self._max_answer_bytes = max_answer_bytes
        self.submits = _Pool(transport or self._make_transport(SUBMIT_KEEP_ALIVE_SECONDS))
        self.queries = _Pool(transport or self._make_transport(QUERY_KEEP_ALIVE_SECONDS))

    def _make_transport(self, keep_alive_seconds: float) -> httpx.AsyncBaseTransport:
        return make_transport(
            max_connections=self._max_connections,
            keep_alive_seconds=keep_alive_seconds,
            unix_socket=self.home.unix_socket,
        )

    async def query(self, request: HttpRequest) -> HttpResponse:
        """The whole answer to a poll, a cancel or what goes with them. Raises PollFailed."""
        # A poll that may be held is let go by the driver, before this would call it a failure.
        seconds = self._query_seconds * (2 if request.holds_until_end else 1)
        return await self._asked(await self.message(request, PollFailed), seconds)

    async def aclose(self) -> None:
        """Close all connections; what is under way fails."""
        await self.submits.transport.aclose()
        await self.queries.transport.aclose()

    # -- one exchange ------------------------------------------------------------------------------------------------

    async def _exchanged(self, request: HttpRequest) -> HttpResponse:
        """For a short-lived credential. Its address comes with the credentials, never out of an answer."""
        message = _compose(request, httpx.URL(request.url), {"accept": "application/json"})
        return await self._asked(message, self._query_seconds)

    async def _asked(self, message: httpx.Request, seconds: float) -> HttpResponse:
        async with self.exchange(self.queries, message, seconds, PollFailed) as response:
            return await self.read(response, PollFailed)

    @asynccontextmanager
    async def exchange(
        self,
        pool: _Pool,
        message: httpx.Request,
        seconds: float,
        failure: _Failure,
        *,
        may_send: Callable[[], bool] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """
        Send, and hand over an answer whose head is there; all of it within `seconds`. The answer is let go after.

        Raises `failure`; for a submit (OutcomeUnknown) NotSent where no byte of it left.
        """
        seen = Exchange(may_send)
        connect = min(CONNECT_SECONDS, seconds / 2)  # so that who cannot be reached is given up soon
        message.extensions = {
            "timeout": {"connect": connect, "pool": connect, "read": None, "write": None},
            EXCHANGE: seen,
        }
        wall = asyncio.timeout(seconds)
        pool.in_use += 1
        try:
            async with wall:
                response = await self._send(pool, message, failure, seen)
                try:
                    yield response
                finally:
                    await _let_go(response)
        except TimeoutError:
            if not wall.expired():
                raise
            if seen.evidence is Evidence.NOTHING_LEFT:
                raise self._not_sent(pool, failure, f"it could not be reached within {seconds:g} s") from None
            raise failure(f"no answer within {seconds:g} s", evidence=seen.evidence) from None
        finally:
            pool.in_use -= 1

    async def _send(self, pool: _Pool, message: httpx.Request, failure: _Failure, seen: Exchange) -> httpx.Response:
        try:
            response = await pool.transport.handle_async_request(message)
        except SendWithheld:
            raise
        except Exception as error:
            nothing_left = seen.evidence is Evidence.NOTHING_LEFT
            if nothing_left or (seen.evidence is None and isinstance(error, _BY_NAME_NOT_SENT)):
                sentence = self._in_words("it could not be reached", error)
                raise self._not_sent(pool, failure, sentence, error) from error
            raise self.failed(failure, "no valid answer came", error, evidence=seen.evidence) from error
        if response.status_code == 401 and "authorization" in message.headers:
            self.credentials.forget_grant()  # revoked before its time
        return response

    def _not_sent(
        self, pool: _Pool, failure: _Failure, sentence: str, error: Exception | None = None
    ) -> ProviderFailure:
        if failure is not OutcomeUnknown:
            return failure(sentence, evidence=Evidence.NOTHING_LEFT)
        is_late = error is None or isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        if is_late and pool.in_use > self._max_connections:
            sentence = f"all {self._max_connections} connections to it are in use"
            return PoolExhausted(sentence, evidence=Evidence.NOTHING_LEFT)
        return NotSent(sentence, evidence=Evidence.NOTHING_LEFT)

    async def read(self, response: httpx.Response, failure: _Failure) -> HttpResponse:
        async with aclosing(self.chunks(response, failure)) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        answer = HttpResponse(status=response.status_code, headers=_headers(response), body=body)
        left = read_headroom(answer)
        if left is not None:
            self.headroom = left
        return answer

    async def chunks(self, response: httpx.Response, failure: _Failure) -> AsyncGenerator[bytes, None]:
        """The body decoded, piece by piece, never more than the limit. All its trouble comes out as `failure`."""
        try:
            decode = make_decoder(response.headers.get("content-encoding", ""), max_bytes=self._max_answer_bytes)
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - what httpx's transport API promises
            async for raw in stream:
                yield decode(raw)
        except (BodyTooLarge, BodyUndecodable) as error:
            sentence, began = f"the answer cannot be read: {error}", Evidence.ANSWER_BEGAN
            raise failure(sentence, status=response.status_code, evidence=began) from error
        except Exception as error:
            status, began = response.status_code, Evidence.ANSWER_BEGAN
            raise self.failed(failure, "the answer broke off", error, status=status, evidence=began) from error

    async def message(self, request: HttpRequest, failure: _Failure, *, traceparent: str = "") -> httpx.Request:
        """What is sent, whole. Raises `failure` where the adapter asks for what cannot be or must not be sent."""
        try:
            target = self.home.resolve(request.url, site=request.site)
            headers = {"accept": "*/*", "user-agent": "turnout"}
            headers |= {name.lower(): value for name, value in request.headers.items()}
            headers["accept-encoding"] = "identity"
            headers.pop("authorization", None)
            if traceparent:
                headers["traceparent"] = traceparent
            _check_headers(headers)
            message = _compose(request, _read_url(target.url), headers)
            if target.is_ours and self.credentials.is_known:
                await self._sign(message)
            return message
        except UrlRefused as error:
            raise failure(f"its adapter asked for {error}") from None
        except CredentialRefused as error:
            raise error if failure is NotSent else failure(str(error), status=error.status) from error
        except ProviderFailure as error:
            raise failure(f"no credentials could be had: {error}", status=error.status) from error
        except Exception as error:
            raise self.failed(failure, "the request could not be written", error) from error

    async def _sign(self, message: httpx.Request) -> None:
        shown = Message(
            method=message.method, url=str(message.url), headers=dict(message.headers), body=message.content
        )
        added = await self.credentials.headers(shown)
        _check_headers(added)
        message.headers.update(added)

    def failed(
        self,
        kind: _Failure,
        sentence: str,
        error: Exception,
        *,
        status: int | None = None,
        evidence: Evidence | None = None,
    ) -> ProviderFailure:
        return kind(self._in_words(sentence, error), status=status, evidence=evidence)

    def _in_words(self, sentence: str, error: Exception) -> str:
        words = self.credentials.scrub(quote(str(error), 200))
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        return f"{sentence} ({reason})"


class _Pool:
    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.in_use = 0


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


async def _let_go(response: httpx.Response) -> None:
    try:
        stream = response.stream
        if isinstance(stream, httpx.AsyncByteStream):
            await stream.aclose()
    except Exception as error:
        # The answer is had or has failed already: closing adds nothing.
        _log.debug("closing an answer failed: %s", type(error).__name__)
