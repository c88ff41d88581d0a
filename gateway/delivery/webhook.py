"""Signs one webhook (Standard Webhooks, as Replicate does) and sends it once. When again, is the schedule's affair."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import enum
import hashlib
import hmac
import secrets
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from gateway.contract.clock import Clock
from gateway.contract.errors import AddressForbidden, ConfigurationError, refuse
from gateway.net.target import Guard
from gateway.net.transport import guarded_client
from gateway.store.protocol import Delivery

SECRET_PREFIX = "whsec_"  # noqa: S105 - the standard's prefix, not a secret
MIN_SECRET_BYTES = 24
MAX_ANSWER_BYTES = 20_000
CONNECT_SECONDS = 5.0  # a host where nobody is should not hold its slot for as long as one that thinks
# What a receiver may take to finish an answer whose status we have: only the connection's reuse hangs on it.
ANSWER_SECONDS = 2.0
_SLOW = frozenset({429, 502, 504})  # as Standard Webhooks has it


def new_secret() -> str:
    """`whsec_` and 32 random bytes in standard base64, which has no `_`: Replicate's clients split the secret there."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


class Signer:
    """
    Signs with every secret given, the newest first: while a secret is being rotated, receivers know one of them.

    Raises ConfigurationError for a secret that is no `whsec_` and base64 of at least 24 bytes.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        if not secrets:
            raise _wrong_secret("there is none")
        self._keys = tuple(_read_secret(secret) for secret in secrets)

    def sign(self, id: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`: one `v1,<base64>` for each secret, with spaces between."""
        signed = b".".join((id.encode(), str(timestamp).encode(), body))
        return " ".join(
            "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys
        )


def _read_secret(secret: str) -> bytes:
    text = secret.removeprefix(SECRET_PREFIX)
    if text == secret:
        raise _wrong_secret(f"it does not begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong_secret("what follows the prefix is not standard base64") from error
    if len(key) < MIN_SECRET_BYTES:
        raise _wrong_secret(f"it holds {len(key)} bytes, fewer than {MIN_SECRET_BYTES}")
    return key


def _wrong_secret(problem: str) -> ConfigurationError:
    return refuse(
        f"the secret that signs webhooks is unusable: {problem}",
        place="webhooks.secret",
        remedy=f"use {SECRET_PREFIX} followed by base64 of {MIN_SECRET_BYTES} to 64 random bytes",
    )


class Result(enum.StrEnum):
    DELIVERED = "delivered"  # any 2xx
    GONE = "gone"  # 410: never again
    REFUSED = "refused"  # the receiver lives and said no: 3xx, 4xx
    UNREACHED = "unreached"  # no answer, too late, 5xx, 429, or an address that may not be dialled


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one try."""

    result: Result
    seconds: float
    status: int | None = None
    error: str | None = None  # a sentence without the URL: its path and query may hold secrets
    retry_after_seconds: float | None = None
    is_slow: bool = False  # it was not done in time, or asks to be left alone for a while


class Sender:
    """
    Sends deliveries over one shared client, to addresses that `guard` lets pass.

    `timeout_seconds` is a deadline round the whole exchange: httpx's timeouts start anew with every byte received. To
    connect may take CONNECT_SECONDS of it at most.
    """

    def __init__(
        self,
        guard: Guard,
        secrets: tuple[str, ...],
        clock: Clock,
        *,
        timeout_seconds: float = 15.0,
        user_agent: str = "Turnout-Webhooks",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._signer = Signer(secrets)
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._user_agent = user_agent
        self._connect_seconds = min(CONNECT_SECONDS, timeout_seconds)
        timeout = httpx.Timeout(timeout_seconds, connect=self._connect_seconds)
        self._client = client or guarded_client(guard, timeout=timeout)

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        """One try. Every failure is an Outcome, nothing is raised but the cancellation of the task."""
        began = self._clock.monotonic()
        status: int | None = None
        retry_after: float | None = None
        error: str | None = None
        is_late = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                request = self._request(delivery, traceparent)
                response = await self._client.send(request, stream=True)
                status, retry_after = response.status_code, self._retry_after(response)
                await _read_to_end(response)
        except httpx.ConnectTimeout:
            is_late = True
            error = f"no connection within {self._connect_seconds:g} s"
        except (TimeoutError, httpx.TimeoutException):
            is_late = status is None
            error = f"no answer within {self._timeout_seconds:g} s"
        except AddressForbidden as forbidden:
            error = str(forbidden)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failure:
            error = _say(failure)
        return Outcome(
            result=_judge(status),
            seconds=self._clock.monotonic() - began,
            status=status,
            error=None if status is not None else error,
            retry_after_seconds=retry_after,
            is_slow=is_late or status in _SLOW,
        )

    def _request(self, delivery: Delivery, traceparent: str) -> httpx.Request:
        timestamp = int(self._clock.wall().timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": self._user_agent,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._signer.sign(delivery.id, timestamp, delivery.body),
            "turnout-sequence": str(delivery.sequence),
            "accept-encoding": "identity",
        }
        if traceparent:
            headers["traceparent"] = traceparent
        return self._client.build_request("POST", delivery.url, content=delivery.body, headers=headers)

    def _retry_after(self, response: httpx.Response) -> float | None:
        """Seconds, from either form of the header; None if there is none that makes sense."""
        text = response.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit() and len(text) < 8:
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - self._clock.wall()).total_seconds())

    async def aclose(self) -> None:
        await self._client.aclose()


async def _read_to_end(response: httpx.Response) -> None:
    """
    Read a short answer to its end, so that the connection can serve again; cut off a long or a slow one.

    The status has been said already: what happens here no longer decides anything.
    """
    received = 0
    try:
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(ANSWER_SECONDS):
                async for chunk in response.aiter_raw():
                    received += len(chunk)
                    if received > MAX_ANSWER_BYTES:
                        break
    finally:
        await response.aclose()


def _say(failure: Exception) -> str:
    """A failure in words without the URL."""
    if isinstance(failure, httpx.ConnectError):
        return "the receiver could not be connected to"
    if isinstance(failure, httpx.NetworkError | OSError):
        return "the connection broke"
    if isinstance(failure, httpx.RemoteProtocolError):
        return "the receiver gave no valid HTTP answer"
    return f"the exchange failed ({type(failure).__name__})"


def _judge(status: int | None) -> Result:
    if status is None or status >= 500 or status in (408, 429):
        return Result.UNREACHED
    if 200 <= status < 300:
        return Result.DELIVERED
    return Result.GONE if status == 410 else Result.REFUSED
