"""Callers' webhook receivers, and a sender that brings them what the outbox has. Keeps what came, for the judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from gateway.contract.host import host_of
from gateway.delivery.webhook import Outcome, Result
from gateway.store.protocol import Delivery
from tests.chaos.universe.fate import Fate
from tests.chaos.universe.loop import Process, UniverseLoop
from tests.chaos.universe.network import Network

TIMEOUT_SECONDS = 15.0
HOSTS = ("one.example", "two.example", "three.example", "dead.example")
DEAD = "dead.example"  # nobody will ever be there


class Receipt(msgspec.Struct, kw_only=True, frozen=True):
    at: float
    delivery: Delivery
    status: int | None  # what was answered, whether or not it was heard


class Receivers:
    """All of them. `came(delivery)` is told as the bytes arrive."""

    def __init__(
        self, loop: UniverseLoop, fate: Fate, network: Network, *, came: Callable[[Delivery, str], None]
    ) -> None:
        self.loop = loop
        self.fate = fate
        self.network = network
        self.came = came
        self.answered: dict[str, list[int]] = {}  # by delivery: the statuses it was answered with

    def take(self, delivery: Delivery, who: str, status: int) -> None:
        self.came(delivery, who)
        self.answered.setdefault(delivery.id, []).append(status)


class Post:
    """What a gateway sends its webhooks with, in the place of `gateway.delivery.webhook.Sender`."""

    def __init__(self, receivers: Receivers, process: Process) -> None:
        self._receivers = receivers
        self._process = process

    async def send(self, delivery: Delivery, *, traceparent: str = "") -> Outcome:
        begun, loop = self._receivers.loop.time(), self._receivers.loop
        result, status, retry_after = await self._try(delivery, host_of(delivery.url))
        return Outcome(
            result=result,
            seconds=loop.time() - begun,
            status=status,
            error=None if status is not None else "no answer",
            retry_after_seconds=retry_after,
        )

    async def _try(self, delivery: Delivery, host: str) -> tuple[Result, int | None, float | None]:
        receivers, fate, loop = self._receivers, self._receivers.fate, self._receivers.loop
        fault = fate.draw("receipt")
        there = receivers.network.seconds(self._process.name, host)
        if host == DEAD or fault == "F19 receiver down":
            await asyncio.sleep(fate.between(0.0, 0.2))
            return Result.UNREACHED, None, None
        if there >= TIMEOUT_SECONDS:
            await asyncio.sleep(TIMEOUT_SECONDS)
            return Result.UNREACHED, None, None
        status = {"F19 receiver redirects": 302, "F19 receiver gone": 410, "F19 receiver answers 500": 500}.get(
            fault or "", 200
        )
        name = self._process.name
        if status == 500:
            status = fate.pick(500, 503, 429, 404)
        loop.call_later(there, lambda: receivers.take(delivery, name, status), context=loop.world.context)
        if fault == "F19 receiver slow":
            await asyncio.sleep(TIMEOUT_SECONDS)
            return Result.UNREACHED, None, None
        if fault == "F19 receiver loses its answer":
            await asyncio.sleep(there + fate.between(0.0, 1.0))
            return Result.UNREACHED, None, None
        # An answer that drips is cut off once its status is there.
        await asyncio.sleep(there + (2.0 if fault == "F19 receiver drips" else fate.between(0.0, 0.1)))
        if 200 <= status < 300:
            return Result.DELIVERED, status, None
        if status == 410:
            return Result.GONE, status, None
        retry_after = fate.pick(None, 3.0, 600.0) if status in (429, 503) else None
        return (Result.UNREACHED if status >= 429 else Result.REFUSED), status, retry_after
