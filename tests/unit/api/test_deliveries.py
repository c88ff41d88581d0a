"""What became of a webhook, for its caller and for ops, and once more: one, or all that a host has not taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.api import deliveries
from gateway.contract.body import prediction_bytes
from gateway.contract.fact import DataRemoved, DeadlinePassed
from gateway.contract.prediction import Prediction
from gateway.delivery.lane import Standing
from gateway.engine.lifecycle import reduce
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.unit.api.fakes import ADMIN, PUBLIC, World
from tests.unit.dashboard import making
from tests.unit.dashboard.making import prediction

HOOK = "https://hooks.example/x?token=a-secret"
STANDING = Standing(
    owner="alice", host="hooks.example", failures=7, is_shut=True, is_disabled=False, is_gone=False,
    failing_since=making.START,
)  # fmt: skip


class Receivers:
    def __init__(self) -> None:
        self.retried: list[tuple[str, str]] = []
        self.wakes = 0

    def standings(self) -> list[Standing]:
        return [STANDING]

    async def retry(self, owner: str, host: str) -> None:
        self.retried.append((owner, host))

    def wake(self) -> None:
        self.wakes += 1


class Desk:
    def __init__(self, store: SqliteStore, folder: Path) -> None:
        self.store, self.receivers = store, Receivers()
        self.world = World(folder, store=store, receivers=self.receivers)
        self.admin = self.world.client(ADMIN.text)
        self._count = 0

    async def ended(
        self, owner: str = "alice", hook: str | None = HOOK, *, how: str | None = "exhausted"
    ) -> Prediction:
        """One whose webhook was tried twice, and then ended so; `how` None: it still waits."""
        self._count += 1
        id = f"{self._count:026d}"
        made = prediction(ended=None, webhook=hook, deadline_at=making.START)
        made = replace(made, id=id, owner=owner, stream_token=id)
        await self.store.create(made)
        await self.store.apply(id, DeadlinePassed())
        for ended, due in ((None, making.START), (how, making.START + timedelta(hours=1))):
            for delivery in await self.store.claim_deliveries("w", limit=9, lease_seconds=9):
                await self.store.finish_delivery(delivery, ended=ended, due_at=due, status=503, error="HTTP 503")
        found = await self.store.get(id)
        assert found is not None
        return found


async def open_desk(folder: Path) -> Desk:
    store = await SqliteStore.open(
        folder / "store.db",
        reduce=reduce,
        snapshot=lambda one: prediction_bytes(one, public_url=PUBLIC),
        clock=ManualClock(making.START),
    )
    return Desk(store, folder)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    opened = await open_desk(tmp_path)
    yield opened
    await opened.store.aclose()


def path_of(one: Prediction, verb: str = "") -> str:
    return f"/turnout/v1/predictions/{one.id}/deliveries{verb}"


async def test_its_caller_sees_every_try_and_nobody_else_does(desk: Desk) -> None:
    one = await desk.ended()
    reply = await desk.world.alice.get(path_of(one))
    assert reply.status_code == 200
    (row,) = reply.json()["deliveries"]
    assert (row["event"], row["host"], row["tries"], row["ended"]) == ("completed", "hooks.example", 2, "exhausted")
    assert [(tried["status"], tried["error"]) for tried in row["history"]] == [(503, "HTTP 503")] * 2
    assert "a-secret" not in reply.text, "addresses carry secrets"
    foreign, absent = (
        await desk.world.bob.get(path_of(one)),
        await desk.world.bob.get(path_of(replace(one, id="0" * 26))),
    )
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json() == absent.json()
    assert (await desk.admin.get(path_of(one))).json() == reply.json()


async def test_a_caller_has_it_sent_again_as_it_was(desk: Desk) -> None:
    one = await desk.ended()
    (before,) = await desk.store.deliveries(one.id)
    assert (await desk.world.bob.post(path_of(one, "/retry"))).status_code == 404
    reply = await desk.world.alice.post(path_of(one, "/retry"))
    assert reply.status_code == 200
    (claimed,) = await desk.store.claim_deliveries("w", limit=9, lease_seconds=9)
    assert (claimed.id, claimed.body) == (before.id, before.body)
    assert len(claimed.history) == 2, "what was tried before is not forgotten"
    assert desk.receivers.retried == [("alice", "hooks.example")], "what others have there is left alone"
    assert desk.receivers.wakes == 1
    sending = await desk.world.alice.post(path_of(one, "/retry"))
    assert (sending.status_code, "on its way" in sending.json()["detail"]) == (409, True)


async def test_where_there_is_nothing_to_send_it_says_why(desk: Desk) -> None:
    silent = await desk.ended(hook=None)
    removed = await desk.ended()
    await desk.store.apply(removed.id, DataRemoved())
    for one, word in ((silent, "without a webhook"), (removed, "was removed")):
        reply = await desk.world.alice.post(path_of(one, "/retry"))
        assert (reply.status_code, word in reply.json()["detail"]) == (409, True), reply.text
    assert desk.receivers.retried == []


async def test_ops_see_what_waits_and_who_fails(desk: Desk) -> None:
    await desk.ended(how=None)
    reply = await desk.admin.get("/ops/v1/deliveries")
    assert reply.status_code == 200
    body = reply.json()
    assert [(line["host"], line["waiting"]) for line in body["waiting"]] == [("hooks.example", 1)]
    assert [(line["host"], line["is_shut"]) for line in body["receivers"]] == [("hooks.example", True)]
    assert (await desk.world.alice.get("/ops/v1/deliveries")).status_code == 403


async def retry_host(desk: Desk, host: str) -> list[dict[str, Any]]:
    """Page by page, as the command does."""
    pages: list[dict[str, Any]] = []
    position: str | None = None
    while True:
        body = {"host": host, "reason": "it is back", "position": position}
        reply = await desk.admin.post("/ops/v1/deliveries/retry", json=body)
        assert reply.status_code == 200, reply.text
        pages.append(reply.json())
        position = pages[-1]["next"]
        if position is None:
            return pages


async def test_all_that_a_host_has_not_taken_goes_again_and_nothing_else(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAGE_SIZE", 2)
    owed = [await desk.ended(), await desk.ended("bob"), await desk.ended(how=None)]
    await desk.ended(how="delivered")
    await desk.ended(hook="https://elsewhere.example/x")
    await desk.ended(hook=None)
    pages = await retry_host(desk, "Hooks.Example")
    assert len(pages) > 1
    assert sum(page["retried"] for page in pages) == 3
    claimed = await desk.store.claim_deliveries("w", limit=99, lease_seconds=9)
    assert {delivery.prediction for delivery in claimed} == {one.id for one in owed}
    assert set(desk.receivers.retried) == {("alice", "hooks.example"), ("bob", "hooks.example")}
    assert len(desk.receivers.retried) < len(owed) + len(pages), "once for each owner on a page"
    assert desk.receivers.wakes == len(pages)
    (line,) = await desk.store.audit()
    assert (line.action, line.target, line.who, line.outcome) == ("deliveries.retry", "hooks.example", "admin", "done")


@pytest.mark.parametrize(
    "body", [{}, {"host": "", "reason": "x"}, {"host": "x", "reason": " "}, {"host": "x", "reason": "y", "all": True}]
)
async def test_a_retry_without_sense_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    assert (await desk.admin.post("/ops/v1/deliveries/retry", json=body)).status_code == 422
    assert await desk.store.audit() == []
