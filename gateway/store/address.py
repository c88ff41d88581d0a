"""Which store a URL names and what goes with it, read from the text alone. Opens nothing, looks up no name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from gateway.store.durability import Durability

REDIS_PORT = 6379
_SCHEMES = {  # → (TLS, cluster)
    "redis": (False, False),
    "rediss": (True, False),
    "redis+cluster": (False, True),
    "rediss+cluster": (True, True),
}
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_FORMS = 'write "sqlite:///PATH" for one process, or "redis://HOST:PORT/0" (rediss://, redis+cluster://) for many'


class AddressWrong(ValueError):
    """It names no store. Neither text quotes the URL: people do paste URLs with a password in them."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class SqliteAddress(msgspec.Struct, frozen=True):
    path: str  # as it is written: relative ones are relative to the configuration


class RedisAddress(msgspec.Struct, kw_only=True, frozen=True):
    nodes: tuple[tuple[str, int], ...]  # of a cluster those that are asked first; of a lone server one
    database: int = 0
    is_encrypted: bool = False
    is_cluster: bool = False

    def __str__(self) -> str:
        return ",".join(spell(host, port) for host, port in self.nodes)


StoreAddress = SqliteAddress | RedisAddress


class StoreSettings(msgspec.Struct, kw_only=True, frozen=True):
    """All that a store is opened by. What follows `max_queue` is Redis' alone."""

    address: StoreAddress
    max_queue: int = 1_000
    username: str = ""
    password: str = ""
    prefix: str = "turnout"
    durability: Durability = Durability("aof-always")
    refuses: bool = True  # a server that would lose what it took
    timeout_seconds: float = 2.0

    def __repr__(self) -> str:
        return f"StoreSettings(address={self.address!r})"  # never the password


def read_address(url: str) -> StoreAddress:
    """`sqlite:///PATH` (three slashes: relative, four: absolute), or one of Redis'. Raises AddressWrong."""
    scheme, colon, rest = url.partition("://")
    if colon and scheme == "sqlite":
        path = rest.removeprefix("/")
        if not rest.startswith("/") or path in ("", ":memory:"):
            raise AddressWrong("no store lives there", 'write "sqlite:///PATH" with the path of a file')
        return SqliteAddress(path)
    if colon and scheme in _SCHEMES:
        is_encrypted, is_cluster = _SCHEMES[scheme]
        return _read_redis(rest, is_encrypted=is_encrypted, is_cluster=is_cluster)
    raise AddressWrong("no store lives there", _FORMS)


def spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_redis(rest: str, *, is_encrypted: bool, is_cluster: bool) -> RedisAddress:
    place, _, after = rest.partition("/")
    if "@" in rest:
        remedy = 'write [store] username, and password = "env:NAME" or "file:PATH"'
        raise AddressWrong("there is a user or password in this address", remedy)
    if "?" in rest or "#" in rest:
        raise AddressWrong("this is more than an address", "leave out what begins with ? or #: [store] has the rest")
    nodes = tuple(_read_node(node) for node in place.split(","))
    if len(nodes) > 1 and not is_cluster:
        raise AddressWrong("a lone server has one address", 'write "redis+cluster://HOST:PORT,HOST:PORT" for a cluster')
    if after and is_cluster:
        raise AddressWrong("a cluster has no databases", f"leave out /{after[:20]}")
    if after and not (after.isdecimal() and len(after) < 5):
        raise AddressWrong("this is no database of Redis", 'write its number behind the slash: "redis://HOST:PORT/0"')
    return RedisAddress(nodes=nodes, database=int(after or 0), is_encrypted=is_encrypted, is_cluster=is_cluster)


def _read_node(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", REDIS_PORT if parts.port is None else parts.port
    except ValueError:
        host, port = "", 0
    if _HOST.fullmatch(host) is None or not 0 < port < 65_536:
        raise AddressWrong("there is no host in this address", 'write "redis://HOST:PORT/0"')
    return host, port
