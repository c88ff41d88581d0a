"""What a host is by its spelling alone. Resolves no name; which hosts may be dialled is for `gateway.net` to say."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """In lower case, without port; empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """An address of loopback, or `localhost`. Other names may lead there too; who trusts them is mistaken."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
