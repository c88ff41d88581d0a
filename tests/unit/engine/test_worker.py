"""The worker lets go of whatever it cannot drive: nothing is held by a living worker and driven by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from gateway.contract.errors import StoreUnavailable
from gateway.engine.worker import Worker
from gateway.store.protocol import Store


class Slow:
    """A store whose releases take their time."""

    def __init__(self) -> None:
        self.released: list[list[str]] = []
        self.entered = asyncio.Event()
        self.go = asyncio.Event()

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        self.entered.set()
        await self.go.wait()
        self.released.append(sorted(ids or ()))

    async def claim_due(self, worker: str, *, limit: int) -> list[Any]:
        return []


async def test_what_could_not_be_released_while_others_were_is_released_with_the_next_claim() -> None:
    store = Slow()
    worker = Worker("w", cast(Store, store), lambda prediction: cast(Any, None))
    worker._unreleased.add("first")
    claiming = asyncio.create_task(worker._claim())
    await store.entered.wait()
    worker._unreleased.add("second")  # its own release failed just now
    store.go.set()
    await claiming
    await worker._claim()
    assert store.released == [["first"], ["second"]]


async def test_a_release_that_fails_is_kept_for_later() -> None:
    class Out(Slow):
        async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
            raise StoreUnavailable("out")

    worker = Worker("w", cast(Store, Out()), lambda prediction: cast(Any, None))
    await worker._let_go("first")
    assert worker._unreleased == {"first"}
