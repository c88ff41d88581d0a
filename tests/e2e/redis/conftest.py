"""A gateway process on a redis-server of its own, with a key that all of them know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.contract.key import new_key
from tests.e2e.conftest import PIXEL
from tests.e2e.gateway_process import GatewayProcess
from tests.redis.server import RedisServer

STORE_SECONDS = 1.0
BODY = {"version": "turnout/upscaler", "input": {"image": PIXEL}}
MakeGateway = Callable[[str], GatewayProcess]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def make_gateway(tmp_path: Path, server: RedisServer) -> MakeGateway:
    """One that is not started yet; all of them share server, key and artifacts."""
    key = new_key()
    config = f"""
        [store]
        url = "{server.url}"
        durability = "aof-always"
        timeout_seconds = {STORE_SECONDS}
        [artifacts]
        path = "{tmp_path / "artifacts"}"
        [keys.app]
        hash = "{key.hash}"
        scopes = ["predictions", "models", "files", "admin"]
    """
    return lambda name: GatewayProcess(tmp_path / name, config, key=key.text)


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Iterator[GatewayProcess]:
    with make_gateway("gateway") as running:
        yield running
