"""Several engines on one store: what one commits the others hear of, and what one lost it does not touch again."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import StoreUnavailable
from gateway.contract.prediction import Prediction, Request, Status
from gateway.contract.provider import Callbacks, Cancel, Capabilities
from gateway.engine.attempt import callback_token
from gateway.engine.engine import LOOK_SECONDS
from gateway.engine.worker import Leasing
from gateway.store.protocol import Created, CreateResult
from gateway.testing import Script
from tests.unit.engine.hub import Replica
from tests.unit.engine.stage import MODEL, OWNER, VERSION, virtual

LONG = Script(run_seconds=40.0)
HANGS = Script(run_seconds=math.inf)
NUDGED = Capabilities(
    modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, callbacks=Callbacks.UNSIGNED, min_poll_seconds=30.0
)
RARELY = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, min_poll_seconds=0.5)


class Waiting:
    """An intake that takes as long as the test says."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()

    async def fit(self, input: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.entered.set()
        await self.go.wait()
        return input


class TestNews:
    @virtual
    async def test_a_caller_who_waits_elsewhere_hears_of_the_end_at_once(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", LONG, capabilities=RARELY)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            ended = asyncio.create_task(b.ended(id))
            here = await a.ended(id)
            at = a.clock.monotonic()
            assert (await ended).status is Status.SUCCEEDED
            assert (await ended).revision >= here.revision
            assert a.clock.monotonic() - at < 1.0
            # By hints, not by asking: one look to begin with, one when it is watched, and one for each change.
            assert a.hub is not None
            assert b.seat.gets <= 2 + a.hub.hints + 40 / LOOK_SECONDS
            assert not +b.seat.watched

    @virtual
    async def test_a_lost_hint_costs_a_look_and_no_more(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", LONG, capabilities=RARELY)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            assert a.hub is not None
            a.hub.is_silent = True
            ended = asyncio.create_task(b.ended(id))
            await a.ended(id)
            at = a.clock.monotonic()
            await ended
            assert a.clock.monotonic() - at <= 16
            assert b.seat.gets <= 5, "it asked again and again"

    @virtual
    async def test_whoever_may_have_missed_something_looks_at_all_of_it(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", HANGS, capabilities=NUDGED)  # it is polled rarely: that would tell, too
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            await asyncio.sleep(1)
            assert a.hub is not None
            a.hub.is_silent = True
            assert b.engine is not None
            await b.engine.cancel(id, owner=OWNER)
            await asyncio.sleep(2)
            assert (await a.read(id)).status is not Status.CANCELED
            heard = a.seat.heard
            assert heard is not None
            heard(None)
            assert (await a.ended(id, within=5)).status is Status.CANCELED

    @virtual
    async def test_a_cancel_reaches_the_run_that_is_elsewhere(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first", HANGS, capabilities=NUDGED)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            await asyncio.sleep(3)
            assert b.engine is not None
            await b.engine.cancel(id, owner=OWNER)
            at = a.clock.monotonic()
            assert (await b.ended(id)).status is Status.CANCELED
            assert a.clock.monotonic() - at < 1.0
            assert provider.jobs[0].canceled_at is not None

    @virtual
    async def test_a_callback_that_only_nudges_is_looked_into_by_whoever_got_it(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first", Script(run_seconds=5.0, callbacks=0), capabilities=NUDGED)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            await asyncio.sleep(6)
            assert b.engine is not None
            token = callback_token(b"s" * 32, id, 1)
            assert await b.engine.callback(token, {}, b"{}") == "nudge"
            ended = await a.ended(id, within=1)  # the next poll of its holder is far away
            assert ended.status is Status.SUCCEEDED
            assert provider.jobs[0].polls == 1

    @virtual
    async def test_events_are_told_elsewhere_once_and_in_order(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", LONG, capabilities=RARELY)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            seen: list[int] = []
            assert b.engine is not None
            with b.engine.changes(id) as changes:
                while True:
                    events = await b.store.events(id, after=seen[-1] if seen else -1)
                    seen += [event.sequence for event in events]
                    if any(event.event == "done" for event in events):
                        break
                    assert await changes.wait(60), "nobody told"
            assert seen == list(range(len(seen)))

    @virtual
    async def test_who_waits_here_hears_on_when_the_prediction_goes_elsewhere(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", LONG)
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            await asyncio.sleep(1)
            assert a.engine is not None
            assert b.engine is not None
            waiting = asyncio.create_task(a.engine.wait(id, seconds=100))
            await asyncio.sleep(1)
            run = a.engine._worker.run(id)
            assert run is not None
            assert not +a.seat.watched
            a.store.fails = lambda verb, happening: verb == "claim_due"
            run.drain()  # lets go; the claim of b takes it up
            await b.until(lambda: b.engine is not None and b.engine._worker.run(id) is not None)
            assert a.seat.watched[id] == 1
            assert (await waiting).status is Status.SUCCEEDED
            assert not +a.seat.watched


class TestLeases:
    @pytest.mark.parametrize("has_beaten", [False, True], ids=["at once", "after another beat"])
    @virtual
    async def test_what_was_adopted_while_we_slept_is_not_sent(self, has_beaten: bool, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first")
        slow = a.intake = Waiting()  # type: ignore[assignment]
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await a.post()
            await slow.entered.wait()
            a.store.fails = lambda verb, happening: verb == "beat"
            await b.until(lambda: b.engine is not None and b.engine._worker.run(id) is not None)
            before = len(provider.submits)
            a.store.fails = lambda verb, happening: False
            assert a.engine is not None
            if has_beaten:  # it counts as alive again, and still does not hold what it held
                worker = a.engine._worker
                await a.until(lambda: worker.holds_since(worker.term))
            slow.go.set()
            await a.until(lambda: a.engine is not None and a.engine._worker.run(id) is None)
            assert len(provider.submits) == before, "a worker that had lost its lease sent"
            await b.ended(id)

    @virtual
    async def test_a_worker_that_slept_and_lost_nothing_sends_after_it_has_asked(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first")
        slow = a.intake = Waiting()  # type: ignore[assignment]
        async with a:
            id = await a.post()
            await slow.entered.wait()
            a.store.is_out = True
            await asyncio.sleep(Leasing().lease + 5)
            slow.go.set()
            await asyncio.sleep(5)
            assert provider.submits == [], "it sent without a lease it was sure of"
            a.store.is_out = False
            ended = await a.ended(id)
            assert ended.status is Status.SUCCEEDED
            assert len(provider.submits) == 1
            assert [attempt.status for attempt in ended.attempts] == [AttemptStatus.SUCCEEDED]

    @virtual
    async def test_an_older_run_ends_when_the_worker_takes_its_prediction_up_anew(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first", LONG)
        async with a:
            id = await a.post()
            await asyncio.sleep(3)
            assert a.engine is not None
            worker = a.engine._worker
            elder = worker.run(id)
            # As after a sleep: somebody else had it in between, and let it go again.
            await a.store.store.release(worker.id, [id])
            await a.until(lambda: worker.run(id) is not elder)
            await asyncio.sleep(1)
            assert len(worker._tasks) == 1, "the older run goes on beside the new one"
            assert a.board.in_flight("first") == 1
            assert (await a.ended(id)).status is Status.SUCCEEDED
            await a.settled(id)
            await a.check(id)


class TestDoubts:
    """Creates that were committed, and whose answer was lost."""

    async def lost(self, stage: Replica, *, key: str | None) -> str:
        """Post one whose answer is lost; its id."""
        ids: list[str] = []
        create = stage.seat.create

        async def commits_and_fails(prediction: Prediction, **how: Any) -> CreateResult:
            ids.append(prediction.id)
            await create(prediction, **how)
            raise StoreUnavailable("the answer was lost")

        stage.seat.create = commits_and_fails  # type: ignore[method-assign]
        assert stage.engine is not None
        with pytest.raises(StoreUnavailable):
            await stage.engine.create(request(), owner=OWNER, idempotency_key=key, body_hash="h" if key else "")
        stage.seat.create = create  # type: ignore[method-assign]
        return ids[0]

    @virtual
    async def test_without_a_key_it_is_cancelled_before_anybody_begins_it(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first")
        async with a:
            id = await self.lost(a, key=None)
            prediction = await a.settled(id, within=10)
            assert prediction.status is Status.CANCELED
            assert provider.submits == []

    @virtual
    async def test_with_a_key_it_is_driven_and_the_repeat_gets_it(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first")
        async with a, Replica(tmp_path, first=a, name="b") as b:
            id = await self.lost(a, key="k")
            assert b.engine is not None
            again = await b.engine.create(request(), owner=OWNER, idempotency_key="k", body_hash="h")
            assert (again.outcome, again.prediction.id) == (Created.SAME, id)
            assert (await b.ended(id, within=20)).status is Status.SUCCEEDED
            assert len(provider.submits) == 1

    @virtual
    async def test_it_waits_until_the_store_is_back(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        provider = a.provider("first")
        async with a:
            id = await self.lost(a, key=None)
            a.store.is_out = True
            await asyncio.sleep(60)
            a.store.is_out = False
            assert (await a.settled(id, within=10)).status is Status.CANCELED
            assert provider.submits == []

    @virtual
    async def test_what_was_not_committed_is_forgotten(self, tmp_path: Path) -> None:
        a = Replica(tmp_path)
        a.provider("first")
        async with a:
            a.store.fails = lambda verb, happening: verb == "create"
            assert a.engine is not None
            with pytest.raises(StoreUnavailable):
                await a.engine.create(request(), owner=OWNER)
            assert len(a.engine._doubts) == 1
            await asyncio.sleep(30)
            assert len(a.engine._doubts) == 0


def request() -> Request:
    return Request(model=MODEL, version=VERSION, is_pinned=False, input={})
