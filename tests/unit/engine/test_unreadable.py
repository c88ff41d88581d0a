"""A newer version goes on with a prediction in words we do not know: whoever holds it here lets go of it, at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.errors import LeaseLost, PredictionUnreadable
from gateway.contract.provider import Cancel, Capabilities
from gateway.engine.news import AGAIN_SECONDS
from gateway.store.protocol import Heard
from gateway.testing import Script
from tests.unit.engine.stage import Stage, virtual

HANGS = Script(run_seconds=math.inf)
RARELY = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, min_poll_seconds=60.0)


class Shared:
    """A store in which a newer version has changed the `strange` ones."""

    def __init__(self, store: Any) -> None:
        self.strange: set[str] = set()
        self.released: list[str] = []
        self.reads = 0
        self.heard: Heard = lambda _: None
        self._store = store

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def get(self, id: str, **how: Any) -> Any:
        self.reads += 1
        if id in self.strange:
            raise PredictionUnreadable("a newer one wrote it")
        return await self._store.get(id, **how)

    async def apply(self, id: str, happening: Any, *, lease: Any = None) -> Any:
        if id not in self.strange:
            return await self._store.apply(id, happening, lease=lease)
        unreadable = PredictionUnreadable("a newer one wrote it")
        if lease is None:
            raise unreadable
        raise LeaseLost("it cannot go on") from unreadable

    async def claim_due(self, worker: str, *, limit: int) -> Any:
        held = await self._store.claim_due(worker, limit=limit)
        await self._store.release(worker, [one.prediction.id for one in held if one.prediction.id in self.strange])
        return [one for one in held if one.prediction.id not in self.strange]

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        self.released += ids or ()
        await self._store.release(worker, ids)

    async def follow(self, worker: str, heard: Heard) -> None:
        self.heard = heard
        await asyncio.Event().wait()


class Beside(Stage):
    """Beside a newer one."""

    async def _opened(self) -> Any:
        self.shared = Shared(await super()._opened())
        return self.shared

    async def _shut(self) -> None:
        self.store.store = self.shared._store
        await super()._shut()


async def held(stage: Beside) -> str:
    id = await stage.post()

    async def is_under_way() -> bool:
        attempts = (await stage.read(id)).attempts
        return bool(attempts) and attempts[0].handle is not None

    await stage.until(is_under_way)
    return id


@pytest.mark.parametrize("steps", ["a fact", "a step of its holder"])
def test_who_finds_that_it_cannot_read_it_lets_go(tmp_path: Path, steps: str) -> None:
    @virtual
    async def test() -> None:
        # With rare polls the first that it does is to say that the deadline has passed: as its holder.
        how: dict[str, Any] = {} if steps == "a fact" else {"capabilities": RARELY}
        stage = Beside(tmp_path, deadline_seconds=10)
        stage.provider("first", Script(run_seconds=5.0) if steps == "a fact" else HANGS, **how)
        async with stage:
            id = await held(stage)
            stage.shared.strange.add(id)
            await asyncio.sleep(11.0)
            assert stage.shared.released == [id]
            assert stage.engine is not None
            assert stage.engine.open_count == 0
            stage.shared.strange.discard(id)  # the newer one has ended it in words that we know
            begun = stage.clock.monotonic()
            await stage.close()
            assert stage.clock.monotonic() - begun < 1.0

    test()


@virtual
async def test_who_hears_of_it_lets_go_at_once_and_does_not_ask_again(tmp_path: Path) -> None:
    stage = Beside(tmp_path)
    stage.provider("first", HANGS, capabilities=RARELY)
    async with stage:
        id = await held(stage)
        stage.shared.strange.add(id)
        before = stage.shared.reads
        stage.shared.heard(id)
        await asyncio.sleep(0.5)
        assert stage.shared.released == [id]
        await asyncio.sleep(10 * AGAIN_SECONDS)
        assert stage.shared.reads == before + 1
        stage.shared.strange.clear()


@virtual
async def test_who_streams_it_here_is_woken_by_what_cannot_be_read(tmp_path: Path) -> None:
    stage = Beside(tmp_path)
    stage.provider("first", HANGS, capabilities=RARELY)
    async with stage:
        assert stage.engine is not None
        id = await held(stage)
        stage.shared.strange.add(id)
        with stage.engine.changes(id) as changes:
            stage.shared.heard(id)
            assert await changes.wait(1.0)
            assert changes.latest is None
        stage.shared.strange.clear()
