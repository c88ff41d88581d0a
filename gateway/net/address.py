"""Which IP addresses and names are ours to refuse, and what ops allow by name. Resolves nothing, dials nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from gateway.contract.errors import ConfigurationError, refuse

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# `ipaddress.is_global` differs between Python versions and calls multicast, 6to4 and NAT64 global: hence a table of
# our own, after the IANA special-purpose registries.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relay anycast
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
# Not even a name that ops allow may lead here; only the address itself, written in the allow list, opens it.
_NEVER_BY_NAME = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # metadata (Alibaba)
        "168.63.129.16/32",  # platform address (Azure): public by number, the machine's host in truth
        "169.254.0.0/16",  # link-local, metadata (nearly everybody)
        "192.0.0.192/32",  # metadata (Oracle)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/128",
        "fd00:ec2::254/128",  # metadata (AWS)
        "fd20:ce::254/128",  # metadata (Google)
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
    )
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")  # nothing outside is handed out as global unicast
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # what DNS64 answers for an IPv4-only receiver

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:(?P<port>[0-9]{1,5}))?\Z")


def embedded(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 address: that is where the connection ends. Else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """True only for addresses that anybody on the internet could dial too."""
    address = embedded(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_IPV6:
        return False
    return not any(address in network for network in _PRIVATE) and not is_never(address)


def is_never(address: Address) -> bool:
    """True for addresses that no allowed name may lead to: metadata, link-local, multicast, unspecified."""
    address = embedded(address)
    if getattr(address, "scope_id", None):
        return True
    return any(address in network for network in _NEVER_BY_NAME)


def read_literal(host: str) -> Address | None:
    """
    The address that `host` (lower case, no brackets) spells; None for a name.

    Raises ValueError for spellings that one resolver takes for a number and another for a name: `127.1`, `0x7f.1`,
    `2130706433`, `0177.0.0.1`, zones, and for what is neither a name nor an address.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("an address with a zone")
        return ipaddress.IPv6Address(host)
    if _NUMBER.match(host.rpartition(".")[2]):
        return ipaddress.IPv4Address(host)
    if not _NAME.match(host):
        raise ValueError("not a host name")
    return None


class Allowed:
    """
    What ops allow by name: "host", "host:port", "address", "address:port", "network/bits".

    IPv6 stands in brackets if a port follows. An address means the address, by whatever name a caller reaches it.
    Raises ConfigurationError for anything else.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[tuple[str, int | None]] = set()
        self._addresses: set[tuple[Address, int | None]] = set()
        self._networks: list[Network] = []
        for entry in entries:
            self._add(entry.strip().lower(), entry)

    def _add(self, text: str, entry: str) -> None:
        try:
            if "/" in text:
                self._networks.append(ipaddress.ip_network(text))
                return
            host, port = _split(text)
            address = read_literal(host)
        except ValueError as error:
            raise _malformed(entry) from error
        if address is None:
            self._names.add((host, port))
        else:
            self._addresses.add((address, port))

    def has_name(self, host: str, port: int) -> bool:
        return (host, None) in self._names or (host, port) in self._names

    def has_address(self, address: Address, port: int) -> bool:
        inner = embedded(address)
        return (
            (inner, None) in self._addresses
            or (inner, port) in self._addresses
            or any(inner in network for network in self._networks)
        )

    def has(self, host: str, port: int) -> bool:
        """`host` is a name or an address as text."""
        try:
            address = read_literal(host)
        except ValueError:
            return False
        return self.has_name(host, port) if address is None else self.has_address(address, port)


def _split(text: str) -> tuple[str, int | None]:
    if text.count(":") > 1 and not text.startswith("["):
        return text, None
    match = _PLACE.match(text)
    if match is None:
        raise ValueError("neither host nor host:port")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("no such port")
    return match["host"].strip("[]"), port


def _malformed(entry: str) -> ConfigurationError:
    return refuse(
        f"{entry!r} names no host, address or network",
        place="allow list",
        remedy='write "host", "host:port", "10.1.2.3", "10.1.2.3:9000", "[::1]:9000" or "10.0.0.0/8"',
    )
