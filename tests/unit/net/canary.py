"""A loopback listener that counts who knocks, and answers HTTP as told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable


class Canary:
    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes], bytes] = lambda head: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._news = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.requests.append(head)
                    await self._tell()
                    writer.write(self.answer(head))
                    await writer.drain()
        finally:
            writer.close()
            self._open.discard(writer)
            await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def hang_up(self) -> None:
        """Close every connection, and be sure that the other side has been told."""
        for writer in list(self._open):
            writer.close()
            await writer.wait_closed()

    async def until_idle(self, connections: int = 0) -> None:
        """Wait until no more than so many connections are open."""
        async with asyncio.timeout(5), self._news:
            await self._news.wait_for(lambda: len(self._open) <= connections)

    async def until_asked(self) -> None:
        async with asyncio.timeout(5), self._news:
            await self._news.wait_for(lambda: bool(self.requests))


@contextlib.asynccontextmanager
async def listening(host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Canary]:
    canary = Canary()
    server = await asyncio.start_server(canary.serve, host, 0, ssl=tls)
    canary.port = server.sockets[0].getsockname()[1]
    try:
        yield canary
    finally:
        server.close()
        await server.wait_closed()
