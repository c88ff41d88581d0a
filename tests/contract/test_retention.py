"""Retention over a real store and a real folder: all of it goes, nothing else does, and a crash anywhere is mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.api.stream import NAMES
from gateway.artifact.erase import Eraser
from gateway.artifact.folder import Artifacts
from gateway.contract.attempt import Attempt
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import RandomIds
from gateway.contract.errors import StoreUnavailable
from gateway.contract.fact import Begun, Collected, DataRemoved, Fact, Learned, Phase, Source
from gateway.contract.prediction import Prediction, Request, WebhookEvent
from gateway.engine.lifecycle import reduce
from gateway.engine.retention import Retention
from gateway.store.protocol import Created, FileRow, Redelivery
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock

DAY = 86_400.0
PICTURE = b"\x89PNG\r\n\x1a\n" + b"p" * 100
INLINE = "data:image/png;base64,AAAA"
SECRET = "a private thing"


class Crash(Exception):
    """The process is gone."""


class World:
    def __init__(self, folder: Path, store: SqliteStore, clock: ManualClock) -> None:
        self.folder, self.store, self.clock = folder, store, clock
        self.artifacts = Artifacts(
            folder / "artifacts",
            public_url="https://turnout.test",
            signing_secret=b"s" * 32,
            max_file_bytes=10_000,
            ids=RandomIds(),
            clock=clock,
        )

    def retention(self, store: Any = None, eraser: Any = None) -> Retention:
        return Retention(
            store or self.store, eraser or Eraser(self.artifacts), clock=self.clock, draw=lambda: 0.5, data_seconds=DAY
        )

    async def ended(self, number: int, *, key: str | None = None) -> Prediction:
        """One that succeeded with two files, of an input with one; its webhook has arrived."""
        id = f"{number:026d}"
        request = Request(
            model="acme/model", version="f" * 64, is_pinned=False, input={"prompt": SECRET, "image": INLINE},
            webhook="https://hooks.example/?token=t", webhook_events=(WebhookEvent.COMPLETED,), file_output=True,
        )  # fmt: skip
        now = self.clock.now()
        prediction = Prediction(
            id=id, owner="ada", request=request, created_at=now, deadline_at=now + timedelta(hours=1),
            stream_token=id * 2,
        )  # fmt: skip
        await self.store.create(prediction, idempotency_key=key, body_hash="b")
        attempt = Attempt(
            number=1, offer="acme/model@p", provider="p", remote="m", version="f" * 64, token_hash=f"{number:064d}",
            begun_at=now, deadline_at=prediction.deadline_at,
        )  # fmt: skip
        links = self.artifacts.links
        await self.keep(id, links.input_token(id, INLINE, self.artifacts.periods()[-1]), is_output=False)
        urls = ["https://vendor.example/0.png", "https://vendor.example/1.png"]
        ours = [await self.keep(id, links.output_token(id, 1, f"/{place}")) for place in range(2)]
        fact = Fact(phase=Phase.SUCCEEDED, handle={"id": "job"}, output=urls, logs=SECRET)
        await self.store.apply(id, Begun(attempt=attempt))
        await self.store.apply(id, Learned(attempt=1, fact=fact, source=Source.POLL))
        applied = await self.store.apply(id, Collected(attempt=1, output=ours))
        for delivery in await self.store.claim_deliveries("w", limit=100, lease_seconds=60):
            await self.store.finish_delivery(delivery, ended="delivered", status=200)
        return applied.prediction

    async def keep(self, owner: str, token: str, *, is_output: bool = True) -> str:
        kept = await self.artifacts.keep(
            PICTURE, owner=owner, name="x.png", content_type="image/png", token=token, is_output=is_output
        )
        return self.artifacts.link(kept.token, kept.name)

    def files(self) -> int:
        return sum(1 for _ in (self.folder / "artifacts").rglob("content"))

    def bytes_on_disk(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock()
    store = await SqliteStore.open(
        tmp_path / "turnout.db", reduce=reduce, snapshot=lambda p: prediction_bytes(p, public_url="x"), clock=clock
    )
    yield World(tmp_path, store, clock)
    await store.aclose()


async def test_data_goes_when_its_time_is_over_and_not_before(world: World) -> None:
    old = await world.ended(1)
    world.clock.advance(DAY / 2)
    young = await world.ended(2)
    assert await world.retention().step() == (0, 0)
    world.clock.advance(DAY / 2 + 1)
    assert await world.retention().step() == (1, 0)
    assert world.files() == 3
    removed, kept = await world.store.get(old.id), await world.store.get(young.id)
    assert removed is not None
    assert kept is not None
    assert removed.data_removed
    assert (removed.request.input, removed.output, removed.logs) == ({}, None, "")
    assert not kept.data_removed
    assert kept.output
    assert await world.retention().step() == (0, 0)


async def test_a_stream_of_what_is_removed_still_ends(world: World) -> None:
    old = await world.ended(1)
    world.clock.advance(DAY + 1)
    await world.retention().step()
    events = await world.store.events(old.id)
    assert [event.event for event in events] == ["done"]
    assert events[0].event in NAMES
    assert events[0].sequence == old.events - 1, "whoever comes back with an id of before reads on from there"


async def test_its_key_still_stands_for_it_and_nothing_is_sent_again(world: World) -> None:
    old = await world.ended(1, key="k")
    world.clock.advance(DAY - 1)
    await world.store.apply(old.id, DataRemoved())
    again = await world.store.create(
        Prediction(
            id="9" * 26, owner="ada", request=old.request, created_at=world.clock.now(),
            deadline_at=world.clock.now() + timedelta(hours=1), stream_token="9" * 43,
        ),
        idempotency_key="k", body_hash="b",
    )  # fmt: skip
    assert again.outcome is Created.SAME
    assert again.prediction.id == old.id
    assert again.prediction.data_removed
    assert await world.store.get("9" * 26) is None


class CrashingStore:
    """Dies before or after what is asked of it."""

    def __init__(self, store: SqliteStore, verb: str, *, is_after: bool) -> None:
        self._store, self._verb, self._is_after = store, verb, is_after

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if name == self._verb and not self._is_after:
                raise Crash
            result = await getattr(self._store, name)(*args, **kwargs)
            if name == self._verb:
                raise Crash
            return result

        return call


class CrashingEraser:
    """Dies after so many files."""

    def __init__(self, artifacts: Artifacts, after: int) -> None:
        self.left = after
        removed = artifacts.remove
        self._eraser = Eraser(artifacts)

        async def remove(token: str) -> None:
            if await artifacts.open(token) is not None:
                if self.left == 0:
                    raise Crash
                self.left -= 1
            await removed(token)

        self._remove, self._artifacts, self._removed = remove, artifacts, removed

    async def erase(self, prediction: Prediction) -> int:
        self._artifacts.remove = self._remove  # type: ignore[method-assign]
        try:
            return await self._eraser.erase(prediction)
        finally:
            self._artifacts.remove = self._removed  # type: ignore[method-assign]

    async def remove(self, token: str) -> None:
        await self._removed(token)


@pytest.mark.parametrize(
    "point", ["get before", "get after", "apply before", "apply after", "file 0", "file 1", "file 2"]
)
async def test_whoever_dies_at_any_point_leaves_nothing_behind_in_the_end(world: World, point: str) -> None:
    for number in range(3):
        await world.ended(number)
    world.clock.advance(DAY + 1)
    kind, _, when = point.partition(" ")
    if kind == "file":
        dying = world.retention(eraser=CrashingEraser(world.artifacts, int(when)))
    else:
        dying = world.retention(store=CrashingStore(world.store, kind, is_after=when == "after"))
    with pytest.raises(Crash):
        await dying.step()
    await world.retention().step()
    assert world.files() == 0
    for number in range(3):
        prediction = await world.store.get(f"{number:026d}")
        assert prediction is not None
        assert prediction.data_removed
    assert await world.store.aged(before=world.clock.now()) == []


async def test_replicas_that_do_it_at_once_do_no_harm(world: World) -> None:
    for number in range(12):
        await world.ended(number)
    world.clock.advance(DAY + 1)
    await asyncio.gather(*(world.retention().step() for _ in range(4)))
    assert world.files() == 0
    assert await world.store.aged(before=world.clock.now()) == []


async def test_one_whose_files_cannot_be_erased_keeps_nobody_waiting(world: World) -> None:
    for number in range(3):
        await world.ended(number)
    world.clock.advance(DAY + 1)

    class Stuck(Eraser):
        async def erase(self, prediction: Prediction) -> int:
            if prediction.id.endswith("1"):
                raise PermissionError(13, "denied")
            return await super().erase(prediction)

    assert await world.retention(eraser=Stuck(world.artifacts)).step() == (2, 0)
    stuck = await world.store.get(f"{1:026d}")
    assert stuck is not None
    assert not stuck.data_removed, "what is not erased does not say that it is"
    assert await world.retention().step() == (1, 0)


async def test_an_output_that_names_somebody_elses_file_takes_nothing_away_from_it(world: World) -> None:
    theirs = await world.ended(1)
    world.clock.advance(DAY / 2)
    mine = await world.ended(2)
    named = list(theirs.output) + list(mine.output)
    erased = await Eraser(world.artifacts).erase(mine.__class__(**{
        name: getattr(mine, name) for name in mine.__struct_fields__ if name != "output"
    } | {"output": named}))  # fmt: skip
    assert erased == 3
    assert world.files() == 3


async def test_files_that_expired_go_from_the_store_and_from_the_disk(world: World) -> None:
    kept = await world.artifacts.keep(PICTURE, owner="ada", name="a.png", content_type="image/png")
    row = FileRow(
        id="f1", owner="ada", artifact=kept.token, name="a.png", content_type="image/png", size_bytes=108,
        sha256="", md5="", metadata={}, created_at=world.clock.now(),
        expires_at=world.clock.now() + timedelta(seconds=60),
    )  # fmt: skip
    await world.store.put_file(row)
    assert await world.retention().step() == (0, 0)
    world.clock.advance(61)
    assert await world.retention().step() == (0, 1)
    assert world.files() == 0


async def test_without_a_time_of_keeping_predictions_keep_their_data(world: World) -> None:
    await world.ended(1)
    world.clock.advance(1_000 * DAY)
    forever = Retention(world.store, Eraser(world.artifacts), clock=world.clock, draw=lambda: 0.5, data_seconds=0)
    assert await forever.step() == (0, 0)
    assert world.files() == 3


async def test_nothing_private_is_left_on_the_disk_but_what_an_unused_page_may_hold(world: World) -> None:
    """By the store's own reading; pages that SQLite has freed are its own affair."""
    old = await world.ended(1)
    world.clock.advance(DAY + 1)
    await world.retention().step()
    removed = await world.store.get(old.id)
    assert removed is not None
    said = [str(removed), *(str(row) for row in await world.store.events(old.id))]
    said += [str(delivery.body) for delivery in await world.store.deliveries(old.id)]
    assert not any(SECRET in text for text in said)


async def test_a_round_that_fails_is_followed_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.retention.PAUSE_SECONDS", 0.0)
    await world.ended(1)
    world.clock.advance(DAY + 1)
    troubles: list[Exception] = [StoreUnavailable("out"), PermissionError(13, "denied"), ValueError("a bug")]

    done = asyncio.Event()

    class Troubled:
        def __getattr__(self, name: str) -> Any:
            if name == "expire_files" and troubles:
                raise troubles.pop()
            if name == "apply":
                done.set()
            return getattr(world.store, name)

    task = asyncio.create_task(world.retention(store=Troubled()).run())
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    await asyncio.wait({task})
    assert world.files() == 0
    assert troubles == []


async def test_a_webhook_is_not_sent_again_once_its_body_is_gone(world: World) -> None:
    old = await world.ended(1)
    world.clock.advance(DAY + 1)
    await world.retention().step()
    assert [delivery.body for delivery in await world.store.deliveries(old.id)] == [b""]
    assert await world.store.redeliver(old.id) is Redelivery.NONE
