"""What is erased is no longer in the file: not in a row, and not in what a row once was."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from gateway.contract.fact import DataRemoved, Happening
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Reduction
from tests.contract.store import toy
from tests.unit.store.conftest import OpenSqlite

SECRET = b"squeamish-ossifrage"


def reduce(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    if not isinstance(happening, DataRemoved):
        return toy.reduce(prediction, happening, now)
    request = replace(prediction.request, input={})
    return Reduction(prediction=replace(prediction, request=request, output=None, data_removed=True), is_open=False)


def text(part: str, characters: int) -> str:
    """Of a page or of many: such lie elsewhere in the file."""
    return f"{part} " + f"{SECRET.decode()} " * (characters // len(SECRET))


def copies(folder: Path) -> int:
    return sum(file.read_bytes().count(SECRET) for file in folder.iterdir())


async def test_a_closed_file_holds_no_copy_of_what_was_removed(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite(reduce=reduce)
    made: list[str] = []
    for size in (30, 3_000, 60_000):
        prediction = toy.prediction(input={"text": text("input", size)}, webhook="https://hooks.example/")
        made.append(prediction.id)
        await store.create(prediction)
        await store.apply(prediction.id, toy.begun(prediction.id))
        for part in ("first", "second"):
            # Each is written over the one before: what it leaves free must not keep it.
            await store.apply(prediction.id, toy.said(text(part, size // 2)))
        await store.apply(prediction.id, toy.succeeded(text("output", size)))
    while deliveries := await store.claim_deliveries("w", limit=10, lease_seconds=60):
        for delivery in deliveries:
            await store.finish_delivery(delivery, ended="delivered", status=200)
    await store.aclose()
    assert copies(path.parent) > 10_000  # inputs, outputs, events, deliveries: the test sees what it looks for

    store = await open_sqlite(reduce=reduce)
    for id in made:
        assert (await store.apply(id, DataRemoved())).changed
    assert copies(path.parent) > 0  # the log still has the pages as they were
    await store.aclose()
    assert copies(path.parent) == 0
