"""Opens the store that an address means: the only place that knows them all. What is kept there is theirs to say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.contract.clock import Clock
from gateway.contract.errors import ConfigurationError
from gateway.store.address import RedisAddress, SqliteAddress, StoreSettings
from gateway.store.protocol import Reduce, Snapshot, Store
from gateway.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from gateway.store._redis_line import RedisLine

READS = 2_000  # questions to Redis that may be under way beside the writes


class StorePlace:
    """
    Where a store is, and `clock`, that of everybody who shares it: the machine's, or the server's. Nothing is opened.

    The server's must not be read before `open_store` has come back.
    """

    def __init__(self, settings: StoreSettings, *, clock: Clock, draw: Callable[[], float]) -> None:
        self.settings = settings
        self.line: RedisLine | None = None
        if isinstance(settings.address, RedisAddress):
            self.line = _line(settings.address, settings, clock=clock, draw=draw)
        self.clock: Clock = clock if self.line is None else self.line.clock


class Seen(msgspec.Struct, kw_only=True, frozen=True):
    """One server, as it was found."""

    place: str
    server: str  # "Redis 7.0.15"
    replicas: int
    complaints: tuple[tuple[str, str, bool], ...]  # problem, remedy, whether it is certain


async def open_store(place: StorePlace, *, reduce: Reduce, snapshot: Snapshot) -> Store:
    """Raises ConfigurationError for a store that is not to be had, or would lose what it takes."""
    settings, line = place.settings, place.line
    if isinstance(settings.address, SqliteAddress):
        return await SqliteStore.open(
            settings.address.path, reduce=reduce, snapshot=snapshot, clock=place.clock, max_queue=settings.max_queue
        )
    if line is None:
        raise ConfigurationError("there is no way to this store")
    from gateway.store.redis import RedisStore

    await line.open()
    return await RedisStore.open(
        line, prefix=settings.prefix, reduce=reduce, snapshot=snapshot, max_queue=settings.max_queue
    )


def look_at(settings: StoreSettings, *, clock: Clock) -> list[Seen]:
    """What Redis' servers say of themselves, without opening the store. Raises ConfigurationError."""
    address = settings.address
    if not isinstance(address, RedisAddress):
        raise ConfigurationError("there is no server to look at")
    return asyncio.run(_look_at(address, settings, clock))


async def _look_at(address: RedisAddress, settings: StoreSettings, clock: Clock) -> list[Seen]:
    line = _line(address, replace(settings, refuses=False), clock=clock, draw=lambda: 0.0, is_quiet=True)
    await line.open(start_seconds=0)
    try:
        return [
            Seen(
                place=node.place,
                server=node.standing.server,
                replicas=node.standing.replicas,
                complaints=tuple((one.problem, one.remedy, one.is_certain) for one in node.complaints),
            )
            for node in line.nodes
            if node.standing is not None
        ]
    finally:
        await line.aclose()


def _line(
    address: RedisAddress,
    settings: StoreSettings,
    *,
    clock: Clock,
    draw: Callable[[], float],
    is_quiet: bool = False,
) -> RedisLine:
    # Whoever keeps everything in a file does not pay for the import.
    from gateway.store._redis_line import RedisLine

    return RedisLine(
        address,
        durability=settings.durability,
        username=settings.username,
        password=settings.password,
        refuses=settings.refuses,
        max_queue=settings.max_queue + READS,
        timeout_seconds=settings.timeout_seconds,
        is_quiet=is_quiet,
        machine=clock,
        draw=draw,
    )
