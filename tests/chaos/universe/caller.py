"""Callers: they post until they are accepted, hang up, cancel, wait, and read streams, by whichever gateway answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, TypeVar

from gateway.api.stream import events_of
from gateway.contract.clock import derived_id
from gateway.contract.errors import CallbackForged, NotFound, StoreError
from gateway.contract.prediction import Prediction, Request, WebhookEvent
from gateway.store.protocol import Created, CreateResult
from tests.chaos.universe.fate import Fate
from tests.chaos.universe.judge import Judge
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.receiver import DEAD, HOSTS
from tests.chaos.universe.replica import MODEL, VERSION, Broken, Replica

T = TypeVar("T")

PATIENCE_SECONDS = 10.0  # a client hangs up on a gateway that is silent for so long
_EVENT = re.compile(r"id: \d+:(\d+)\nevent: (\w+)\n")


class Reading:
    """What one reader of a stream has seen."""

    def __init__(self, prediction: str) -> None:
        self.prediction = prediction
        self.seen: list[tuple[int, str]] = []

    @property
    def is_over(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] == "done"


class Callers:
    """`accepted` are the predictions somebody holds a 201 for; `readings` what readers of streams have seen."""

    def __init__(self, loop: UniverseLoop, fate: Fate, judge: Judge, replicas: list[Replica]) -> None:
        self.accepted: dict[str, None] = {}
        self.readings: list[Reading] = []
        self._loop = loop
        self._fate = fate
        self._judge = judge
        self._replicas = replicas
        self._tasks: list[asyncio.Task[None]] = []

    async def post_all(self, count: int, over_seconds: float) -> None:
        """Each at a time of its own, and to the end of whatever its caller has in mind."""
        for number in range(count):
            at = self._fate.between(0.0, over_seconds)
            self._tasks.append(self._loop.world.spawn(self._live(number, at)))
        await asyncio.gather(*self._tasks)

    async def callback(self, url: str, headers: dict[str, str], body: bytes) -> str:
        """A provider's POST: what the gateway answers. Raises ConnectionError for 503 and worse: it comes again."""
        token = url.rpartition("/cb/")[2]

        async def serve(replica: Replica) -> str:
            assert replica.engine is not None
            try:
                return await replica.engine.callback(token, headers, body)
            except NotFound:
                return "404"
            except CallbackForged:
                return "401"
            except StoreError:
                raise Broken("it answered 503") from None

        return await self._ask(serve, PATIENCE_SECONDS)

    # -- one caller --------------------------------------------------------------------------------------------------

    async def _live(self, number: int, at: float) -> None:
        fate = self._fate
        request, cancel_after, key = self._request(number)
        await asyncio.sleep(at)
        prediction = await self._post(request, cancel_after, key)
        id = prediction.id
        doings: list[Awaitable[None]] = []
        if fate.chance(0.15):
            doings.append(self._cancel(id))
        if fate.chance(0.2):
            doings.append(self._wait(id))
        if fate.chance(0.3):
            doings.append(self._read(id))
        if key is not None and fate.chance(0.4):
            doings.append(self._repeat(request, cancel_after, key, id))
        if doings:
            await asyncio.gather(*doings)

    def _request(self, number: int) -> tuple[Request, float | None, str | None]:
        fate = self._fate
        cancel_after = fate.pick(None, None, None, 8.0, 25.0)
        host = DEAD if fate.chance(0.04) else fate.pick(*HOSTS[:-1])
        request = Request(
            model=MODEL,
            version=VERSION,
            is_pinned=False,
            input={"number": number},
            webhook=f"https://{host}/hook" if fate.chance(0.8) else None,
            webhook_events=fate.pick(
                tuple(WebhookEvent), (WebhookEvent.COMPLETED,), (WebhookEvent.START, WebhookEvent.COMPLETED)
            ),
            wants_deadline=cancel_after is not None,
            file_output=fate.chance(0.6),
        )
        return request, cancel_after, f"key-{number}" if fate.chance(0.5) else None

    async def _post(self, request: Request, cancel_after: float | None, key: str | None) -> Prediction:
        """As a client does: again, until it is accepted."""

        async def serve(replica: Replica) -> CreateResult:
            assert replica.engine is not None
            return await replica.engine.create(
                request,
                owner="acme",
                cancel_after_seconds=cancel_after,
                idempotency_key=key,
                body_hash=derived_id(str(request.input["number"])),
            )

        while True:
            patience = PATIENCE_SECONDS
            if not self._fate.is_over and self._fate.chance(0.03):
                patience = self._fate.between(0.0, 0.02)
                self._fate.count("F24 caller disconnects")
            try:
                result = await self._ask(serve, patience)
            except (StoreError, Broken):
                await asyncio.sleep(self._fate.between(0.2, 1.0))
                continue
            if result.outcome is Created.CONFLICT:
                self._judge.breach("201", result.prediction.id, f"{key} is said to conflict with itself")
            if result.prediction.id not in self._judge.rows:
                self._judge.breach("I1", result.prediction.id, "it was accepted, and nobody committed it")
            self.accepted[result.prediction.id] = None
            return result.prediction

    async def _repeat(self, request: Request, cancel_after: float | None, key: str, id: str) -> None:
        await asyncio.sleep(self._fate.between(0.0, 20.0))
        self._fate.count("caller repeats with its key")
        again = await self._post(request, cancel_after, key)
        if again.id != id:
            self._judge.breach("201", id, f"the same key and body made {again.id}")

    async def _cancel(self, id: str) -> None:
        await asyncio.sleep(self._fate.pick(0.0, self._fate.between(0.0, 0.3), self._fate.between(0.0, 12.0)))

        async def serve(replica: Replica) -> Prediction | None:
            assert replica.engine is not None
            return await replica.engine.cancel(id, owner="acme")

        found = await self._insist(serve)
        self._fate.count("F24 cancel")
        self._look(found, id, "a caller who cancels")

    async def _wait(self, id: str) -> None:
        """`Prefer: wait`, and a hand that may hang up."""

        async def serve(replica: Replica) -> Prediction | None:
            assert replica.engine is not None
            return await replica.engine.wait(id, seconds=30.0)

        patience = 40.0
        if self._fate.chance(0.3):
            patience = self._fate.between(0.0, 5.0)
            self._fate.count("F24 caller disconnects")
        try:
            self._look(await self._ask(serve, patience), id, "a caller who waits")
        except (StoreError, Broken):
            return
        self._fate.count("caller waits")

    async def _read(self, id: str) -> None:
        """Server-sent events to the end, by as many connections as it takes."""
        reading = Reading(id)
        self.readings.append(reading)
        while not reading.is_over:
            patience = self._fate.pick(60.0, 60.0, self._fate.between(0.0, 6.0))
            if reading.seen:
                self._fate.count("caller reads the stream again")
            try:
                await self._ask(lambda replica: self._stream(replica, reading), patience)
            except (StoreError, Broken):
                await asyncio.sleep(self._fate.between(0.1, 1.0))

    async def _stream(self, replica: Replica, reading: Reading) -> None:
        """One connection: what is written to it arrives at once."""
        after = reading.seen[-1][0] if reading.seen else -1
        context: Any = SimpleNamespace(engine=replica.engine, store=replica.wire, clock=replica.clock)
        async with aclosing(events_of(context, reading.prediction, after=after)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                for sequence, event in _EVENT.findall(chunk.decode()):
                    if reading.is_over or int(sequence) != len(reading.seen):
                        what = f"a reader was sent {event} {sequence} after {reading.seen[-3:]}"
                        self._judge.breach("I13", reading.prediction, what)
                    reading.seen.append((int(sequence), event))

    # -- by whichever gateway answers --------------------------------------------------------------------------------

    async def _ask(self, serve: Callable[[Replica], Any], patience: float) -> Any:
        """Raises Broken where nobody answers within `patience`, and whatever the gateway raises."""
        ready = [replica for replica in self._replicas if replica.is_serving and replica.process is not None]
        if not ready:
            await asyncio.sleep(self._fate.between(0.0, 0.2))
            raise Broken("connection refused")
        replica = self._fate.random.choice(ready)
        await asyncio.sleep(self._fate.between(0.0, 0.01))
        if not replica.is_serving:
            raise Broken("connection refused")
        try:
            async with asyncio.timeout(patience):
                return await replica.serve(serve(replica))
        except TimeoutError:
            raise Broken("nobody answered") from None

    async def _insist(self, serve: Callable[[Replica], Any]) -> Any:
        while True:
            try:
                return await self._ask(serve, PATIENCE_SECONDS)
            except (StoreError, Broken):
                await asyncio.sleep(self._fate.between(0.2, 1.0))

    def _look(self, prediction: Prediction | None, id: str, who: str) -> None:
        if prediction is None:
            self._judge.breach("I1", id, f"{who} was told that there is none")
        else:
            self._judge.seen(prediction, who)
