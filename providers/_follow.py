"""Follows one stream of server-sent events: bytes in, facts out, not too often. Not what the events mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from gateway.contract.clock import Clock
from gateway.contract.errors import OutcomeUnknown, ProviderFailure
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import EventReader, ServerSentEvent
from providers._bound import bounded
from providers._reading import Malformed, read_object
from providers._sse import EventParser, EventTooLarge

TELL_SECONDS = 0.05  # facts are cumulative: a listener misses nothing by hearing only the newest

OnFact = Callable[[Fact], Awaitable[None]]
_T = TypeVar("_T")


class Ask(Protocol):
    """Calls an adapter's verb: its failures come out as they are, anything else as `otherwise`."""

    def __call__(self, otherwise: type[ProviderFailure], verb: Callable[..., _T], *args: Any) -> _T: ...


async def follow(
    chunks: AsyncGenerator[bytes, None], reader: EventReader, *, on_fact: OnFact | None, clock: Clock, ask: Ask
) -> Fact:
    """
    The fact the stream ends with. Returns at the first fact that is an end, without waiting for the connection's.

    Before a failure in the stream is raised or returned, the newest fact before it is told.
    """
    parser = EventParser()
    listener = _Listener(on_fact, clock)
    pending: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(_next(chunks))
            done, _ = await asyncio.wait((pending,), timeout=listener.due_in_seconds())
            if done:
                chunk = pending.result()
                pending = None
                for event in _last(parser) if chunk is None else _feed(parser, chunk):
                    fact = ask(OutcomeUnknown, reader.read, event)
                    if fact is not None and fact.phase.is_end:
                        if fact.phase is not Phase.SUCCEEDED:  # what was made before is all that there will be
                            await listener.tell()
                        return fact
                    listener.newest = fact or listener.newest
                if chunk is None:
                    return ask(OutcomeUnknown, reader.end)
            if not done or listener.is_due():
                await listener.tell()
    except ProviderFailure:
        await listener.tell()
        raise
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


def _feed(parser: EventParser, chunk: bytes) -> list[ServerSentEvent]:
    try:
        return parser.feed(chunk)
    except EventTooLarge as error:
        raise OutcomeUnknown(f"the stream cannot be read: {error}") from None


def _last(parser: EventParser) -> list[ServerSentEvent]:
    """
    The event that the stream ended in, where it is seen to be whole: one without a name, and an object of JSON.

    LitServe (0.2) says so of an error in the midst of a stream, and forgets the blank line that would end the event.
    """
    event = parser.end()
    if event is None or event.event != "message":
        return []
    try:
        read_object(event.data)
    except Malformed:
        return []
    return [event]


async def _next(chunks: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(chunks, None)


class _Listener:
    def __init__(self, on_fact: OnFact | None, clock: Clock) -> None:
        self._on_fact = on_fact
        self._clock = clock
        self._told_at = float("-inf")
        self.newest: Fact | None = None  # not told yet

    def due_in_seconds(self) -> float | None:
        if self.newest is None or self._on_fact is None:
            return None
        return max(0.0, self._told_at + TELL_SECONDS - self._clock.monotonic())

    def is_due(self) -> bool:
        return self.due_in_seconds() == 0.0

    async def tell(self) -> None:
        if self.newest is None or self._on_fact is None:
            return
        fact, self.newest = self.newest, None
        await self._on_fact(bounded(fact))
        self._told_at = self._clock.monotonic()
