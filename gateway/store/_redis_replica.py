"""How replicas that share a Redis hear of each other. What is published are hints; the truth is in the rows."""

from __future__ import annotations

import asyncio
import logging

from gateway.contract.errors import StoreOverloaded
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import load
from gateway.store.protocol import Heard

log = logging.getLogger("turnout.store")

EXCHANGE = load("exchange")
MOST_NOTE_BYTES = 4 * 1024 * 1024


class Replicas:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys
        self._origin = str(seat.origin).encode()
        self._watched: dict[str, int] = {}
        self._held: set[str] = set()  # watched, and subscribed to from now on
        self._heard: Heard | None = None

    async def follow(self, worker: str, heard: Heard) -> None:
        channel = self._keys.holders + worker
        self._heard = heard
        self._seat.line.subscribe(channel)
        try:
            await self._seat.line.listen(self._hear)
        finally:
            self._seat.line.unsubscribe(channel)
            self._heard = None
            self._held.clear()

    def watch(self, id: str) -> None:
        self._watched[id] = count = self._watched.get(id, 0) + 1
        if count == 1:
            self._seat.line.subscribe(self._keys.changes + id)
        elif id in self._held:
            # It holds already; whoever watches it only now has not looked yet.
            asyncio.get_running_loop().call_soon(self._tell, id)

    def unwatch(self, id: str) -> None:
        left = self._watched.get(id, 0) - 1
        if left > 0:
            self._watched[id] = left
        elif left == 0:
            del self._watched[id]
            self._held.discard(id)
            self._seat.line.unsubscribe(self._keys.changes + id)

    def _hear(self, channel: str | None, message: bytes | None) -> None:
        if channel is None:
            self._held = set(self._watched)
            self._tell(None)
        elif channel.startswith(self._keys.changes):
            id = channel[len(self._keys.changes) :]
            if message is None and id in self._watched:
                self._held.add(id)
            if message != self._origin:
                self._tell(id)
        elif message is not None:
            origin, _, told = message.partition(b" ")
            if origin != self._origin:
                self._tell(told.decode(errors="replace"))

    def _tell(self, id: str | None) -> None:
        if self._heard is None:
            return
        try:
            self._heard(id)
        except Exception:
            log.exception("what was heard of a change came to nothing")

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        if len(body) > MOST_NOTE_BYTES:
            raise StoreOverloaded(f"a note of {len(body):,} bytes is too long for the others to read each second")
        lasts = round(lifetime_seconds * 1_000_000)
        found: list[bytes] = await self._seat.run(EXCHANGE, [self._keys.first.topic(topic)], [worker, lasts, body])
        return found
