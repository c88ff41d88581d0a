"""Peers that never come to the point, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.edge import EdgeProtocol


class Hasty(EdgeProtocol):
    head_seconds = 0.2
    most_head_bytes = 2_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Hasty(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()


async def all_that_comes(port: int, *sent: bytes) -> bytes:
    """Everything until the server closes; the test's own time limit is what fails if it never does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in sent:
            writer.write(part)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
async def test_a_peer_that_does_not_finish_its_head_is_let_go(port: int, sent: bytes) -> None:
    assert await all_that_comes(port, sent) == b""


async def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(port: int) -> None:
    answer = await all_that_comes(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", b"half")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_an_endless_head_is_refused_with_a_problem(port: int) -> None:
    answer = await all_that_comes(port, b"GET / HTTP/1.1\r\n", b"x-long: " + b"a" * 5_000)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert "2000 bytes" in json.loads(body)["detail"]


async def test_what_is_no_http_is_refused_with_a_problem(port: int) -> None:
    answer = await all_that_comes(port, b"HELLO\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400


async def test_requests_on_one_connection_are_each_given_their_time(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()
