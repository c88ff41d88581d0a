"""What changes, as server-sent events for everybody who looks: coalesced, and bounded for each. Stores nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError, Throttled
from gateway.contract.prediction import Prediction
from gateway.dashboard.journal import Journal
from gateway.dashboard.shape import Overview, Row

MOST_LISTENERS = 32
MOST_QUEUED_BYTES = 2_000_000  # of one listener; who has more waiting is dropped
MOST_ROWS = 300  # in one tick; of more predictions the oldest changes are left out
MOST_HAPPENED = 100
TICK_SECONDS = 0.25
OVERVIEW_SECONDS = 1.0
COMMENT_SECONDS = 15.0
MOST_SHARE = 0.05  # of the time that goes into overviews
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_log = logging.getLogger("turnout.operations")


class Listener:
    """One reader's queue. `put` never waits: a reader who does not keep up is told so, and let go."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()
        self.is_closed = False

    def put(self, chunk: bytes) -> None:
        if self.is_closed:
            return
        if self._queue and self._bytes + len(chunk) > MOST_QUEUED_BYTES:
            self._queue.clear()
            self.close(event_bytes("dropped", {"reason": "you read too slowly: connect again"}))
            return
        self._queue.append(chunk)
        self._bytes += len(chunk)
        self._woken.set()

    def close(self, last: bytes) -> None:
        self.is_closed = True
        self._queue.append(last)
        self._woken.set()

    async def next(self) -> bytes | None:
        """All that waits; None once it is closed and read out."""
        while not self._queue:
            if self.is_closed:
                return None
            self._woken.clear()
            await self._woken.wait()
        chunk = b"".join(self._queue)
        self._queue.clear()
        self._bytes = 0
        return chunk


class Feed:
    """
    One for all listeners: what is sent is made once. Works only while somebody listens.

    `tick` is the work; it is called every quarter of a second. The overview is sent at most once a second, and only
    if more than the time has changed.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        overview: Callable[[], Awaitable[Overview]],
        row: Callable[[Prediction], Row],
        is_draining: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._overview = overview
        self._row = row
        self._is_draining = is_draining
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._changed: dict[str, Prediction] = {}
        self._happened = 0
        self._shown: Overview | None = None  # the last one, without its time
        self._overview_at = 0.0
        self._silent_since = 0.0
        self._ticking: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        return len(self._listeners)

    def listen(self) -> AsyncIterator[bytes]:
        """Chunks of events until the reader is dropped or the gateway drains. Raises Throttled for one too many."""
        if len(self._listeners) >= MOST_LISTENERS:
            raise Throttled(f"{MOST_LISTENERS} others are listening, which is the limit", retry_after_seconds=10)
        return self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        listener = Listener()
        self._join(listener)
        try:
            listener.put(b": hi\n\n" + event_bytes("overview", await self._overview()))
            while (chunk := await listener.next()) is not None:
                yield chunk
        finally:
            self._leave(listener)

    async def tick(self) -> None:
        """Tell everybody what has changed since the last time."""
        if self._is_draining():
            for listener in self._listeners:
                listener.close(b"retry: 1000\n\n" + event_bytes("dropped", {"reason": "the gateway is stopping"}))
            return
        now = self._clock.monotonic()
        changed, self._changed = self._changed, {}
        events = [event_bytes("prediction", self._row(prediction)) for prediction in changed.values()]
        timeline = self._journal.timeline
        if timeline.last > self._happened:
            happened = timeline.newest(MOST_HAPPENED, after=self._happened)
            self._happened = timeline.last
            events += [event_bytes("happened", one) for one in reversed(happened)]
        if now >= self._overview_at:
            events += await self._new_overview()
            # With very many models or open predictions it comes less often: it must not take the loop from callers.
            spent = self._clock.monotonic() - now
            self._overview_at = now + max(OVERVIEW_SECONDS, spent / MOST_SHARE)
        if events:
            self._silent_since = now
        elif now - self._silent_since >= COMMENT_SECONDS:
            self._silent_since = now
            events = [b": still here\n\n"]
        if events:
            chunk = b"".join(events)
            for listener in self._listeners:
                listener.put(chunk)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _new_overview(self) -> list[bytes]:
        overview = await self._overview()
        timeless = replace(overview, now=_EPOCH)
        if timeless == self._shown:
            return []
        self._shown = timeless
        return [event_bytes("overview", overview)]

    def _changes(self, prediction: Prediction) -> None:
        self._changed.pop(prediction.id, None)
        self._changed[prediction.id] = prediction
        if len(self._changed) > MOST_ROWS:
            del self._changed[next(iter(self._changed))]

    def _join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._ticking is None:
            self._happened = self._journal.timeline.last
            self._silent_since = self._clock.monotonic()
            self._shown = None
            self._journal.watch = self._changes
            self._ticking = asyncio.create_task(self._tick_on(), name="turnout-feed")

    def _leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
            self._journal.watch = None
            self._changed = {}

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except StoreError as error:
                _log.warning("the overview cannot be made: %s", error)
            except Exception:
                _log.exception("the live view stumbled; it goes on")


def event_bytes(event: str, data: Any) -> bytes:
    """JSON has no line breaks of its own: one `data:` line."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))
