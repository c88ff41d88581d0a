"""Which node of a cluster has which slot, as the cluster said last. A lone server is a cluster of one here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from gateway.store._redis_line_node import Node

SLOTS = 16_384
# Keys of one shard share a slot, and every prediction has a few: most are asked for again.
slot_of = functools.lru_cache(maxsize=16_384)(key_slot)


class Slots:
    """`make(host, port)` makes a node that is not known yet. Nodes that no slot names any more are given to `drop`."""

    def __init__(self, make: Callable[[str, int], Node], drop: Callable[[Node], None]) -> None:
        self._make = make
        self._drop = drop
        self._nodes: dict[tuple[str, int], Node] = {}
        self._owners: list[Node | None] = [None] * SLOTS
        self._others: dict[tuple[str, int], Node] = {}  # asked first, or named by ASK: they may own nothing
        self.is_whole = False  # every slot had an owner when the cluster was asked last

    def __iter__(self) -> Iterator[Node]:
        """Owners first."""
        yield from self._nodes.values()
        yield from (node for place, node in self._others.items() if place not in self._nodes)

    @property
    def owners(self) -> list[Node]:
        return list(self._nodes.values())

    def owner(self, slot: int) -> Node | None:
        return self._owners[slot]

    def node(self, host: str, port: int) -> Node:
        """Of this address, made if there is none."""
        known = self._nodes.get((host, port)) or self._others.get((host, port))
        if known is None:
            known = self._others[host, port] = self._make(host, port)
        return known

    def own_all(self, node: Node) -> None:
        """There is one server, and no cluster."""
        self._nodes = {(node.host, node.port): node}
        self._owners = [node] * SLOTS
        self.is_whole = True

    def move(self, slot: int, host: str, port: int) -> None:
        """One of them is elsewhere now (MOVED); the rest is learned by asking."""
        node = self.node(host, port)
        self._others.pop((host, port), None)
        self._nodes[host, port] = node
        self._owners[slot] = node

    def learn(self, answer: Any, teller: Node) -> None:
        """The answer of CLUSTER SLOTS. Raises ValueError for what is none."""
        if isinstance(answer, exceptions.RedisError) or not isinstance(answer, list):
            raise ValueError(f"CLUSTER SLOTS: {answer!s:.80}")  # noqa: TRY004 - what it said, not what we passed
        owners: list[Node | None] = [None] * SLOTS
        nodes: dict[tuple[str, int], Node] = {}
        for begin, end, primary, *_ in answer:
            host, port = _address(primary[0], primary[1], teller.host)
            node = nodes[host, port] = self.node(host, port)
            owners[int(begin) : int(end) + 1] = [node] * (int(end) - int(begin) + 1)
        if len(owners) != SLOTS:
            raise ValueError("slots out of range")
        if not nodes:
            raise ValueError("no slot has an owner: is it a cluster?")
        gone = [node for place, node in self._nodes.items() if place not in nodes]
        self._nodes, self._owners = nodes, owners
        self._others = {place: node for place, node in self._others.items() if place not in nodes}
        self.is_whole = None not in owners
        for node in gone:
            self._drop(node)


def read_redirection(text: str, teller: str) -> tuple[int, str, int]:
    """(slot, host, port) of "3999 127.0.0.1:6381". Without a host it is the teller's, which is at `host:port`."""
    slot, place = text.split()[:2]
    host, _, port = place.rpartition(":")
    return int(slot), *_address(host.strip("[]"), int(port), teller.rpartition(":")[0].strip("[]"))


def _address(host: Any, port: Any, teller: str) -> tuple[str, int]:
    name = bytes(host).decode() if isinstance(host, bytes) else host or ""
    return (name if name not in ("", "?") else teller), int(port)
