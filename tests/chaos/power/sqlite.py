"""
The SQLite store on a disk that loses its power: one life of a store is recorded, and cut off at many moments of it.

What a ruin must be: a sound file, in which every prediction is whole, and all that was told is there.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from gateway.contract.prediction import Prediction, Status
from gateway.store import _database
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.chaos.power.disk import Loss, Ruin, Step, Sync, Told, Write, cut, lay_out
from tests.chaos.power.watch import Watch, watching
from tests.contract.store import toy

FILE = "turnout.db"
CLIENTS = 6
_CHECKPOINT_PAGES = 60  # so that a short life has many of them


class Recorded(NamedTuple):
    log: list[Step]
    commits: int


class Verdict(NamedTuple):
    cut: int
    loss: Loss
    told: int
    lost: int  # of what was told
    broken: str  # why it is no sound store; empty if it is


class Result(NamedTuple):
    verdicts: list[Verdict]
    seconds: float

    @property
    def cuts(self) -> int:
        return len(self.verdicts)

    @property
    def lost(self) -> int:
        return sum(verdict.lost for verdict in self.verdicts)

    @property
    def losing_cuts(self) -> int:
        return sum(verdict.lost > 0 for verdict in self.verdicts)

    @property
    def broken(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.broken]

    @property
    def told(self) -> int:
        return sum(verdict.told for verdict in self.verdicts)

    @property
    def losses(self) -> Counter[str]:
        return Counter(verdict.loss.value for verdict in self.verdicts)


def record(folder: Path, *, predictions: int, synchronous: str = "FULL", seed: int = 7) -> Recorded:
    """One life of a store, from an empty folder to its orderly end."""
    folder.mkdir(parents=True)
    connect = _database.Database.connect_writer

    def connect_writer(database: _database.Database) -> sqlite3.Connection:
        db = connect(database)
        db.execute(f"PRAGMA synchronous = {synchronous}")
        return db

    with (
        mock.patch.object(_database, "_CHECKPOINT_PAGES", _CHECKPOINT_PAGES),
        mock.patch.object(_database.Database, "connect_writer", connect_writer),
        watching(folder) as watch,
    ):
        commits = asyncio.run(_live(folder, watch, predictions, random.Random(seed)))
    return Recorded(watch.log, commits)


async def _live(folder: Path, watch: Watch, predictions: int, chance: random.Random) -> int:
    store = await SqliteStore.open(
        folder / FILE, reduce=toy.reduce, snapshot=toy.snapshot, clock=ManualClock(toy.START), max_queue=1_000
    )

    def tell(prediction: Prediction) -> None:
        watch.told(f"{prediction.id} {prediction.revision}")

    async def client(number: int) -> None:
        for index in range(number, predictions, CLIENTS):
            prediction = toy.prediction(
                webhook="https://hooks.example/", input={"text": "x" * chance.choice((10, 700, 9_000))}
            )
            tell((await store.create(prediction, idempotency_key=f"k{index}", worker="w")).prediction)
            for happening in (toy.begun(prediction.id), toy.said("y" * chance.choice((5, 6_000))), toy.succeeded()):
                if chance.random() < 0.9:
                    tell((await store.apply(prediction.id, happening)).prediction)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    commits = store.commits
    await store.aclose()
    return commits


def judge(
    recorded: Recorded, folder: Path, *, cuts: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> Result:
    """Cut it off at `cuts` seeded moments, and look at each ruin with the store's own code."""
    begun_at = time.monotonic()
    chance = random.Random(seed)
    moments = [chance.randint(0, len(recorded.log)) for _ in range(cuts)]
    verdicts: list[Verdict] = []
    for ruin in cut(recorded.log, moments, seed):
        place = folder / str(len(verdicts))
        lay_out(ruin, place)
        verdicts.append(asyncio.run(_look(ruin, place)))
        shutil.rmtree(place)
        progress(len(verdicts))
    return Result(verdicts, time.monotonic() - begun_at)


async def _look(ruin: Ruin, folder: Path) -> Verdict:
    lost, broken = 0, ""
    try:
        lost = await _lost(ruin, folder / FILE)
        broken = _unsound(folder / FILE)
    except Exception as error:  # whatever it is: a store must open and read after a power cut
        broken = f"{type(error).__name__}: {error}"
    return Verdict(ruin.cut, ruin.loss, len(ruin.told), lost, broken)


async def _lost(ruin: Ruin, path: Path) -> int:
    store = await SqliteStore.open(path, reduce=toy.reduce, snapshot=toy.snapshot, clock=ManualClock(toy.START))
    try:
        kept: dict[str, Prediction | None] = {}
        lost = 0
        for id, revision in (words.split() for words in ruin.told):
            if id not in kept:
                kept[id] = await store.get(id)
            found = kept[id]
            lost += found is None or found.revision < int(revision)
        for prediction in kept.values():
            if prediction is not None:
                await _check_whole(store, prediction)
        return lost
    finally:
        await store.aclose()


async def _check_whole(store: SqliteStore, kept: Prediction) -> None:
    """State, events, money and deliveries are of one transaction."""
    assert [event.sequence for event in await store.events(kept.id)] == list(range(kept.events))
    deliveries = await store.deliveries(kept.id)
    assert [delivery.sequence for delivery in deliveries] == list(range(kept.deliveries))
    assert any(delivery.is_final for delivery in deliveries) == (kept.status is Status.SUCCEEDED)
    for attempt in kept.attempts:
        assert await store.find_attempt(attempt.token_hash) == (kept.id, attempt.number)
    assert bool(await store.ledger(kept.id)) == (bool(kept.attempts) or kept.status is Status.SUCCEEDED)


def _unsound(path: Path) -> str:
    db = sqlite3.connect(path)
    try:
        found = db.execute("PRAGMA integrity_check").fetchall() + db.execute("PRAGMA foreign_key_check").fetchall()
    finally:
        db.close()
    return "" if found == [("ok",)] else str(found[:3])


def told_too_early(log: list[Step]) -> list[str]:
    """What was told before the frames it stands in were synced. Ids stand in the log's frames as they are."""
    early: list[str] = []
    written_at: dict[str, int] = {}
    synced_at = -1
    ids = {step.what.split()[0] for step in log if isinstance(step, Told)}
    for at, step in enumerate(log):
        match step:
            case Write(file, _, data) if file.endswith("-wal"):
                for id in [id for id in ids if id.encode() in data]:
                    written_at[id] = at
                    ids.discard(id)  # its first frame is that of the create
            case Sync(file) if file.endswith("-wal"):
                synced_at = at
            case Told(what):
                id, revision = what.split()
                if revision == "0" and not written_at[id] < synced_at:
                    early.append(id)
    return early
