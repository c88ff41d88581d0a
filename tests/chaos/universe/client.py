"""One gateway's connections to the houses of a universe, as a driver has them. What a house does is its own affair."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from gateway.contract.errors import NotSent, OutcomeUnknown, PollFailed, SendWithheld
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Cancellation, Sighting, Unanswered
from gateway.testing import Actor, recognise
from tests.chaos.universe.fate import SUBMIT_SECONDS, SUBMITS, Submit
from tests.chaos.universe.loop import Process
from tests.chaos.universe.provider import House, Job

T = TypeVar("T")


class Client(Actor):
    """A `contract.provider.Driver`: one gateway's connections to a house. They break with the gateway."""

    def __init__(self, house: House, process: Process) -> None:
        super().__init__(house.name, house.capabilities)
        self._house = house
        self._process = process

    async def submit(self, call: Call, *, on_fact: Any = None, may_send: Callable[[], bool] | None = None) -> Fact:
        house, fate, loop = self._house, self._house.fate, self._house.loop
        if house.network.is_down(self.name):
            await asyncio.sleep(fate.between(0.0, 0.1))
            raise NotSent("connection refused")
        fault = fate.draw("submit")
        plan = SUBMITS[fault] if fault is not None else Submit()
        house.told(
            call.prediction, self._process.name, f"submits attempt {call.attempt} to {self.name}: {fault or 'well'}"
        )
        if plan.error is not None and not plan.is_sent:
            await asyncio.sleep(fate.between(*plan.answer))
            raise plan.error()
        if may_send is not None and not may_send():
            raise SendWithheld
        taken: asyncio.Future[Job | None] = loop.create_future()

        def arrive() -> None:
            job = house.take(call, plan.starts)
            if not taken.done():
                taken.set_result(job)
            elif job is not None:
                house.broken_off(job)

        begun = loop.time()
        loop.call_later(house.network.seconds(self._process.name, self.name), arrive, context=loop.world.context)
        holds = "queue" not in self.capabilities.modes
        limit = call.deadline_seconds if holds else min(SUBMIT_SECONDS, call.deadline_seconds)
        try:
            async with asyncio.timeout(limit):
                job = await taken
        except TimeoutError:
            raise OutcomeUnknown("no answer came in time") from None
        forget = self._process.on_crash(lambda: house.broken_off(job)) if job is not None and holds else None
        try:
            return await self._answer(job, plan, begun + limit, holds, on_fact)
        except asyncio.CancelledError:
            if job is not None and holds:
                house.broken_off(job)
            raise
        finally:
            if job is not None:
                job.is_answered = True
            if forget is not None:
                forget()

    async def _answer(self, job: Job | None, plan: Submit, until: float, holds: bool, on_fact: Any) -> Fact:
        house, loop = self._house, self._house.loop
        seconds = house.fate.between(*plan.answer) + house.network.seconds(self.name, self._process.name)
        left = until - loop.time()
        if seconds >= left:
            await asyncio.sleep(max(0.0, left))
            raise OutcomeUnknown("no answer came in time")
        await asyncio.sleep(seconds)
        if plan.error is not None:
            if job is not None and plan.streams is not None and self._streams:
                await self._stream(job, plan.streams, until, on_fact)
            raise plan.error()
        if job is None:
            raise OutcomeUnknown("the connection broke")
        if holds and not await self._hold(job, until, on_fact):
            raise OutcomeUnknown("no answer came in time")
        return house.fact(job)

    async def _stream(self, job: Job, seconds: tuple[float, float], until: float, on_fact: Any) -> None:
        """For so long once it runs, and then the line breaks: more often soon than late."""
        shortest, longest = seconds
        fate, begins_at = self._house.fate, max(self._house.loop.time(), job.runs_at)
        breaks_at = begins_at + fate.between(shortest, fate.between(shortest, longest))
        await self._hold(job, min(until, breaks_at), on_fact)
        self._house.broken_off(job)

    @property
    def _streams(self) -> bool:
        return "stream" in self.capabilities.modes

    async def _hold(self, job: Job, until: float, on_fact: Any) -> bool:
        """
        Until the job is over; False: it was not by then.

        What is streamed on the way does not name the job, as with many: there is nothing to ask by before the end.
        """
        loop, house = self._house.loop, self._house
        streams = on_fact is not None and self._streams
        while not job.is_over(loop.time()):
            left = until - loop.time()
            if left <= 0:
                return False
            until_news = min(job.ends_at, _next_step(job, loop.time()) if streams else math.inf) - loop.time()
            await asyncio.sleep(min(left, max(0.01, until_news)))
            if streams and not job.is_over(loop.time()) and job.phase(loop.time()) is Phase.RUNNING:
                await on_fact(replace(house.fact(job), handle=None))
        return True

    async def poll(self, handle: dict[str, str]) -> Fact:
        return await self._ask(lambda: self._house.look(handle["id"]))

    async def cancel(self, handle: dict[str, str]) -> Cancellation:
        job = self._house.jobs.get(handle["id"])
        if job is not None:
            job.cancels.append(self._house.loop.time())
        return await self._ask(lambda: self._house.stop(handle["id"]))

    async def _ask(self, act: Callable[[], T]) -> T:
        """There and back; what the house does, it does whether or not we live to hear of it."""
        house, loop = self._house, self._house.loop
        there = house.network.seconds(self._process.name, self.name)
        back = house.network.seconds(self.name, self._process.name)
        if there > 10 or house.network.is_down(self.name):
            await asyncio.sleep(min(there, 10.0))
            raise PollFailed("nobody answered")
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            try:
                result = act()
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        loop.call_later(there, arrive, context=loop.world.context)
        try:
            result = await answer
        finally:
            if answer.done() and not answer.cancelled():
                answer.exception()
        if back > 10:
            await asyncio.sleep(10.0)
            raise PollFailed("no answer came in time")
        await asyncio.sleep(back)
        return result

    async def find(self, submits: Sequence[Unanswered]) -> list[Sighting]:
        if not self.capabilities.lists:
            return [()] * len(submits)
        found = recognise(submits, await self._ask(self._house.list))
        for jobs in found:
            if jobs:
                self._house.fate.count("found in a list")
        return found


def _next_step(job: Job, now: float) -> float:
    """When there is something to stream: as it begins to run, and then each second."""
    return job.runs_at if job.runs_at > now else now + 1.0
