"""A process to be killed: writes to a store as fast as it can, and prints what was acknowledged, once it was."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from gateway.contract.clock import RandomIds, SystemClock
from gateway.contract.prediction import Prediction, Request
from gateway.store.sqlite import SqliteStore
from tests.contract.store import toy

CONCURRENCY = 24


def _say(prediction: Prediction) -> None:
    os.write(1, f"{prediction.id} {prediction.revision} {prediction.status}\n".encode())


async def _write(store: SqliteStore, ids: RandomIds) -> None:
    while True:
        now = datetime.now(UTC)
        prediction = Prediction(
            id=ids.prediction(),
            owner="alice",
            request=Request(
                model="a/b", version="a" * 64, is_pinned=False, input={"x": "y" * 300}, webhook="https://h.example/"
            ),
            created_at=now,
            deadline_at=now + timedelta(hours=1),
            stream_token=ids.token(),
        )
        _say((await store.create(prediction, worker="w")).prediction)
        for happening in (toy.begun(ids.token()), toy.said("some"), toy.succeeded("all")):
            _say((await store.apply(prediction.id, happening)).prediction)


async def main(path: str) -> None:
    store = await SqliteStore.open(path, reduce=toy.reduce, snapshot=toy.snapshot, clock=SystemClock())
    await store.beat("w", lease_seconds=3600)
    await asyncio.gather(*(_write(store, RandomIds()) for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
