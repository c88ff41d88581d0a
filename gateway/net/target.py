"""
Which addresses may be dialled: asked when a caller names a URL, and again for what is about to be dialled.

Dials nothing itself: that is `gateway.net.transport`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx

from gateway.contract.errors import AddressForbidden
from gateway.net.address import Address, Allowed, is_never, is_public, read_literal

MAX_URL_CHARACTERS = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → addresses as text, in the order they should be tried. Raises OSError or UnicodeError."""


class Guard:
    """
    The rules for addresses that others may name.

    `allow`: hosts, host:port, addresses or networks that are private and yet may be dialled.
    `own_hosts`: "host" or "host:port" of ourselves, refused whatever `allow` says: a request to us would loop.
    `resolve`: asked once per connection; its every answer must pass, and one of them is dialled literally.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        allow_http: bool = False,
        own_hosts: Iterable[str] = (),
        resolve: Resolve | None = None,
        dns_seconds: float = 5.0,
    ) -> None:
        self._allowed = Allowed(allow)
        self._own = Allowed(own_hosts)
        self._allow_http = allow_http
        self._resolve = resolve or SystemResolver()
        self._dns_seconds = dns_seconds

    def check_url(self, url: str) -> None:
        """
        Refuse what can be refused without asking anybody: for the moment a caller names the URL.

        Raises AddressForbidden with a sentence for that caller. A name may still lead to a forbidden address: the
        transport looks again when it dials.
        """
        if len(url) > MAX_URL_CHARACTERS:
            raise AddressForbidden(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
        if not url.isascii():
            raise AddressForbidden("the URL has non-ASCII characters: write names as xn--… and percent-encode the rest")
        if any(character <= " " or character in "\\\x7f" for character in url):
            raise AddressForbidden("the URL has characters that no URL may have")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise AddressForbidden("the URL cannot be read") from error
        self.check_parsed(parsed)

    def check_parsed(self, url: httpx.URL) -> None:
        """As `check_url`, for a URL read by the very parser that the client uses. Raises AddressForbidden."""
        if url.scheme not in _DEFAULT_PORTS:
            raise AddressForbidden(f"the URL must begin with https://, not with {url.scheme or 'nothing'}:")
        if url.scheme == "http" and not self._allow_http:
            raise AddressForbidden("the URL must begin with https://: plain http is not allowed here")
        if url.userinfo:
            raise AddressForbidden("the URL must not hold a user name or password")
        self._check_place(url.raw_host.decode("ascii"), _port(url))

    def check_literal(self, url: str) -> None:
        """
        Refuse a URL whose host is spelt as an address that may not be dialled; every name passes.

        For URLs that are handed on more often than they are dialled by us: whoever dials looks at names. Raises
        AddressForbidden.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise AddressForbidden("the URL cannot be read") from error
        host = parsed.raw_host.decode("ascii").removesuffix(".")
        literal = _literal(host)
        if literal is not None and not is_public(literal):
            self._check_address(literal, host, _port(parsed))

    def _check_place(self, host: str, port: int) -> Address | None:
        """What the words alone say of a target: its address if it is a literal. Raises AddressForbidden."""
        literal = _literal(host)
        if literal is not None:
            self._check_address(literal, host, port)
            return literal
        if self._own.has_name(host, port):
            raise AddressForbidden("the URL points at this gateway itself")
        if not self._allowed.has_name(host, port):
            self._check_port(port)
            if host in _LOCAL_NAMES or host.endswith(".localhost"):
                raise AddressForbidden(f"{host!r} is this machine; it can be allowed by name in the configuration")
        return None

    def _check_address(self, address: Address, host: str, port: int) -> None:
        if self._own.has_address(address, port):
            raise AddressForbidden("the URL points at this gateway itself")
        if self._allowed.has_address(address, port):
            return
        by_name = self._allowed.has_name(host, port)
        if by_name and not is_never(address):
            return
        if not is_public(address):
            # The address a name resolves to is not told: it would map our network for whoever asks.
            raise AddressForbidden(
                f"{host!r} is not on the public internet and not allowed by name in the configuration"
            )
        self._check_port(port)

    def _check_port(self, port: int) -> None:
        if not (port in (443, 80) or 1024 <= port <= 65535):
            raise AddressForbidden(f"port {port} may not be dialled: only 443, 80 and those from 1024 on")

    async def addresses(self, host: str, port: int) -> list[str]:
        """
        The literal addresses that may be dialled for `host`, in order.

        Raises AddressForbidden if one answer is forbidden; httpcore.ConnectError or ConnectTimeout if there is none.
        """
        literal = self._check_place(host, port)
        if literal is not None:
            return [str(literal)]
        try:
            async with asyncio.timeout(self._dns_seconds):
                answers = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in {self._dns_seconds:g} s") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        if not answers:
            raise httpcore.ConnectError(f"{host} has no address")
        for answer in answers:
            self._check_address(_read_answer(answer, host), host, port)
        return answers


class SystemResolver:
    """The system's resolver in threads of its own: a slow name server must not hold up other work in threads."""

    def __init__(self, threads: int = 8) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _port(url: httpx.URL) -> int:
    return _DEFAULT_PORTS.get(url.scheme, 0) if url.port is None else url.port


def _literal(host: str) -> Address | None:
    try:
        return read_literal(host)
    except ValueError as error:
        raise AddressForbidden(f"{host!r} is neither a host name nor a plainly written address") from error


def _look_up(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _read_answer(answer: str, host: str) -> Address:
    try:
        return ipaddress.ip_address(answer)
    except ValueError as error:
        raise AddressForbidden(f"{host!r} resolves to something that is no address") from error
