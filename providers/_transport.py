"""How bytes travel to a provider: httpx's transport API over aiohttp, told to say the truth. Retries nothing."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace

import aiohttp
import httpx
import yarl
from httpx_aiohttp import AiohttpTransport

from gateway.contract.errors import Evidence, SendWithheld

UNIX_SCHEME = "unix:"
EXCHANGE = "exchange"  # the key of an `Exchange` among a request's extensions


class Exchange:
    """
    What is seen of one exchange while it goes on. `evidence` stays None where the transport watches nothing.

    `may_send` is asked in the last moment before the first byte leaves; if it says no, none does.
    """

    __slots__ = ("evidence", "may_send", "url")

    def __init__(self, may_send: Callable[[], bool] | None = None) -> None:
        self.evidence: Evidence | None = None
        self.may_send = may_send
        # aiohttp would spell the URL anew ("%3A" becomes ":"), and a signature over it would fail.
        self.url = ""


def make_transport(
    *, max_connections: int, keep_alive_seconds: float, unix_socket: str | None = None
) -> httpx.AsyncBaseTransport:
    """
    A transport with its own pool. No proxies of the environment, no redirects, no cookies, no decompression, no retry.

    `keep_alive_seconds`: how long an idle connection is kept. Short where a request must not meet a connection that
    the other side is just closing: it would be sent, and nobody could say whether it was read.
    """
    context = _tls()
    return _Transport(
        verify=context,
        trust_env=False,
        client=_session_maker(max_connections, keep_alive_seconds, unix_socket, context),
    )


class _Transport(AiohttpTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange: Exchange = request.extensions.get(EXCHANGE) or Exchange()
        exchange.url = str(request.url)
        exchange.evidence = Evidence.NOTHING_LEFT
        _exchange.set(exchange)
        response = await super().handle_async_request(request)
        exchange.evidence = Evidence.ANSWER_BEGAN
        return response


_exchange: ContextVar[Exchange] = ContextVar("exchange")  # the one under way in this task


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)  # 20 ms each: all providers share one


def _session_maker(
    max_connections: int, keep_alive_seconds: float, unix_socket: str | None, context: ssl.SSLContext
) -> Callable[[], aiohttp.ClientSession]:
    def make() -> aiohttp.ClientSession:  # in the loop that will use it
        connector: aiohttp.BaseConnector
        if unix_socket is not None:
            connector = aiohttp.UnixConnector(unix_socket, limit=max_connections, keepalive_timeout=keep_alive_seconds)
        else:
            connector = aiohttp.TCPConnector(ssl=context, limit=max_connections, keepalive_timeout=keep_alive_seconds)
        watch = aiohttp.TraceConfig()
        watch.on_request_headers_sent.append(_note_leaving)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            middlewares=(_say_what_was_sent,),
            trace_configs=[watch],
        )

    return make


async def _note_leaving(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
    """
    The connection stands, and from here on bytes may leave.

    Whatever its name says, aiohttp gives this signal when the head has been composed: it is written after that, with
    the first piece of the body. So what fails before this has sent nothing, for certain; of what fails after it nobody
    can tell, though its last bytes may still be ours.
    """
    exchange = _exchange.get()
    if exchange.may_send is not None and not exchange.may_send():
        raise SendWithheld(evidence=Evidence.NOTHING_LEFT)
    exchange.evidence = Evidence.BYTES_LEFT


async def _say_what_was_sent(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """
    Send the URL as it was written, and turn aiohttp's errors into httpx's by what was really sent.

    Left alone, aiohttp would silently repeat a PUT or GET whose connection broke, and httpx-aiohttp would call a
    connection that broke after the request had been sent a ConnectTimeout: "nothing was sent". Both start a paid job
    twice. An error that is not aiohttp's own passes through both untouched.
    """
    exchange = _exchange.get()
    request.url = yarl.URL(exchange.url, encoded=True)
    try:
        return await handler(request)
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(_why(error)) from error
    except aiohttp.SocketTimeoutError as error:
        raise httpx.ReadTimeout(str(error)) from error
    except aiohttp.ClientResponseError as error:
        exchange.evidence = Evidence.ANSWER_BEGAN
        raise httpx.RemoteProtocolError(f"the answer is not HTTP: {error.message}"[:300]) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error) or type(error).__name__) from error


def _why(error: aiohttp.ClientConnectorError) -> str:
    """`Connection refused`: aiohttp's own text repeats the address and speaks of TLS where there is none."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    reason = error.os_error
    if reason.errno is not None and reason.errno > 0 and not isinstance(reason, ssl.SSLError):
        return os.strerror(reason.errno)
    return reason.strerror or str(reason)
