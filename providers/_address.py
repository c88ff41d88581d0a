"""Where a provider lives, and which URLs out of its adapter may be asked, with our token or without. Sends nothing."""

from __future__ import annotations

import re
from typing import NamedTuple

import httpx

from gateway.contract.errors import refuse
from providers._transport import UNIX_SCHEME

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|\\\\")
_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    url: str
    is_ours: bool  # on the provider's own origin: our token may go there


class UrlRefused(ValueError):
    """The adapter asked for a URL that is neither the provider's own nor one of its result hosts."""


class Home:
    """
    A provider's base, read once: `https://host[:port][/path]`, or `unix:/path/to.sock[:/path]` for a Unix socket.

    Raises ConfigurationError for anything else.
    """

    def __init__(self, base_url: str, *, provider: str, result_hosts: tuple[str, ...] = ()) -> None:
        place, remedy = f"provider {provider}", "write https://host/path, http://host:port or unix:/path/to.sock"
        self.unix_socket: str | None = None
        text = base_url
        if base_url.startswith(UNIX_SCHEME):
            self.unix_socket, _, path = base_url.removeprefix(UNIX_SCHEME).partition(":")
            if not self.unix_socket.startswith("/"):
                raise refuse("base_url names no absolute path of a socket", place=place, remedy=remedy)
            text = f"http://localhost{path}"
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            raise refuse("base_url is not a URL", place=place, remedy=remedy) from None
        if url.scheme not in _PORTS or not url.host:
            raise refuse("base_url is not an http(s) URL", place=place, remedy=remedy)
        if url.userinfo or url.query or url.fragment:
            raise refuse("base_url holds a password, a query or a fragment", place=place, remedy=remedy)
        self._text = str(url).rstrip("/")
        self._origin = _origin(url)
        self._result_hosts = result_hosts
        own = () if self.unix_socket is not None else (url.netloc.decode("ascii"),)
        self.trusted_hosts: tuple[str, ...] = own + result_hosts

    def resolve(self, url: str) -> Target:
        """A path under the base, or an absolute URL that may be asked. Raises UrlRefused."""
        if _ABSOLUTE.match(url) is None:
            return Target(f"{self._text}/{url.removeprefix('/')}", is_ours=True)
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise UrlRefused("a URL that cannot be read") from None
        if parsed.userinfo:
            raise UrlRefused("a URL with a user name in it")
        if _origin(parsed) == self._origin:
            return Target(str(parsed), is_ours=True)
        if self.unix_socket is None and parsed.scheme == "https" and self._is_result_host(parsed.host):
            return Target(str(parsed), is_ours=False)
        raise UrlRefused(f"a URL on {parsed.scheme or '?'}://{parsed.host or '?'}, which is not its own")

    def _is_result_host(self, host: str) -> bool:
        return any(host.endswith(known) if known.startswith(".") else host == known for known in self._result_hosts)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port if url.port is not None else _PORTS.get(url.scheme)
