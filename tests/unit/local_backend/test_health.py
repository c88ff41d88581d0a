"""What the local backend says of itself, and how the gateway's end of it listens."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from local_backend.address import read_address
from local_backend.probe import probe
from tests.unit.local_backend.test_application import DOUBLE, ONES, Bench, Gated, busy, gated, packages
from tests.unit.local_backend.test_queue import NOW, job

__all__ = ["busy", "gated", "packages"]  # fixtures

WELL = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"queue": 3}'


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (WELL, {"queue": 3}),
        (WELL.replace(b"200 OK", b"503 No"), None),
        (WELL.replace(b'{"queue": 3}', b"[]"), None),
        (WELL.replace(b'{"queue": 3}', b'{"que'), None),
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"", None),
        (b"nonsense\r\n\r\n", None),
    ],
)
async def test_a_probe_hears_health_or_nothing(answer: bytes, heard: object) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await probe(read_address(f"tcp://127.0.0.1:{port}"), 5.0) == heard
    assert await probe(read_address(f"tcp://127.0.0.1:{port}"), 5.0) is None, "nobody is there"


async def test_a_probe_does_not_wait_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await probe(read_address(f"tcp://127.0.0.1:{port}"), 0.05) is None


async def test_batches_and_what_was_in_them_are_counted_and_its_memory_is_told(busy: Bench, gated: Gated) -> None:
    for _ in range(2):
        await busy.post(DOUBLE, {"input": ONES})
        assert await asyncio.to_thread(gated.begun.acquire, timeout=10)
        gated.go.release()
    health = (await busy.client.get("/health")).json()
    assert (health["batches"], health["batched"]) == (2, 2)
    assert health["memory_bytes"] > 10_000_000


def test_a_job_that_waited_for_its_model_says_for_how_long_and_another_says_nothing() -> None:
    cold, warm = job("cold"), job("warm")
    cold.cold_seconds = 1.5
    for one in (cold, warm):
        one.start(NOW)
        one.succeed("x", {}, 0, NOW + timedelta(seconds=2))
    assert cold.metrics["cold_start_time"] == 1.5
    assert "cold_start_time" not in warm.metrics
