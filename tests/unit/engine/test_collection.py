"""While the winner's files are copied: the others are stopped, a drain does not wait, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import OutcomeUnknown, PollFailed
from gateway.contract.fact import CancelSent, Learned, Source
from gateway.contract.prediction import Prediction, Status
from gateway.contract.provider import Cancellation
from gateway.testing import Job, Script
from tests.unit.engine.stage import POLLED, WITH_CALLBACKS, Keeping, Stage, virtual

LISTED = replace(POLLED, lists=True)
FILE = Script(output="https://provider.example/out.png")
ENDLESS = Script(raises=OutcomeUnknown("the line broke"), run_seconds=math.inf)
LONG_SECONDS = 300.0


class Copying(Keeping):
    """A download that takes as long as it likes: `rest` lets it come to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = asyncio.Event()
        self.broken_off = 0

    async def collect(self, prediction: Prediction, attempt: Attempt, output: Any, **how: Any) -> Any:
        self.tries += 1
        try:
            await self.rest.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        self.tries -= 1
        return await super().collect(prediction, attempt, output, **how)


class Race(Stage):
    """The first submit is not answered and runs for ever, the second wins with a file that is slow to copy."""

    def __init__(self, folder: Path, first: Script = ENDLESS, **changes: Any) -> None:
        super().__init__(folder, pay_twice_up_to="1", deadline_seconds=900, **changes)
        self.collector: Copying = Copying()
        self.first = self.provider("first", first, capabilities=WITH_CALLBACKS)
        self.second = self.provider("second", replace(FILE, run_seconds=5))

    @property
    def job(self) -> Job:
        return self.first.jobs[0]

    async def calls_back(self) -> None:
        """The first says that it runs."""
        assert self.job.callback_url is not None
        await self.deliver(self.job.callback_url, *self.first.callback(self.job))

    async def copies(self) -> None:
        await self.until(lambda: self.collector.tries > 0)

    async def copying_beside_a_loser(self) -> str:
        id = await self.post(file_output=True)
        await self.copies()
        await self.calls_back()
        return id


