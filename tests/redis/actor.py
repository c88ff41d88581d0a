"""A server on loopback that plays Redis as a test tells it to: right until it is told otherwise. Keeps nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

HEALTHY = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}


class Actor:
    """
    `reply(words)` says what is sent for a command, as it is on the wire; None: what Redis would say.

    An empty reply closes the connection, SILENCE leaves it unanswered.
    """

    SILENCE = b"\0"

    def __init__(self) -> None:
        self.reply: Callable[[list[bytes]], bytes | None] = lambda words: None
        self.settings: dict[str, str | None] = dict(HEALTHY)  # None: forbidden
        self.server = "redis_version:7.2.4\r\n"
        self.role = "role:master\r\nconnected_slaves:0\r\n"
        self.ahead_seconds = 0.0
        self.heard: list[list[bytes]] = []
        self.connections = 0
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def say(self, text: bytes) -> None:
        """On every connection, though nobody asks."""
        for writer in self._writers:
            writer.write(text)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                words = await _command(reader)
                self.heard.append(words)
                said = self.reply(words)
                said = self._usual(words) if said is None else said
                if not said:
                    break
                if said != self.SILENCE:
                    writer.write(said)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _usual(self, words: list[bytes]) -> bytes:
        word = words[0].upper()
        if word == b"TIME":
            now = time.time() + self.ahead_seconds
            return _array(b"%d" % int(now), b"%06d" % int(now % 1 * 1e6))
        if word == b"INFO":
            return _bulk((self.server if words[1] == b"server" else self.role).encode())
        if word == b"CONFIG":
            value = self.settings[words[2].decode()]
            if value is None:
                return b"-NOPERM this user has no permissions to run the 'config|get' command\r\n"
            return _array(words[2], value.encode())
        if word == b"SCRIPT":
            return _bulk(b"0" * 40)
        if word == b"PING":
            return b"+PONG\r\n"
        return b"+OK\r\n"


@contextlib.asynccontextmanager
async def acting() -> AsyncIterator[Actor]:
    actor = Actor()
    server = await asyncio.start_server(actor.serve, "127.0.0.1", 0)
    actor.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield actor
    finally:
        server.close()
        actor.cut()
        await asyncio.sleep(0)


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _array(*items: bytes) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(map(_bulk, items))
