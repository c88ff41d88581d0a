"""`turnout store` as an operator runs it: all that lies in a SQLite file is in Redis afterwards, and back again."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from gateway.config.load import load
from gateway.contract.clock import SystemClock
from gateway.store.opening import StorePlace, open_store
from gateway.store.protocol import Held, Record, Store, Whole
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.test_moving import fill, read_out
from tests.redis.server import RedisServer

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def turnout(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "store", *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def on(config: Path, act: Callable[[Store], Awaitable[T]]) -> T:
    """In the store of that configuration."""

    async def run() -> T:
        place = StorePlace(load(config, environ={}).store, clock=SystemClock(), draw=random.random)
        store = await open_store(place, reduce=toy.reduce, snapshot=toy.snapshot)
        try:
            return await act(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def _without_expiry(record: Record) -> Record:
    if not isinstance(record, Whole):
        return record
    return replace(record, idempotency=tuple(replace(key, expires_at=toy.START) for key in record.idempotency))


def _expiries(records: list[Record]) -> list[datetime]:
    return [key.expires_at for record in records if isinstance(record, Whole) for key in record.idempotency]


async def claim(store: Store) -> list[Held]:
    await store.beat("w", lease_seconds=30)
    return await store.claim_due("w", limit=1)


@pytest.mark.timeout(60)  # a server and six commands
def test_everything_goes_from_a_file_to_redis_and_back(tmp_path: Path) -> None:
    async def make(store: Store) -> list[Record]:
        await fill(store, ManualClock(toy.START))
        for _ in range(250):  # more than one batch
            await store.create(toy.prediction(input={"image": "x" * 30_000}))
        return await read_out(store)

    with RedisServer(tmp_path / "redis") as server:
        for name, url in (("old", "sqlite:///old.db"), ("shared", server.url), ("back", "sqlite:///back.db")):
            (tmp_path / f"{name}.toml").write_text(f'[store]\nurl = "{url}"\n')
        made = on(tmp_path / "old.toml", make)
        for source, target in (("old", "shared"), ("shared", "back")):
            exported = turnout(tmp_path, "export", f"{source}.jsonl", "--config", f"{source}.toml")
            assert exported.returncode == 0, exported.stderr
            for _ in range(2):  # a repeat, as after a crash, changes nothing
                imported = turnout(tmp_path, "import", f"{source}.jsonl", "--config", f"{target}.toml")
                assert imported.returncode == 0, imported.stderr
                assert "imported 254 predictions" in imported.stderr
            moved = on(tmp_path / f"{target}.toml", read_out)
            assert [_without_expiry(one) for one in moved] == [_without_expiry(one) for one in made]
            for now, before in zip(_expiries(moved), _expiries(made), strict=True):
                assert abs(now - before) < timedelta(seconds=1)  # Redis counts milliseconds, by its own clock
        # Once somebody has gone on there, nothing is written over it.
        [open_] = [one.prediction for one in on(tmp_path / "shared.toml", claim)]
        on(tmp_path / "shared.toml", lambda store: store.apply(open_.id, toy.CancelRequested()))
        refused = turnout(tmp_path, "import", "old.jsonl", "--config", "shared.toml")
        assert refused.returncode == 2
        assert f"another state of prediction {open_.id}" in refused.stderr
