"""Many who look for their jobs at once: one walk through the list for all, and whose job it is when several ask."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import OutcomeUnknown, PollFailed, ProviderFailure, StoreUnavailable
from gateway.contract.prediction import Prediction, Request, Status
from gateway.contract.provider import Capabilities
from gateway.engine import ownership, search
from gateway.engine.agenda import MOST_ADOPTED_POLLS_PER_SECOND
from gateway.engine.search import BrokenOff, Search
from gateway.store.protocol import Page
from gateway.store.protocol import Search as Query
from gateway.testing import FakeProvider, Job, Script
from tests.unit.engine.stage import MODEL, POLLED, PRICE, VERSION, WITH_CALLBACKS, Stage, virtual

LISTED = replace(POLLED, lists=True)
LISTED_WITH_CALLBACKS = replace(WITH_CALLBACKS, lists=True)
LOST = Script(raises=OutcomeUnknown("the line broke"), callbacks=0)
MANY = 1_000


class Shelf:
    """The part of a store that a search reads, and how often it was asked."""

    def __init__(self) -> None:
        self.predictions: dict[str, Prediction] = {}
        self.pages = self.gets = 0
        self.per_page = 100
        self.raises: Exception | None = None

    async def get(self, id: str) -> Prediction | None:
        self.gets += 1
        return self.predictions.get(id)

    async def search_predictions(self, search: Query, *, position: str | None = None, limit: int = 100) -> Page:
        self.pages += 1
        if self.raises is not None:
            raise self.raises
        found = [one for one in self.predictions.values() if one.created_at >= (search.created_after or one.created_at)]
        first, limit = int(position or 0), min(limit, self.per_page)
        briefs = [replace(one, request=replace(one.request, input={})) for one in found[first : first + limit]]
        more = str(first + limit) if len(found) > first + limit else None
        return Page(predictions=tuple(briefs), next=more)


class Bench:
    """A search beside a stage's provider, with attempts that nobody answered a second ago."""

    def __init__(self, stage: Stage, provider: FakeProvider) -> None:
        assert stage.engine is not None
        self.provider = provider
        self.shelf = Shelf()
        self.parts = stage.engine._parts
        self.search = Search(self.parts, self.shelf)
        self.now = stage.clock.now
        self.monotonic = stage.clock.monotonic

    def unanswered(
        self, name: str, *, handle: str | None = None, begun: float = 1.0, has_job: bool = True, **input: Any
    ) -> tuple[Prediction, Attempt]:
        id, begun_at = f"{name:-<26}", self.now() - timedelta(seconds=begun)
        attempt = Attempt(
            number=1,
            offer=f"{MODEL}@{self.provider.name}",
            provider=self.provider.name,
            remote="upscaler",
            version=VERSION,
            token_hash="",
            begun_at=begun_at,
            deadline_at=begun_at + timedelta(seconds=300),
            status=AttemptStatus.UNKNOWN if handle is None else AttemptStatus.RUNNING,
            handle=None if handle is None else {"id": handle},
            unknown_at=begun_at if handle is None else None,
        )
        prediction = Prediction(
            id=id,
            owner="acme",
            request=Request(model=MODEL, version=VERSION, is_pinned=False, input=input),
            created_at=begun_at,
            deadline_at=attempt.deadline_at,
            stream_token="",
            attempts=(attempt,),
        )
        self.shelf.predictions[id] = prediction
        if has_job:
            self.start(prediction, f"job of {name}")
        return prediction, attempt

    def start(self, prediction: Prediction, id: str) -> None:
        call = search.call_of(
            prediction,
            prediction.attempts[0],
            self.parts.offer(prediction.attempts[0].offer),  # type: ignore[arg-type]
            self.parts.links[self.provider.name],
            prediction.request.input,
            callback_base=self.parts.callback_base,
            secret=self.parts.secret,
            now=self.now(),
        )
        begun_ago = (self.now() - prediction.attempts[0].begun_at).total_seconds()
        self.provider.jobs.append(Job(id, call, Script(), self.monotonic() - begun_ago))

    def ask(self, asked: tuple[Prediction, Attempt]) -> asyncio.Task[dict[str, str] | None]:
        return asyncio.create_task(self.search.find(*asked))


async def opened(folder: Path, capabilities: Capabilities = LISTED) -> tuple[Stage, Bench]:
    stage = Stage(folder)
    provider = stage.provider("first", capabilities=capabilities)
    await stage.open()
    return stage, Bench(stage, provider)


