"""Brings files from elsewhere: within limits of size, time and pace, and only from addresses that may be dialled."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import unquote

import httpx

from gateway.contract.clock import Clock
from gateway.contract.errors import AddressForbidden
from gateway.net.target import Guard
from gateway.net.transport import guarded_client, public_trust

TOTAL_SECONDS = 60.0
MAX_REDIRECTS = 3
MAX_URL_CHARACTERS = 16_384  # signed links of object stores are long
TRIES = 3
MIN_BYTES_PER_SECOND = 1_000
GRACE_SECONDS = 5.0  # before the pace is judged
PAUSE_SECONDS = (0.2, 1.0)

T = TypeVar("T")
_PORTS = {"http": 80, "https": 443}


class FetchFailed(Exception):
    """The file cannot be had: a sentence without the URL's query. `is_passing`: perhaps it can in a moment."""

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class FetchTooLarge(FetchFailed):
    """It is larger than it may be here."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"it is larger than {max_bytes} bytes")


class Download:
    """A file on its way in: its first line is read, its bytes are not."""

    def __init__(self, response: httpx.Response, clock: Clock, max_bytes: int) -> None:
        self.content_type = response.headers.get("content-type", "")
        self.name = unquote(response.url.path.rpartition("/")[2])
        self._response = response
        self._clock = clock
        self._max_bytes = max_bytes
        # Decoding is refused, not limited: 823 bytes of gzip can be 400 MB, in one piece.
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise FetchFailed("it came compressed although that was not asked for")
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:18]) > max_bytes:
            raise FetchTooLarge(max_bytes)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises FetchFailed for a file too large or a sender too slow."""
        began = self._clock.monotonic()
        received = 0
        async for chunk in self._response.aiter_raw(65_536):
            received += len(chunk)
            if received > self._max_bytes:
                raise FetchTooLarge(self._max_bytes)
            seconds = self._clock.monotonic() - began
            if seconds > GRACE_SECONDS and received < MIN_BYTES_PER_SECOND * seconds:
                raise FetchFailed(f"it comes slower than {MIN_BYTES_PER_SECOND} bytes a second")
            yield chunk

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


class Turns:
    """So many at once; of those that wait, the one that expires first goes first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def turn(self, expires: float) -> AsyncIterator[None]:
        """`expires` is a monotonic second, infinity for what keeps."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(expires)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, expires: float) -> None:
        handed = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (expires, next(self._numbers), handed))
        try:
            await handed
        except asyncio.CancelledError:
            if handed.done() and not handed.cancelled():
                self._pass_on()  # it was handed over at that very moment
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, handed = heapq.heappop(self._waiting)
            if not handed.done():
                handed.set_result(None)
                return
        self._free += 1


class Fetcher:
    """
    Gets files with no cookies, and with no credentials but those it is handed. What is not in `direct` goes through
    the guard.

    `total_seconds` is a deadline round all tries, redirects and bytes of one file.
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        max_in_flight: int = 16,
        total_seconds: float = TOTAL_SECONDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self.pause = pause
        self._total_seconds = total_seconds
        self._turns = Turns(max_in_flight)
        timeout = httpx.Timeout(15.0, connect=10.0, pool=None)
        self._guarded = guarded_client(guard, timeout=timeout)
        self._direct = httpx.AsyncClient(
            verify=public_trust(),
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    async def fetch(
        self,
        url: str,
        take: Callable[[Download], Awaitable[T]],
        *,
        max_bytes: int,
        direct: frozenset[str] = frozenset(),
        headers: Mapping[str, str] | None = None,
        expires: float = math.inf,
    ) -> T:
        """
        Hand the file at `url` to `take`, again from the start if the connection breaks.

        `direct` names origins as `origin` spells them: they are dialled without the guard. `headers` go to `url`
        itself, never to where it is moved. Where many wait, the first to expire (a monotonic second) goes first. Raises
        FetchFailed, and whatever `take` raises.
        """
        async with self._turns.turn(expires):
            try:
                async with asyncio.timeout(self._total_seconds):
                    return await self._try(url, take, max_bytes, direct, headers or {})
            except TimeoutError as error:
                raise FetchFailed(f"it did not come within {self._total_seconds:g} s", is_passing=True) from error

    async def _try(
        self,
        url: str,
        take: Callable[[Download], Awaitable[T]],
        max_bytes: int,
        direct: frozenset[str],
        headers: Mapping[str, str],
    ) -> T:
        for pause_seconds in (*PAUSE_SECONDS[: TRIES - 1], None):
            try:
                return await self._once(url, take, max_bytes, direct, headers)
            except httpx.TransportError as error:
                failure = FetchFailed(f"the connection to it failed ({type(error).__name__})", is_passing=True)
            except FetchFailed as error:
                failure = error
            if pause_seconds is None or not failure.is_passing:
                break
            await self.pause(pause_seconds)
        raise failure

    async def _once(
        self,
        url: str,
        take: Callable[[Download], Awaitable[T]],
        max_bytes: int,
        direct: frozenset[str],
        headers: Mapping[str, str],
    ) -> T:
        for _ in range(MAX_REDIRECTS + 1):
            parsed = _read(url)
            is_direct = origin(parsed) in direct
            if not is_direct:
                # Whoever we were sent to by a stranger must not lead us back inside.
                direct = frozenset()
            client = self._direct if is_direct else self._guarded
            plain = {"accept": "*/*", "accept-encoding": "identity"}
            request = client.build_request("GET", parsed, headers={**headers, **plain})
            headers = {}
            try:
                response = await client.send(request, stream=True)
            except AddressForbidden as error:
                raise FetchFailed(str(error)) from error
            try:
                if response.has_redirect_location:
                    url = _join(parsed, response.headers["location"])
                    continue
                _check_status(response.status_code)
                return await take(Download(response, self.clock, max_bytes))
            finally:
                await response.aclose()
        raise FetchFailed(f"it was moved more than {MAX_REDIRECTS} times")

    async def aclose(self) -> None:
        await self._guarded.aclose()
        await self._direct.aclose()


def origin(url: httpx.URL) -> str:
    """`host:port` in lower case, the port always there, IPv6 in brackets."""
    host = url.raw_host.decode("ascii")
    port = _PORTS.get(url.scheme, 0) if url.port is None else url.port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(url: str) -> httpx.URL:
    if len(url) > MAX_URL_CHARACTERS:
        raise FetchFailed("its URL is too long")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchFailed("its URL cannot be read") from error
    if parsed.scheme not in _PORTS or not parsed.host or parsed.userinfo:
        raise FetchFailed("its URL is no plain http(s) URL")
    return parsed


def _join(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchFailed("it was moved to something that is no URL") from error


def _check_status(status: int) -> None:
    if status == 200:
        return
    is_passing = status >= 500 or status in (408, 425, 429)
    raise FetchFailed(f"the server answered {status}", is_passing=is_passing)
