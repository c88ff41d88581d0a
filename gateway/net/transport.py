"""An httpx transport that dials only what a Guard lets pass. Follows no redirect, uses no proxy, retries nothing."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import httpcore
import httpx

from gateway.contract.errors import AddressForbidden
from gateway.net.address import embedded
from gateway.net.target import Guard

DIAL_SECONDS = 10.0
KEEP_SECONDS = 15.0
MAX_IDLE = 64

_HTTPCORE_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


@functools.cache
def public_trust() -> ssl.SSLContext:
    """The authorities that httpx brings along. Reading them takes 20 ms: all clients share one."""
    return httpx.create_ssl_context(trust_env=False)


def guarded_client(
    guard: Guard, *, verify: ssl.SSLContext | None = None, timeout: httpx.Timeout | float = 10.0
) -> httpx.AsyncClient:
    """A client over a guarded transport that heeds no environment, follows no redirect and keeps no cookies."""
    return httpx.AsyncClient(
        transport=GuardedTransport(guard, verify=verify),
        trust_env=False,
        follow_redirects=False,
        timeout=timeout,
        # What one answer sets must not travel with somebody else's request.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


class GuardedTransport(httpx.AsyncBaseTransport):
    """
    HTTP/1.1 over httpcore's connections, each dialled through the guard and used again while it is idle.

    Not over httpcore's pool: its work grows with the square of the connections, and it offers no limit we need, since
    whoever sends bounds what is on its way. Raises AddressForbidden and httpx.TransportError.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        verify: ssl.SSLContext | None = None,
        dial: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._guard = guard
        self._context = verify or public_trust()
        self._backend = GuardedBackend(guard, dial or httpcore.AnyIOBackend())
        self._idle: OrderedDict[httpcore.AsyncHTTPConnection, tuple[bytes, bytes, int]] = OrderedDict()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._guard.check_parsed(request.url)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = await self._take(url.origin)
        try:
            with _as_httpx():
                response = await connection.handle_async_request(
                    httpcore.Request(
                        request.method,
                        url,
                        headers=request.headers.raw,
                        content=cast("AsyncIterable[bytes]", request.stream),
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Answer(self, connection, response, _key(url.origin)),
            extensions=response.extensions,
        )

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """An idle connection to `origin`, the one used last, or a new one that is not dialled yet."""
        key = _key(origin)
        for connection in reversed([idle for idle, place in self._idle.items() if place == key]):
            if self._idle.pop(connection, None) is None:
                continue  # somebody else took it while one that had expired was being closed
            if connection.is_available() and not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._context, keepalive_expiry=KEEP_SECONDS, network_backend=self._backend
        )

    async def give_back(self, connection: httpcore.AsyncHTTPConnection, key: tuple[bytes, bytes, int]) -> None:
        """The exchange is over: keep what can serve again."""
        if not connection.is_idle() or connection.is_closed():
            await connection.aclose()
            return
        self._idle[connection] = key
        oldest = next(iter(self._idle))
        if len(self._idle) > MAX_IDLE or oldest.has_expired():
            del self._idle[oldest]
            await oldest.aclose()

    async def aclose(self) -> None:
        while self._idle:
            connection, _ = self._idle.popitem()
            await connection.aclose()


class _Answer(httpx.AsyncByteStream):
    """The body of an answer; closing it early closes the connection."""

    def __init__(
        self,
        transport: GuardedTransport,
        connection: httpcore.AsyncHTTPConnection,
        response: httpcore.Response,
        key: tuple[bytes, bytes, int],
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._response = response
        self._key = key
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for chunk in cast("AsyncIterable[bytes]", self._response.stream):
                yield chunk

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with _as_httpx():
                await self._response.aclose()
        finally:
            await self._transport.give_back(self._connection, self._key)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Resolves once, checks every answer, dials a literal address, and looks who answered."""

    def __init__(self, guard: Guard, dial: httpcore.AsyncNetworkBackend) -> None:
        self._guard = guard
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        answers = await self._guard.addresses(host, port)
        seconds = DIAL_SECONDS if timeout is None else min(timeout, DIAL_SECONDS)
        failure: Exception | None = None
        for answer in answers:
            try:
                stream = await self._dial.connect_tcp(
                    answer, port, seconds / len(answers), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            await _check_peer(stream, answer, host)
            return stream
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressForbidden("a Unix socket is nothing a caller may name")

    async def sleep(self, seconds: float) -> None:
        await self._dial.sleep(seconds)


async def _check_peer(stream: httpcore.AsyncNetworkStream, dialled: str, host: str) -> None:
    peer = stream.get_extra_info("server_addr")
    if peer and embedded(ipaddress.ip_address(peer[0])) == embedded(ipaddress.ip_address(dialled)):
        return
    await stream.aclose()
    raise AddressForbidden(f"{host!r} was answered by an address that was not dialled")


def _key(origin: httpcore.Origin) -> tuple[bytes, bytes, int]:
    return origin.scheme, origin.host, origin.port


@contextlib.contextmanager
def _as_httpx() -> Iterator[None]:
    """httpcore's errors under the same names in httpx."""
    try:
        yield
    except httpcore.ConnectionNotAvailable as error:
        raise httpx.ReadError("the connection was closed") from error
    except _HTTPCORE_ERRORS as error:
        raise _mapped(type(error))(str(error)) from error


def _mapped(kind: type[Exception]) -> type[httpx.TransportError]:
    for known in kind.__mro__:
        found = getattr(httpx, known.__name__, None)
        if isinstance(found, type) and issubclass(found, httpx.TransportError):
            return found
    return httpx.TransportError