class TestAfterACrash:
    @pytest.mark.timeout(120)  # a thousand predictions on a real file, twice over
    @pytest.mark.parametrize("capabilities", [LISTED, LISTED_WITH_CALLBACKS], ids=["by input", "by address"])
    @virtual
    async def test_a_thousand_cost_a_few_walks(self, tmp_path: Path, capabilities: Capabilities) -> None:
        """Their looks are due within two seconds, a walk takes half of one: four, the first, and some for the rest."""
        stage = Stage(tmp_path, pay_twice_up_to="1")
        script = Script(answer_seconds=60, run_seconds=20, callbacks=0)
        provider = stage.provider("first", script, capabilities=capabilities)
        second = stage.provider("second")
        provider.list_seconds = 0.5
        async with stage:
            for number in range(MANY):
                await stage.post(number=number)
            await stage.until(lambda: len(provider.jobs) == MANY)
            await stage.kill()
            await stage.open()
            searched, got = counted(stage, "search_predictions"), counted(stage, "get")
            polls = seconds_of(stage, provider, "poll")
            for id in stage.accepted:
                prediction = await stage.ended(id)
                assert (prediction.status, prediction.attempts[0].resolved_by) == (Status.SUCCEEDED, "listing")
            assert second.submits == []
            assert len(provider.submits) == len(provider.jobs) == MANY
            assert await stage.ledger(stage.accepted[-1]) == [(1, "settled", PRICE)]
            assert sum(provider.looks) == MANY, "somebody had to look twice"
            assert len(provider.looks) <= 10, f"the list was read {len(provider.looks)} times"
            pages = -(-MANY // ownership.PAGE)
            most = 0 if capabilities is LISTED_WITH_CALLBACKS else len(provider.looks) * pages
            assert len(searched) <= most, f"the store was searched {len(searched)} times"
            busiest = max(polls.values())
            assert busiest <= 3 * MOST_ADOPTED_POLLS_PER_SECOND, f"{busiest} polls in one second, of jobs found at once"
            print(f"\nlooks {provider.looks}, store searches {len(searched)}, gets {len(got)}")


def counted(stage: Stage, verb: str) -> list[None]:
    """Grows with each call of the store's verb."""
    calls: list[None] = []
    call = getattr(stage.store.store, verb)

    async def count(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return await call(*args, **kwargs)

    setattr(stage.store.store, verb, count)
    return calls


def seconds_of(stage: Stage, provider: FakeProvider, verb: str) -> Counter[int]:
    """How often the provider's verb was called in each second."""
    times: Counter[int] = Counter()
    call = getattr(provider, verb)

    async def count(*args: Any, **kwargs: Any) -> Any:
        times[int(stage.clock.monotonic())] += 1
        return await call(*args, **kwargs)

    setattr(provider, verb, count)
    return times


class TestWalks:
    @virtual
    async def test_who_asks_while_one_is_under_way_is_served_by_the_next(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.provider.list_seconds = 2.0
        early = bench.ask(bench.unanswered("early", number=1))
        await asyncio.sleep(1)
        assert bench.provider.looks == [1], "a lone asker waits for nobody"
        late = [bench.ask(bench.unanswered(f"late{number}", number=10 + number)) for number in range(5)]
        assert await early == {"id": "job of early"}
        assert [await one for one in late] == [{"id": f"job of late{number}"} for number in range(5)]
        assert bench.provider.looks == [1, 5]
        await stage.close()

    @virtual
    async def test_nothing_is_kept_of_a_list(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        asked = bench.unanswered("one", has_job=False, number=1)
        assert await bench.ask(asked) is None
        bench.start(asked[0], "it lagged behind")
        assert await bench.ask(asked) == {"id": "it lagged behind"}
        await stage.close()

    @virtual
    async def test_providers_do_not_wait_for_each_other(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        slow, quick = (stage.provider(name, capabilities=LISTED) for name in ("slow", "quick"))
        slow.list_seconds = 30.0
        async with stage:
            one = Bench(stage, slow)
            other = Bench(stage, quick)
            other.search, other.shelf = one.search, one.shelf
            waiting = one.ask(one.unanswered("one", number=1))
            await asyncio.sleep(1)
            began = stage.clock.monotonic()
            assert await other.ask(other.unanswered("other", number=2)) == {"id": "job of other"}
            assert stage.clock.monotonic() - began < 1
            assert not waiting.done()
            await one.search.aclose()

    @virtual
    async def test_one_that_hangs_up_breaks_nobodys_walk(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.provider.list_seconds = 2.0
        walking = [bench.ask(bench.unanswered(f"w{number}", number=number)) for number in range(3)]
        await asyncio.sleep(1)
        waiting = [bench.ask(bench.unanswered(f"n{number}", number=10 + number)) for number in range(3)]
        await asyncio.sleep(0)
        for one in (walking[0], waiting[0]):
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
        for number in (1, 2):
            assert await walking[number] == {"id": f"job of w{number}"}
            assert await waiting[number] == {"id": f"job of n{number}"}
        assert bench.provider.looks == [3, 2], "nobody looks for one who has gone"
        await stage.close()

    @virtual
    async def test_a_walk_that_fails_fails_for_all_of_it_and_for_nobody_later(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.provider.list_seconds, bench.provider.list_raises = 2.0, PollFailed("503")
        askers = [bench.ask(bench.unanswered(f"one{number}", number=number)) for number in range(3)]
        await asyncio.sleep(1)
        later = bench.ask(bench.unanswered("later", number=9))
        for one in askers:
            with pytest.raises(PollFailed, match="503"):
                await one
        bench.provider.list_raises = None
        assert await later == {"id": "job of later"}
        assert await bench.ask(bench.unanswered("last", number=10)) == {"id": "job of last"}
        await stage.close()

    @virtual
    async def test_a_bug_is_told_and_crashes_nobody(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        stage, bench = await opened(tmp_path)
        bench.provider.list_raises = ZeroDivisionError("a bug")
        askers = [bench.ask(bench.unanswered(f"one{number}", number=number)) for number in range(3)]
        for one in askers:
            with pytest.raises(PollFailed, match="ZeroDivisionError"):
                await one
        [record] = [record for record in caplog.records if record.exc_info]
        assert "looking through the list of first failed" in record.getMessage()
        await stage.close()

    @virtual
    async def test_one_failure_is_one_askers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stage, bench = await opened(tmp_path)
        find = bench.provider.find

        async def spoiled(submits: Any) -> Any:
            found: list[Any] = await find(submits)
            return [ProviderFailure("too far back"), *found[1:]]

        monkeypatch.setattr(bench.provider, "find", spoiled)
        one, other = (bench.ask(bench.unanswered(name, word=name)) for name in ("one", "other"))
        with pytest.raises(ProviderFailure, match="too far back"):
            await one
        assert await other == {"id": "job of other"}
        await stage.close()

    @virtual
    async def test_one_that_never_ends_is_given_up(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.provider.list_seconds = 3_600.0
        began = stage.clock.monotonic()
        with pytest.raises(PollFailed, match="took more than"):
            await bench.ask(bench.unanswered("one", number=1))
        assert stage.clock.monotonic() - began <= search.WALK_SECONDS + 1
        bench.provider.list_seconds = 0.0
        assert await bench.ask(bench.unanswered("two", number=2)) == {"id": "job of two"}
        await stage.close()

    @virtual
    async def test_a_drain_waits_for_no_walk_and_leaves_none(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=3_000)
        provider = stage.provider("first", replace(LOST, run_seconds=300), capabilities=LISTED)
        provider.list_seconds = 50.0
        async with stage:
            ids = [await stage.post(number=number) for number in range(3)]
            await stage.until(lambda: bool(provider.looks))
            began, others = stage.clock.monotonic(), asyncio.all_tasks()
            await stage.close()
            assert stage.clock.monotonic() - began < 1, "it held up the drain"
            left = {task.get_name() for task in asyncio.all_tasks() & others if not task.done()}
            assert not [task for task in asyncio.all_tasks() if "_serve" in repr(task)], left
            provider.list_seconds = 0.5
            await stage.open()
            for id in ids:
                assert (await stage.ended(id, within=3_000)).status is Status.SUCCEEDED

    @virtual
    async def test_after_the_drain_nobody_walks(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        await bench.search.aclose()
        with pytest.raises(BrokenOff):
            await bench.ask(bench.unanswered("one", number=1))
        assert bench.provider.looks == []
        await stage.close()


class TestWhoseJobInOneWalk:
    @virtual
    async def test_what_may_be_either_ones_is_neithers(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        asked = [bench.unanswered(name, has_job=name == "one", prompt="a heron") for name in ("one", "other")]
        third = bench.unanswered("third", prompt="a crane")
        told = [bench.ask(one) for one in (*asked, third)]
        assert [await one for one in told] == [None, None, {"id": "job of third"}]
        assert bench.provider.looks == [3]
        await stage.close()

    @virtual
    async def test_nor_when_their_times_are_far_apart_and_the_job_has_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both are told of it at once, and neither is in the store as close to the other."""
        stage, bench = await opened(tmp_path)
        asked = [bench.unanswered("one", prompt="x"), bench.unanswered("other", begun=600, has_job=False, prompt="x")]
        find = bench.provider.find

        async def undated(submits: Any) -> Any:
            [found, _] = await find(submits)
            return [(replace(found[0], created_at=None),)] * 2

        monkeypatch.setattr(bench.provider, "find", undated)
        told = [bench.ask(one) for one in asked]
        assert [await one for one in told] == [None, None]
        await stage.close()

    @virtual
    async def test_one_that_asks_twice_is_not_his_own_rival(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        asked = bench.unanswered("one", prompt="a heron")
        assert await asyncio.gather(bench.ask(asked), bench.ask(asked)) == [{"id": "job of one"}] * 2
        await stage.close()

    @virtual
    async def test_another_has_it(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.unanswered("owner", handle="job of one", has_job=False, prompt="something else", begun=20_000)
        one, other = bench.ask(bench.unanswered("one", n=1)), bench.ask(bench.unanswered("other", n=2))
        assert (await one, await other) == (None, {"id": "job of other"})
        await stage.close()

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, None),
            ({"prompt": "a crane"}, {"id": "job of one"}),
            ({"begun": 200.0}, {"id": "job of one"}),
            ({"handle": "another job"}, {"id": "job of one"}),
        ],
        ids=["may own it", "asked for something else", "asked at another time", "has another job"],
    )
    @virtual
    async def test_one_who_does_not_ask_may_own_it(
        self, tmp_path: Path, changes: dict[str, Any], expected: dict[str, str] | None
    ) -> None:
        stage, bench = await opened(tmp_path)
        bench.unanswered("silent", **({"prompt": "a heron", "has_job": False} | changes))
        told = bench.ask(bench.unanswered("one", prompt="a heron"))
        assert await told == expected
        await stage.close()

    @virtual
    async def test_each_has_rivals_of_his_own(self, tmp_path: Path) -> None:
        """Told apart however deep the difference lies."""
        stage, bench = await opened(tmp_path)

        def deep(number: int) -> Any:
            return {"a": {"b": {"c": {"d": {"e": {"f": {"g": number}}}}}}}

        for number in (1, 2):
            bench.unanswered(f"silent{number}", has_job=False, prompt=deep(number))
        told = [bench.ask(bench.unanswered(f"one{number}", prompt=deep(number))) for number in (1, 2, 3)]
        assert [await one for one in told] == [None, None, {"id": "job of one3"}]
        shallow = [bench.ask(bench.unanswered(f"two{number}", prompt=number)) for number in (1, 2)]
        bench.unanswered("silent", has_job=False, prompt=2)
        assert [await one for one in shallow] == [{"id": "job of two1"}, None]
        await stage.close()

    @virtual
    async def test_the_store_is_searched_once_for_all_and_not_for_what_is_certain(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.shelf.per_page = 50
        silent = [bench.unanswered(f"s{number}", has_job=False, n=-number) for number in range(1, 31)]
        told = [bench.ask(bench.unanswered(f"a{number}", n=number)) for number in range(70)]
        assert [await one for one in told] == [{"id": f"job of a{number}"} for number in range(70)]
        assert (bench.shelf.pages, bench.shelf.gets) == (2, len(silent))
        await stage.close()

        stage, bench = await opened(tmp_path / "..", LISTED_WITH_CALLBACKS)
        assert await bench.ask(bench.unanswered("certain", n=1)) == {"id": "job of certain"}
        assert (bench.shelf.pages, bench.shelf.gets) == (0, 0)
        await stage.close()

    @virtual
    async def test_a_store_that_is_out_is_the_trouble_of_those_who_need_it(self, tmp_path: Path) -> None:
        stage, bench = await opened(tmp_path)
        bench.shelf.raises = StoreUnavailable("the disk is gone")
        needs, needs_not = bench.unanswered("needs", n=1), bench.unanswered("needsnot", has_job=False, n=2)
        one, other = bench.ask(needs), bench.ask(needs_not)
        with pytest.raises(StoreUnavailable):
            await one
        assert await other is None
        await stage.close()

    @virtual
    async def test_more_than_can_be_looked_through(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(ownership, "MOST_PAGES", 3)
        stage, bench = await opened(tmp_path)
        bench.shelf.per_page = 10
        for number in range(29):
            bench.unanswered(f"s{number}", handle=f"h{number}", has_job=False, n=-number)
        asked = bench.unanswered("one", n=1)
        assert await bench.ask(asked) == {"id": "job of one"}
        bench.unanswered("toomany", handle="h", has_job=False, n=99)
        with caplog.at_level(logging.WARNING):
            assert await bench.ask(asked) is None
        assert "too many predictions at first to say whose the jobs are" in caplog.text
        await stage.close()
