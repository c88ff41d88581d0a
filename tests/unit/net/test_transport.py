"""Connections are used again while they are good, closed when they are not, and errors are httpx's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpcore
import httpx
import pytest

from gateway.net import transport
from gateway.net.target import Guard
from gateway.net.transport import GuardedTransport, guarded_client
from tests.unit.net.canary import Canary, listening


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with listening() as found:
        yield found


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with guarded_client(Guard(["127.0.0.1"], allow_http=True), timeout=5) as found:
        yield found


async def test_one_connection_serves_one_request_after_the_other(canary: Canary, client: httpx.AsyncClient) -> None:
    for _ in range(5):
        assert (await client.get(f"http://127.0.0.1:{canary.port}/")).text == "ok"
    assert (canary.connections, len(canary.requests)) == (1, 5)


async def test_requests_at_once_have_connections_of_their_own_and_share_them_later(
    canary: Canary, client: httpx.AsyncClient
) -> None:
    for _ in range(3):
        await asyncio.gather(*(client.get(f"http://127.0.0.1:{canary.port}/{n}") for n in range(6)))
    assert canary.connections == 6
    assert len(canary.requests) == 18


async def test_origins_do_not_share_connections(canary: Canary, client: httpx.AsyncClient) -> None:
    async with listening() as other:
        for port in (canary.port, other.port, canary.port, other.port):
            await client.get(f"http://127.0.0.1:{port}/")
        assert (canary.connections, other.connections) == (1, 1)


async def test_connection_that_the_server_closed_is_not_used_again(canary: Canary, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert (await client.get(f"http://127.0.0.1:{canary.port}/")).text == "ok"
        await canary.hang_up()
    assert canary.connections == 3


async def test_answer_closed_before_its_end_closes_the_connection(canary: Canary, client: httpx.AsyncClient) -> None:
    canary.answer = lambda head: b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx"
    async with client.stream("GET", f"http://127.0.0.1:{canary.port}/"):
        pass
    await canary.until_idle()


async def test_request_that_is_cancelled_closes_its_connection(canary: Canary, client: httpx.AsyncClient) -> None:
    canary.answer = lambda head: b""
    task = asyncio.create_task(client.get(f"http://127.0.0.1:{canary.port}/"))
    await canary.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await canary.until_idle()


async def test_who_takes_one_while_another_closes_the_expired_disturbs_nobody(
    canary: Canary, client: httpx.AsyncClient
) -> None:
    """A webhook came a minute late by it: the second found a connection gone that it had seen a moment ago."""
    await asyncio.gather(*(client.get(f"http://127.0.0.1:{canary.port}/{n}") for n in range(6)))
    await canary.hang_up()
    answers = await asyncio.gather(*(client.get(f"http://127.0.0.1:{canary.port}/{n}") for n in range(6)))
    assert [answer.text for answer in answers] == ["ok"] * 6


async def test_idle_connections_are_bounded(
    canary: Canary, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_IDLE", 2)
    await asyncio.gather(*(client.get(f"http://127.0.0.1:{canary.port}/{n}") for n in range(6)))
    await canary.until_idle(2)


async def test_closing_the_client_closes_every_connection(canary: Canary) -> None:
    async with guarded_client(Guard(["127.0.0.1"], allow_http=True)) as client:
        await asyncio.gather(*(client.get(f"http://127.0.0.1:{canary.port}/{n}") for n in range(3)))
    await canary.until_idle()


@pytest.mark.parametrize(
    "name",
    [
        "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "PoolTimeout",
        "RemoteProtocolError", "LocalProtocolError", "UnsupportedProtocol",
    ],
)  # fmt: skip
async def test_every_error_of_httpcore_is_the_one_of_httpx(name: str) -> None:
    class Dial(httpcore.AsyncMockBackend):
        async def connect_tcp(self, *args: object, **kwargs: object) -> httpcore.AsyncNetworkStream:
            raise getattr(httpcore, name)("why")

    guarded = GuardedTransport(Guard(), dial=Dial([]))
    async with httpx.AsyncClient(transport=guarded, trust_env=False) as client:
        with pytest.raises(httpx.TransportError, match="why") as caught:
            await client.get("https://8.8.8.8/")
    assert type(caught.value).__name__ == name
