"""Lines to a server under test, and small scripts to run over them. Nothing of the store's own scripts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.resources
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.contract.clock import SystemClock
from gateway.store._redis_line import RedisLine
from gateway.store._redis_wire import Call, Script
from gateway.store.address import RedisAddress, read_address
from gateway.store.durability import read_durability


def script(source: str, *, is_reading: bool = False) -> Script:
    """Behind the prologue that every script of the store has."""
    prologue = importlib.resources.files("gateway.store").joinpath("lua", "prologue.lua").read_text("utf-8")
    source = f"{prologue}\n{source}"
    sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name="test", source=source, sha1=sha1, is_reading=is_reading)


SET = script("redis.call('SET', KEYS[1], ARGV[3]) return ARGV[3]")
GET = script("return redis.call('GET', KEYS[1])", is_reading=True)
ADD = script("return redis.call('RPUSH', KEYS[1], ARGV[3])")
REFUSE = script("return redis.error_reply('LEASE somebody else has it')")
# Written without a look at the time: what a store without the guard would do.
UNGUARDED = Script(
    name="unguarded",
    source="redis.call('SET', KEYS[1], ARGV[3]) return ARGV[3]",
    sha1=hashlib.sha1(b"redis.call('SET', KEYS[1], ARGV[3]) return ARGV[3]", usedforsecurity=False).hexdigest(),
)


def put(key: str, value: str, *, by: Script = SET) -> Call:
    return Call(by, [key], [value])


def line_to(url: str, *, durability: str = "everysec", **options: Any) -> RedisLine:
    address = read_address(url)
    assert isinstance(address, RedisAddress)
    options = {"machine": SystemClock(), "draw": lambda: 0.5, "timeout_seconds": 1.0} | options
    return RedisLine(address, durability=read_durability(durability), **options)


@contextlib.asynccontextmanager
async def open_line(url: str, **options: Any) -> AsyncIterator[RedisLine]:
    line = line_to(url, **options)
    await line.open()
    try:
        yield line
    finally:
        await line.aclose()


async def eventually(claim: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait until it holds."""
    limit = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < limit, "it has not come true"
        await asyncio.sleep(0.01)
