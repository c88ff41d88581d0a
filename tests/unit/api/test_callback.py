"""Callbacks through the whole HTTP stack into a real engine and store: what each is answered, and what it leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.contract.attempt import AttemptStatus
from gateway.contract.fact import DataRemoved, Fact, Learned, Phase
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Status
from gateway.testing import FakeProvider, Script
from tests.unit.api.fakes import World
from tests.unit.engine.stage import WITH_CALLBACKS, Stage, virtual


class Ingress:
    """A prediction whose job runs for long, and the address its provider was given."""

    def __init__(self, folder: Path, stage: Stage, provider: FakeProvider, id: str) -> None:
        self.stage, self.provider, self.id = stage, provider, id
        self.world = World(folder, engine=stage.engine, store=stage.store)

    async def post(self, fact: Fact | None = None, *, signer: str = "first", path: str = "", body: bytes = b"") -> Any:
        url = self.provider.submits[0].callback_url
        assert url is not None
        content = msgspec.json.encode(fact) if fact is not None else body
        return await self.world.nobody.post(
            path or "/cb/" + url.rpartition("/cb/")[2], content=content, headers={"signature": f"signed by {signer}"}
        )

    def end(self, **changes: Any) -> Fact:
        fields: dict[str, Any] = {
            "phase": Phase.SUCCEEDED,
            "handle": {"id": self.provider.jobs[0].id},
            "output": "done",
        }
        return Fact(**(fields | changes))


async def ingress(folder: Path, stage: Stage, provider: FakeProvider) -> Ingress:
    id = await stage.post()
    await stage.until(lambda: bool(provider.jobs))
    await asyncio.sleep(0.1)
    return Ingress(folder, stage, provider, id)


def a_stage(folder: Path) -> tuple[Stage, FakeProvider]:
    stage = Stage(folder)
    return stage, stage.provider("first", Script(run_seconds=100, callbacks=0), capabilities=WITH_CALLBACKS)


@virtual
async def test_it_is_committed_before_it_is_answered(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        reply = await hook.post(hook.end())
        assert (reply.status_code, reply.json()) == (200, {"status": "applied"})
        await stage.kill()  # at that very moment
        await stage.open()
        assert (await stage.read(hook.id)).status is Status.SUCCEEDED


@virtual
async def test_while_the_store_is_out_it_is_told_to_come_again_and_then_taken(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        for fails in (lambda verb, happening: True, lambda verb, happening: isinstance(happening, Learned)):
            stage.store.fails = fails
            reply = await hook.post(hook.end())
            assert reply.status_code == 503
            assert reply.headers["retry-after"] == "1"
            stage.store.fails = lambda verb, happening: False
            assert not (await stage.read(hook.id)).is_terminal
        assert (await hook.post(hook.end())).json() == {"status": "applied"}


@virtual
async def test_duplicates_and_stale_ones_are_taken_and_change_nothing(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        await hook.post(hook.end())
        before = await stage.settled(hook.id)
        stale = Fact(phase=Phase.RUNNING, handle={"id": provider.jobs[0].id}, output="do")
        other = hook.end(phase=Phase.FAILED, output=None)
        for fact in (hook.end(), hook.end(), stale, other):
            reply = await hook.post(fact)
            assert (reply.status_code, reply.json()) == (200, {"status": "duplicate"})
        assert await stage.read(hook.id) == before
        await stage.check(hook.id)


@virtual
async def test_a_later_one_that_says_what_it_cost_brings_just_that(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        await hook.post(hook.end())
        before = await stage.settled(hook.id)
        rich = hook.end(cost=Cost(nanos=777, basis=CostBasis.REPORTED), metrics={"predict_time": 2.0})
        assert (await hook.post(rich)).json() == {"status": "applied"}
        after = await stage.read(hook.id)
        assert (after.status, after.output, after.completed_at) == (before.status, before.output, before.completed_at)
        assert after.attempts[0].cost.nanos == 777
        assert await stage.ledger(hook.id) == [(1, "settled", 777)]
        assert (await hook.post(rich)).json() == {"status": "duplicate"}
        await stage.check(hook.id)


@virtual
async def test_forged_unknown_and_oversize_ones_leave_nothing(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        before = await stage.read(hook.id)
        assert (await hook.post(hook.end(), signer="somebody else")).status_code == 401
        assert (await hook.post(hook.end(), path="/cb/" + "x" * 43)).status_code == 404
        assert (await hook.post(body=b"x" * 1_000_001)).status_code == 413
        assert await stage.read(hook.id) == before


@virtual
async def test_a_provider_that_this_replica_does_not_know_is_told_to_come_again(tmp_path: Path) -> None:
    """It may be known next door: a 404 would make some senders stop for ever."""
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        assert stage.engine is not None
        link = stage.engine._parts.links.pop("first")  # type: ignore[attr-defined]
        assert (await hook.post(hook.end())).status_code == 503
        stage.engine._parts.links["first"] = link  # type: ignore[index]
        assert (await hook.post(hook.end())).status_code == 200


@virtual
async def test_it_is_taken_long_after_the_end_and_after_the_data_is_gone(tmp_path: Path) -> None:
    stage, provider = a_stage(tmp_path)
    async with stage:
        hook = await ingress(tmp_path, stage, provider)
        await hook.post(hook.end())
        await stage.settled(hook.id)
        await asyncio.sleep(600)
        await stage.store.apply(hook.id, DataRemoved())
        reply = await hook.post(hook.end(metrics={"predict_time": 2.0}, logs="private", output="private"))
        assert reply.status_code == 200
        after = await stage.read(hook.id)
        assert after.attempts[0].status is AttemptStatus.SUCCEEDED
        assert (after.output, after.logs, after.attempts[0].logs) == (None, "", "")


@pytest.mark.parametrize("verb", ["find_attempt", "get", "apply"])
def test_whatever_of_ours_fails_it_is_never_a_4xx(tmp_path: Path, verb: str) -> None:
    @virtual
    async def scenario() -> None:
        stage, provider = a_stage(tmp_path)
        async with stage:
            hook = await ingress(tmp_path, stage, provider)
            stage.store.fails = lambda asked, happening: asked == verb
            assert (await hook.post(hook.end())).status_code == 503
            stage.store.fails = lambda asked, happening: False

    scenario()
