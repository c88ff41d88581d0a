"""Which store an address means, whose clock holds there, and what is opened before anybody asks: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.store.address import SqliteAddress, StoreSettings, read_address
from gateway.store.opening import StorePlace, look_at, open_store
from gateway.store.redis import RedisStore
from gateway.store.sqlite import SqliteStore
from tests.contract.store import toy
from tests.redis.server import RedisServer, free_port


def place(url: str, **settings: Any) -> StorePlace:
    return StorePlace(StoreSettings(address=read_address(url), **settings), clock=SystemClock(), draw=lambda: 0.5)


async def test_a_file_goes_by_the_machines_clock(tmp_path: Path) -> None:
    there = place(f"sqlite:///{tmp_path}/t.db")
    assert isinstance(there.clock, SystemClock)
    assert not os.listdir(tmp_path)
    store = await open_store(there, reduce=toy.reduce, snapshot=toy.snapshot)
    assert isinstance(store, SqliteStore)
    await store.aclose()


async def test_redis_goes_by_the_servers_clock_which_begins_when_it_is_open(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        there = place(server.url)
        with pytest.raises(RuntimeError, match="before the store was reached"):
            there.clock.now()
        store = await open_store(there, reduce=toy.reduce, snapshot=toy.snapshot)
        assert isinstance(store, RedisStore)
        with server.client() as client:
            seconds, _ = client.time()
        assert abs(there.clock.now().timestamp() - seconds) < 2
        await store.check()
        await store.aclose()


async def test_what_cannot_be_reached_is_a_wrong_configuration() -> None:
    there = place(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.5)
    assert there.line is not None
    with pytest.raises(ConfigurationError, match="Connection refused"):
        await there.line.open(start_seconds=0.1)


def test_there_is_no_server_to_look_at_behind_a_file() -> None:
    with pytest.raises(ConfigurationError, match="no server"):
        look_at(StoreSettings(address=SqliteAddress("t.db")), clock=SystemClock())


def test_whoever_keeps_a_file_does_not_load_redis() -> None:
    code = "import sys, gateway.app; sys.exit('gateway.store.redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
