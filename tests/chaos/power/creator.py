"""A process to be looked at: accepts predictions one after the other, and says so each time, on standard output."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.contract.store import toy


async def main(path: Path, predictions: int) -> None:
    store = await SqliteStore.open(path, reduce=toy.reduce, snapshot=toy.snapshot, clock=ManualClock(toy.START))
    for number in range(predictions):
        prediction = toy.prediction()
        await store.create(prediction, worker="w")
        os.write(1, f"told {number} {prediction.id}\n".encode())
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
