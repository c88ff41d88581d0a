"""
The two stores against each other: what a universe did to SQLite is done to Redis, call by call, and must come to the
same.

Two stores of their own pace would never see the same order of steps, so the order is taken from one and given to the
other: each call at its moment, with its arguments. Compared are the answers and, at the end, every row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from gateway.contract.errors import StoreError
from gateway.engine.lifecycle import reduce
from gateway.store.protocol import Applied, CreateResult, Reduce
from gateway.store.redis import RedisStore
from gateway.testing import START
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.play import play
from tests.chaos.universe.redis_store import Exchange, InlineLine, Server, server
from tests.chaos.universe.run import seeds
from tests.chaos.universe.universe import Record, rows_of, snapshot

PARTS = ("prediction", "events", "ledger", "deliveries")


class HandClock:
    """A `contract.clock.Clock` that is set to each call's moment."""

    seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    wall = now

    def monotonic(self) -> float:
        return self.seconds


def differences(seed: int, universes: int) -> Iterator[str]:
    """A sentence for each universe in which the stores come to differ."""
    with server() as redis:
        for number in seeds(seed, universes):
            said = difference(number, redis)
            if said is not None:
                yield f"universe {number}: {said}"


def difference(seed: int, redis: Server, *, theirs: Reduce = reduce) -> str | None:
    """The first thing in which they differ. `theirs` is the lifecycle that Redis runs: for a test, a wrong one."""
    record = Record()
    play(seed, record=record)
    loop = UniverseLoop(Random(seed))
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(loop.world.spawn(_again(record, redis, loop, theirs)))
    finally:
        loop.bury()
        loop.close()
        asyncio.set_event_loop(None)


async def _again(record: Record, redis: Server, loop: UniverseLoop, theirs: Reduce) -> str | None:
    clock = HandClock()
    line = InlineLine(Exchange(redis, None, loop), clock)
    store = await RedisStore.open(line, reduce=theirs, snapshot=snapshot, clock=clock)
    for number, step in enumerate(record.steps):
        clock.seconds = step.at
        result, error = None, None
        try:
            result = await getattr(store, step.verb)(*step.args, **step.named)
        except (StoreError, KeyError, ValueError) as raised:
            error = raised
        if type(error) is not type(step.error) or _sum(step.verb, result) != _sum(step.verb, step.result):
            here, there = error or _sum(step.verb, result), step.error or _sum(step.verb, step.result)
            return f"call {number}, {step.verb} {step.args}: redis says {here}, sqlite said {there}"
    found = await rows_of(store, list(record.rows))
    for id, kept in record.rows.items():
        for name, here, there in zip(PARTS, found[id], kept, strict=True):
            if here != there:
                return f"{name} of {id}: redis has {here}, sqlite has {there}"
    await store.aclose()
    return None


def _sum(verb: str, result: Any) -> Any:
    """What of an answer has to be the same. Of several claimed, not their order."""
    if isinstance(result, CreateResult):
        return (result.outcome, result.prediction, result.lease)
    if isinstance(result, Applied):
        return (result.changed, result.prediction, result.effects)
    if verb == "claim_due":
        return {(held.prediction.id, held.lease, held.prediction.revision) for held in result or ()}
    if verb == "claim_deliveries":
        return {(one.id, one.fence, one.tries, one.body) for one in result or ()}
    return result