class TestLosers:
    @pytest.mark.parametrize("is_known_before", [True, False], ids=["known before", "learned meanwhile"])
    @virtual
    async def test_they_are_stopped_while_the_files_are_copied(self, tmp_path: Path, is_known_before: bool) -> None:
        async with Race(tmp_path) as stage:
            id = await stage.post(file_output=True)
            if is_known_before:
                await stage.until(lambda: bool(stage.second.jobs))
                await stage.calls_back()
                await stage.copies()
            else:
                await stage.copies()
                await stage.calls_back()
            known_at = stage.clock.monotonic()
            await stage.until(lambda: stage.job.canceled_at is not None)
            assert stage.clock.monotonic() - known_at < 1
            prediction = await stage.read(id)
            assert [a.status for a in prediction.attempts] == [AttemptStatus.CANCELED, AttemptStatus.COLLECTING]
            await asyncio.sleep(LONG_SECONDS)
            assert (stage.job.cancels, stage.collector.tries) == (1, 1)
            stage.collector.rest.set()
            prediction = await stage.ended(id)
            assert prediction.output == f"https://turnout.test/artifacts/{id}/2"
            await stage.settled(id)
            await stage.check(id, may_pay_twice=True)

    @pytest.mark.parametrize("attempt_seconds", [0, 10], ids=["unknown", "given up"])
    @virtual
    async def test_one_that_is_found_in_a_list_meanwhile_is_stopped_too(
        self, tmp_path: Path, attempt_seconds: float
    ) -> None:
        stage = Race(tmp_path, attempt_seconds=attempt_seconds)
        listed = replace(ENDLESS, listed_seconds=45)
        first = stage.provider("first", listed, capabilities=LISTED)
        async with stage:
            id = await stage.post(file_output=True)
            await stage.copies()
            await stage.until(lambda: first.jobs[0].canceled_at is not None, within=120)
            assert first.jobs[0].canceled_at is not None
            assert first.jobs[0].canceled_at >= 45
            assert (await stage.read(id)).attempts[1].status is AttemptStatus.COLLECTING
            stage.collector.rest.set()
            await stage.ended(id)
            await stage.settled(id)
            await stage.check(id, may_pay_twice=True)

    @virtual
    async def test_one_that_does_not_hear_is_asked_five_times_and_then_only_looked_at(self, tmp_path: Path) -> None:
        async with Race(tmp_path, replace(ENDLESS, cancel=PollFailed("nobody there"))) as stage:
            id = await stage.copying_beside_a_loser()
            await asyncio.sleep(LONG_SECONDS)
            assert stage.job.cancels == stage.timing.cancel_tries
            assert stage.job.polls < LONG_SECONDS / 5 + 20
            assert (await stage.read(id)).attempts[0].status is AttemptStatus.RUNNING
            stage.collector.rest.set()
            await stage.ended(id)
            assert (await stage.settled(id)).attempts[0].status is AttemptStatus.ABANDONED

    @virtual
    async def test_one_that_is_said_to_be_too_late_to_stop_is_not_asked_for_ever(self, tmp_path: Path) -> None:
        async with Race(tmp_path, replace(ENDLESS, cancel=Cancellation.TOO_LATE)) as stage:
            await stage.copying_beside_a_loser()
            await asyncio.sleep(LONG_SECONDS)
            assert stage.job.cancels == stage.timing.cancel_tries
            stage.collector.rest.set()

    @virtual
    async def test_a_cancel_that_hangs_does_not_keep_the_result_back(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            asked = asyncio.Event()

            async def hang(handle: dict[str, str]) -> Cancellation:
                asked.set()
                await asyncio.sleep(60)
                return Cancellation.UNSUPPORTED

            stage.first.cancel = hang  # type: ignore[method-assign]
            id = await stage.copying_beside_a_loser()
            await asked.wait()
            stage.collector.rest.set()
            await stage.ended(id, within=1)

    @virtual
    async def test_a_bug_in_a_cancel_does_not_cost_the_result(self, tmp_path: Path) -> None:
        async with Race(tmp_path, replace(ENDLESS, cancel=RuntimeError("a bug in the adapter"))) as stage:
            id = await stage.copying_beside_a_loser()
            await asyncio.sleep(LONG_SECONDS)
            assert (stage.collector.tries, stage.collector.broken_off) == (1, 0)
            stage.collector.rest.set()
            assert (await stage.ended(id)).status is Status.SUCCEEDED

    @virtual
    async def test_a_store_that_is_out_meanwhile_does_not_break_the_copying_off(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            id = await stage.post(file_output=True)
            await stage.copies()
            stage.store.fails = lambda verb, happening: (
                isinstance(happening, CancelSent)
                or (isinstance(happening, Learned) and happening.source == Source.POLL)
            )
            await stage.calls_back()
            await asyncio.sleep(20)
            assert not await _is_over(stage, id)
            stage.store.fails = lambda verb, happening: False
            await stage.until(lambda: _is_over(stage, id))
            assert (stage.collector.tries, stage.collector.broken_off) == (1, 0)
            stage.collector.rest.set()
            await stage.ended(id)
            await stage.settled(id)
            await stage.check(id, may_pay_twice=True)

    @virtual
    async def test_if_the_files_are_lost_in_the_end_another_is_tried(self, tmp_path: Path) -> None:
        stage = Race(tmp_path, attempts=3)
        stage.provider("third", FILE)
        stage.collector.lost = {"second"}
        async with stage:
            id = await stage.copying_beside_a_loser()
            await stage.until(lambda: stage.job.canceled_at is not None)
            stage.collector.rest.set()
            prediction = await stage.ended(id)
            assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 3)
            await stage.settled(id)
            await stage.check(id, may_pay_twice=True)


class TestDrain:
    @virtual
    async def test_it_breaks_the_copying_off_and_the_next_one_copies_again(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            stage.first._script = replace(ENDLESS, starts=False)
            id = await stage.post(file_output=True)
            await stage.copies()
            begun = stage.clock.monotonic()
            await stage.close()
            assert stage.clock.monotonic() - begun < 1
            assert stage.collector.broken_off == 1

            stage.collector.rest.set()
            await stage.open()
            prediction = await stage.ended(id)
            assert prediction.output == f"https://turnout.test/artifacts/{id}/2"
            assert len(stage.second.submits) == 1
            await stage.settled(id)
            await stage.check(id, may_pay_twice=True)

    @virtual
    async def test_what_is_left_behind_is_the_win_with_its_files_still_to_be_copied(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            id = await stage.copying_beside_a_loser()
            store = stage.store
            assert stage.engine is not None
            await stage.engine.drain(seconds=20)
            prediction = await store.get(id)
            assert prediction is not None
            assert (prediction.winner, prediction.attempts[1].status) == (2, AttemptStatus.COLLECTING)
            held = await store.claim_due("another", limit=10)
            assert [each.prediction.id for each in held] == [id]

    @virtual
    async def test_files_that_are_here_are_committed_for_all_that(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            id = await stage.copying_beside_a_loser()
            await stage.until(lambda: stage.job.canceled_at is not None)
            await asyncio.sleep(1)
            assert stage.engine is not None
            stage.collector.rest.set()
            await asyncio.sleep(0)  # the files are here, and nobody has been told yet
            await stage.engine.drain(seconds=20)
            assert (await stage.read(id)).status is Status.SUCCEEDED

    @virtual
    async def test_a_run_that_is_cut_off_leaves_no_download_behind(self, tmp_path: Path) -> None:
        async with Race(tmp_path) as stage:
            await stage.copying_beside_a_loser()
            await stage.kill()
            assert stage.collector.broken_off == 1
            await stage.open()


async def _is_over(stage: Stage, id: str) -> bool:
    return (await stage.read(id)).attempts[0].status.is_closed
