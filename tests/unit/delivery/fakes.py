"""A clock that stands still, a store that keeps deliveries in a dict, receivers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreUnavailable
from gateway.contract.host import host_of
from gateway.delivery.outbox import Outbox
from gateway.store.protocol import GIVEN_BACK, Delivery
from tests.serving import serving

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FakeStore:
    """The outbox verbs, with leases and fences as the protocol has them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, Delivery] = {}
        self.is_out = False
        self.changed = asyncio.Event()
        self.refusals = 0
        self.refused = asyncio.Event()
        self.settings: dict[str, str] = {}

    def put(self, number: int, url: str, **fields: Any) -> str:
        given = {
            "id": f"msg_{number:026d}",
            "prediction": f"p{number}",
            "owner": "ada",
            "url": url,
            "event": "completed",
            "sequence": 0,
            "body": b'{"number":%d}' % number,
            "created_at": self.clock.now(),
            "due_at": self.clock.now(),
            "is_final": True,
        } | fields
        delivery = Delivery(**given)
        self.rows[delivery.id] = delivery
        return delivery.id

    def _check(self) -> None:
        if self.is_out:
            self.refusals += 1
            self.refused.set()
            raise StoreUnavailable("out")

    async def claim_deliveries(
        self, worker: str, *, limit: int, lease_seconds: float, exclude_lanes: frozenset[tuple[str, str]] = frozenset()
    ) -> list[Delivery]:
        await asyncio.sleep(0)
        self._check()
        now = self.clock.now()
        due = [
            row
            for row in self.rows.values()
            if row.ended is None and row.due_at <= now and (row.owner, host_of(row.url)) not in exclude_lanes
        ]
        due.sort(key=lambda row: row.due_at)
        claimed = [msgspec.structs.replace(row, fence=row.fence + 1) for row in due[:limit]]
        for row in claimed:
            self.rows[row.id] = msgspec.structs.replace(row, due_at=now + timedelta(seconds=lease_seconds))
        return claimed

    async def release_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        await asyncio.sleep(0)
        self._check()
        for one in deliveries:
            row = self.rows[one.id]
            if row.fence == one.fence:
                fence = row.fence + GIVEN_BACK - 1
                self.rows[row.id] = msgspec.structs.replace(row, fence=fence, due_at=one.due_at)
        self.changed.set()

    async def finish_delivery(
        self,
        delivery: Delivery,
        *,
        ended: str | None,
        due_at: datetime | None = None,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        await asyncio.sleep(0)
        self._check()
        row, fence = self.rows[delivery.id], delivery.fence
        if row.fence != fence:
            return False
        self.rows[row.id] = msgspec.structs.replace(
            row, tries=row.tries + 1, fence=fence + 1, ended=ended, due_at=due_at or row.due_at,
            last_status=status, last_error=error,
        )  # fmt: skip
        self.changed.set()
        return True

    async def setting(self, name: str, default: str) -> str:
        self._check()
        return self.settings.setdefault(name, default)

    async def swap_setting(self, name: str, value: str) -> str | None:
        self._check()
        before = self.settings.get(name)
        self.settings[name] = value
        return before

    async def next_delivery_at(self) -> datetime | None:
        self._check()
        return min((row.due_at for row in self.rows.values() if row.ended is None), default=None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a recorded try that makes `holds` true."""
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


class Received(msgspec.Struct):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def saying(status: str, *headers: str, body: bytes = b"") -> Answer:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return answer


class Receiver:
    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = [saying("200 OK")]  # one after the other, the last for ever
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=abc"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._exchange(reader, writer)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(method, path, headers, body)
        self.received.append(received)
        await self.answers[min(len(self.received), len(self.answers)) - 1](received, writer)
        await writer.drain()


@contextlib.asynccontextmanager
async def receiving(*answers: Answer) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.answers = list(answers) or receiver.answers
    async with serving(receiver.serve) as receiver.port:
        yield receiver


@contextlib.asynccontextmanager
async def running(outbox: Outbox, *, known: Iterable[str] = (), drain_seconds: float = 0.0) -> AsyncIterator[Outbox]:
    """It claims and sends until the end. `known` are hosts that have answered before."""
    for host in known:
        outbox._judge._remember_host(host)
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        await outbox.drain(drain_seconds)
        async with asyncio.timeout(5):
            await task
