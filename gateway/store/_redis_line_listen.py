"""The connection that hears what is published, kept up and looked after. What is said there is its hearer's affair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis import exceptions

from gateway.store._redis_fault import describe_loss
from gateway.store._redis_line_link import Wire, pack
from gateway.store._redis_line_node import Outfit
from gateway.store._redis_wire import HeardOn
from gateway.store.address import spell

log = logging.getLogger("turnout.store")

PING_SECONDS = 8.0  # of silence, then it is asked
SILENCE_SECONDS = 20.0  # then it is dead, whatever the kernel believes
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
_MOST_AT_ONCE = 500  # channels in one command


class Listener:
    """`places` says where it may be heard, in the order in which to try."""

    def __init__(
        self, outfit: Outfit, places: Callable[[], list[tuple[str, int]]], *, draw: Callable[[], float]
    ) -> None:
        self.ping_seconds = PING_SECONDS
        self.silence_seconds = SILENCE_SECONDS
        self._outfit = outfit
        self._places = places
        self._draw = draw
        self._channels: dict[str, None] = {}
        self._wire: Wire | None = None
        self._unconfirmed = 0  # channels of a new connection that are not subscribed to yet
        self._is_listening = False

    def subscribe(self, channel: str) -> None:
        self._channels[channel] = None
        if self._wire is not None:
            self._wire.write([pack("SUBSCRIBE", channel)])

    def unsubscribe(self, channel: str) -> None:
        if self._channels.pop(channel, channel) is None and self._wire is not None:
            self._wire.write([pack("UNSUBSCRIBE", channel)])

    async def listen(self, heard: HeardOn) -> None:
        if self._is_listening:
            raise RuntimeError("somebody listens already")
        self._is_listening = True
        pause, said = FIRST_PAUSE_SECONDS, ""
        try:
            while True:
                for host, port in self._places():
                    trouble = await self._listen_at(host, port, heard)
                    if trouble is None:
                        pause, said = FIRST_PAUSE_SECONDS, ""
                    elif trouble != said:
                        log.warning("%s; news of other gateways comes late", trouble)
                        said = trouble
                    await asyncio.sleep(pause * (0.5 + self._draw() / 2))
                    pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
        finally:
            self._is_listening = False

    async def _listen_at(self, host: str, port: int, heard: HeardOn) -> str | None:
        """Until it breaks. None if it had been heard; else why not."""
        wire = self._outfit.wire(host, port)
        try:
            async with asyncio.timeout(self._outfit.timeout_seconds):
                await wire.open()
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            wire.drop()
            return describe_loss(spell(host, port), error)
        except BaseException:
            wire.drop()
            raise
        has_heard = False
        try:
            self._wire = wire
            channels = list(self._channels)
            self._unconfirmed = len(channels)
            for begin in range(0, len(channels), _MOST_AT_ONCE):
                wire.write([pack("SUBSCRIBE", *channels[begin : begin + _MOST_AT_ONCE])])
            if not channels:
                heard(None, None)
                has_heard = True
            while True:
                answer = await self._take(wire)
                has_heard = self._tell(answer, heard) or has_heard
        except (exceptions.RedisError, OSError, TimeoutError, ValueError, RecursionError) as error:
            return None if has_heard else describe_loss(spell(host, port), error)
        finally:
            self._wire = None
            wire.drop()

    async def _take(self, wire: Wire) -> Any:
        """The next thing said. A connection that is silent though it was asked is dead: TimeoutError."""
        taking = asyncio.ensure_future(wire.take())
        try:
            done, _ = await asyncio.wait({taking}, timeout=self.ping_seconds)
            if not done:
                wire.write([pack("PING")])
                done, _ = await asyncio.wait({taking}, timeout=self.silence_seconds - self.ping_seconds)
            if not done:
                raise TimeoutError
            return taking.result()
        finally:
            if not taking.done():
                taking.cancel()
                await asyncio.wait({taking})

    def _tell(self, answer: Any, heard: HeardOn) -> bool:
        """Whether the connection is known to be whole now."""
        if isinstance(answer, exceptions.RedisError):
            raise answer
        if not isinstance(answer, list) or len(answer) != 3:  # a PONG
            return False
        kind, channel, content = answer
        if kind == b"message":
            heard(channel.decode(), content)
        elif kind == b"subscribe" and self._unconfirmed:
            self._unconfirmed -= 1
            if self._unconfirmed == 0:
                heard(None, None)
                return True
        elif kind == b"subscribe" and channel.decode() in self._channels:
            heard(channel.decode(), None)
        return False
