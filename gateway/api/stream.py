"""
The server-sent events behind `urls.stream`: stored events only, resumable. Makes no events: the lifecycle does.

The address is the capability: npm's client sends no Authorization here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from gateway.api.context import Context
from gateway.api.exchange import Exchange, Reply
from gateway.api.refusal import missing
from gateway.api.route import Route
from gateway.contract.errors import PredictionUnreadable
from gateway.store.protocol import StoredEvent

STREAM_TYPE = b"text/event-stream; charset=utf-8"
COMMENT_SECONDS = 15.0  # Python's client gives up after 30 s of silence
BATCH = 500
NAMES = frozenset({"output", "logs", "error", "done"})  # Python's client raises on any other

_EVENT_ID = re.compile(r"\d{1,15}:(\d{1,15})", re.ASCII)
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)


async def stream(exchange: Exchange) -> Reply:
    return await stream_of(exchange, exchange.params["token"])


async def stream_of(exchange: Exchange, token: str) -> Reply:
    """The events from the beginning, or after `Last-Event-ID`. Raises NotFound for a token we did not give."""
    context = exchange.context
    id = await context.store.find_stream(token) if _TOKEN.fullmatch(token) else None
    if id is None:
        raise missing()
    match = _EVENT_ID.fullmatch((exchange.header(b"last-event-id") or "").strip())
    after = int(match.group(1)) if match else -1
    headers = (
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"access-control-allow-origin", b"*"),
    )
    return Reply(200, content_type=STREAM_TYPE, headers=headers, stream=events_of(context, id, after=after))


async def events_of(context: Context, id: str, *, after: int) -> AsyncIterator[bytes]:
    """One chunk for each batch of stored events; ends after `done`, or when the gateway is told to stop."""
    yield b": hi\n\n"
    silent_since = context.clock.monotonic()
    with context.engine.changes(id) as changes:
        while True:
            events = await context.store.events(id, after=after, limit=BATCH)
            if events:
                after = events[-1].sequence
                yield b"".join(event_bytes(event) for event in events if event.event in NAMES)
                silent_since = context.clock.monotonic()
                if any(event.event == "done" for event in events):
                    return
                continue
            if context.engine.is_draining:
                yield b"retry: 1000\n\n"  # come back, to whoever serves then
                return
            left = silent_since + COMMENT_SECONDS - context.clock.monotonic()
            if left > 0:
                await changes.wait(left)
                continue
            if await _is_over(context, id, after):
                return
            yield b": still here\n\n"
            silent_since = context.clock.monotonic()


async def _is_over(context: Context, id: str, after: int) -> bool:
    """Nothing will come any more: it has ended, and the reader has read (or claims to have read) beyond its events."""
    try:
        prediction = await context.store.get(id, owner=None)
    except PredictionUnreadable:
        return False  # whoever can read it will say that it is done
    return prediction is None or (prediction.is_terminal and prediction.events <= after + 1)


def event_bytes(event: StoredEvent) -> bytes:
    """A break in the text makes another `data:` line. Every event has an id: Python's client drops those without."""
    data = "".join(f"data: {line}\n" for line in _LINE_BREAK.split(event.data))
    return f"id: {int(event.at.timestamp())}:{event.sequence}\nevent: {event.event}\n{data}\n".encode()


ROUTES = (Route("/stream/{token}", {"GET": stream}),)
