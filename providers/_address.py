"""Where a provider lives, and which URLs out of its adapter may be asked, with our token or without. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

    `sites` are further bases by name, `origins` further hosts of its own under https, ".x.y" for what is below one:
    credentials may go to all of them, and to nothing else. Raises ConfigurationError for what is no base.
    """

    def __init__(
        self,
        base_url: str,
        *,
        provider: str,
        result_hosts: tuple[str, ...] = (),
        sites: Mapping[str, str] | None = None,
        origins: tuple[str, ...] = (),
    ) -> None:
        url, self.unix_socket = _read(base_url, provider)
        self._bases = {"": str(url).rstrip("/")}
        self._own = {_origin(url)}
        places = [] if self.unix_socket is not None else [url.netloc.decode("ascii")]
        for name, site in (sites or {}).items():
            further, _ = _read(site, provider)
            self._bases[name] = str(further).rstrip("/")
            self._own.add(_origin(further))
            places.append(further.netloc.decode("ascii"))
        self._origins = origins
        self._result_hosts = result_hosts
        self.trusted_hosts: tuple[str, ...] = tuple(dict.fromkeys((*places, *origins, *result_hosts)))

    def resolve(self, url: str, *, site: str = "") -> Target:
        """A path under a base, or an absolute URL that may be asked. Raises UrlRefused."""
        if not is_absolute(url):
            if site not in self._bases:
                raise UrlRefused(f"a site {site!r}, which it has not")
            return Target(f"{self._bases[site]}/{url.removeprefix('/')}", is_ours=True)
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise UrlRefused("a URL that cannot be read") from None
        if parsed.userinfo:
            raise UrlRefused("a URL with a user name in it")
        is_https = self.unix_socket is None and parsed.scheme == "https" and parsed.port in (None, 443)
        if _origin(parsed) in self._own or (is_https and _is_among(parsed.host, self._origins)):
            return Target(str(parsed), is_ours=True)
        if self.unix_socket is None and parsed.scheme == "https" and _is_among(parsed.host, self._result_hosts):
            return Target(str(parsed), is_ours=False)
        raise UrlRefused(f"a URL on {parsed.scheme or '?'}://{parsed.host or '?'}, which is not its own")


def _read(base_url: str, provider: str) -> tuple[httpx.URL, str | None]:
    """The base, and the path of its Unix socket if it is one. Raises ConfigurationError."""
    place, remedy = f"provider {provider}", "write https://host/path, http://host:port or unix:/path/to.sock"
    socket: str | None = None
    text = base_url
    if base_url.startswith(UNIX_SCHEME):
        socket, _, path = base_url.removeprefix(UNIX_SCHEME).partition(":")
        if not socket.startswith("/"):
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
    return url, socket


def is_absolute(url: str) -> bool:
    return _ABSOLUTE.match(url) is not None


def _is_among(host: str, known_hosts: tuple[str, ...]) -> bool:
    return any(host.endswith(known) if known.startswith(".") else host == known for known in known_hosts)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port if url.port is not None else _PORTS.get(url.scheme)
