"""
A writing process is killed again and again: what it acknowledged is there, whole, and nothing else is half there.

This shows atomicity and recovery. It does not show the fsync: what a killed process has written, the kernel keeps.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from pathlib import Path

from gateway.contract.clock import SystemClock
from gateway.contract.prediction import Prediction, Status
from gateway.store.sqlite import SqliteStore
from tests.contract.store import toy

ROOT = Path(__file__).parents[2]
SEED = 7
KILLS = 10


async def _write_until_killed(path: Path, acknowledgements: int) -> list[tuple[str, int, str]]:
    """Let a process write, kill -9 it after so many acknowledgements; all that it gave, those in the pipe included."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.store_writer", str(path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(acknowledgements)]
    process.kill()
    lines += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    assert process.returncode == -9, "it ended by itself"
    return [(id, int(revision), status) for id, revision, status in (line.decode().split() for line in lines)]


async def _check_whole(store: SqliteStore, kept: Prediction) -> None:
    """State, events, money, deliveries and tokens of one prediction tell the same story."""
    events = await store.events(kept.id)
    assert [event.sequence for event in events] == list(range(kept.events))
    deliveries = await store.deliveries(kept.id)
    assert [delivery.sequence for delivery in deliveries] == list(range(kept.deliveries))
    ledger = [row.state for row in await store.ledger(kept.id)]
    for attempt in kept.attempts:
        assert await store.find_attempt(attempt.token_hash) == (kept.id, attempt.number)
    if kept.status is Status.SUCCEEDED:
        assert [event.event for event in events] == ["output", "output", "done"]
        assert [delivery.is_final for delivery in deliveries] == [False, True]
        assert ledger == ["settled"]
    else:
        assert ledger == (["reserved"] if kept.attempts else [])
        assert not [delivery for delivery in deliveries if delivery.is_final]


async def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    draw = random.Random(SEED)
    acknowledged: dict[str, tuple[int, str]] = {}
    for _ in range(KILLS):
        for id, revision, status in await _write_until_killed(path, draw.randint(1, 600)):
            acknowledged[id] = max(acknowledged.get(id, (-1, "")), (revision, status))
    assert len(acknowledged) > KILLS

    store = await SqliteStore.open(path, reduce=toy.reduce, snapshot=toy.snapshot, clock=SystemClock())
    seen: set[str] = set()
    position: str | None = None
    while True:
        page = await store.list_predictions(owner="alice", position=position)
        for kept in page.predictions:
            seen.add(kept.id)
            revision, status = acknowledged.get(kept.id, (0, kept.status))
            # One step may have been committed that nobody had the time to acknowledge.
            assert revision <= kept.revision <= revision + 1
            if kept.revision == revision:
                assert kept.status == status
            await _check_whole(store, kept)
        if (position := page.next) is None:
            break
    assert acknowledged.keys() <= seen
    # Whatever was not ended is handed to the next worker.
    await store.beat("next", lease_seconds=30)
    claimed = {held.prediction.id for held in await store.claim_due("next", limit=100_000)}
    ended = {id for id in seen if (kept := await store.get(id)) is not None and kept.is_terminal}
    assert claimed == seen - ended
    await store.aclose()

    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()
