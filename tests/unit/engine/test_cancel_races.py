"""A cancel against everything that can come at the same moment: it ends once, as whoever was first says."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import JobTimedOut, ModelFailed, OutcomeUnknown, PollFailed
from gateway.contract.fact import (
    AttemptEnded,
    Begun,
    CancelRequested,
    CancelSent,
    Collected,
    DeadlinePassed,
    Fact,
    Happening,
    Learned,
    Notify,
    Phase,
    Source,
    StreamEvent,
    SubmitFailed,
)
from gateway.contract.prediction import Prediction, Status
from gateway.contract.provider import Cancel, Cancellation, Capabilities
from gateway.engine.lifecycle import reduce
from gateway.testing import Script
from tests.unit.engine.stage import POLLED, WITH_CALLBACKS, Stage, virtual
from tests.unit.engine.world import a_prediction, an_attempt, at, queued, running, succeeded

QUEUED_ONLY = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.QUEUED_ONLY)


def told(fact: Fact) -> Learned:
    return Learned(attempt=1, fact=fact, source=Source.CALLBACK)


async def canceled(stage: Stage, *, after: float) -> Prediction:
    """One that somebody cancels `after` seconds, once it has ended."""
    id = await stage.post()
    await asyncio.sleep(after)
    await stage.cancel(id)
    return await stage.ended(id)


def waited_seconds(prediction: Prediction) -> float:
    """From the wish to the end."""
    assert prediction.completed_at is not None
    assert prediction.cancel_requested_at is not None
    return (prediction.completed_at - prediction.cancel_requested_at).total_seconds()


HAPPENINGS: dict[str, Happening] = {
    "cancel": CancelRequested(),
    "cancel sent": CancelSent(attempt=1, confirmed=False),
    "cancel confirmed": CancelSent(attempt=1, confirmed=True),
    "timed out": CancelSent(attempt=1, confirmed=False, failure=JobTimedOut().failure),
    "queued": told(queued()),
    "running": told(running(["a"])),
    "succeeded": told(succeeded(["a", "b"])),
    "file": told(succeeded("https://provider.example/x.png")),
    "collected": Collected(attempt=1, output="https://ours/x.png"),
    "failed": told(Fact(phase=Phase.FAILED, failure=ModelFailed("oom").failure)),
    "canceled": told(Fact(phase=Phase.CANCELED)),
    "given up": AttemptEnded(attempt=1, failure=JobTimedOut().failure),
    "submit unknown": SubmitFailed(attempt=1, failure=OutcomeUnknown().failure),
    "deadline": DeadlinePassed(),
}


@settings(max_examples=600, deadline=None)
@given(order=st.lists(st.sampled_from(sorted(HAPPENINGS)), min_size=1, max_size=12), is_file=st.booleans())
def test_whatever_comes_in_whatever_order_it_ends_once_and_rightly(order: list[str], is_file: bool) -> None:
    prediction = a_prediction(deadline_at=at(30), file_output=is_file)
    prediction = reduce(prediction, Begun(attempt=an_attempt(1)), at(0.5)).prediction
    effects: Counter[str] = Counter()
    seen: list[str] = []
    for step, name in enumerate(order):
        before = prediction
        reduction = reduce(prediction, HAPPENINGS[name], at(40 if name == "deadline" else 1 + step))
        prediction = reduction.prediction
        effects["done"] += sum(isinstance(e, StreamEvent) and e.event == "done" for e in reduction.effects)
        effects["completed"] += sum(isinstance(e, Notify) and e.event == "completed" for e in reduction.effects)
        seen.append(name)
        if before.is_terminal:
            ended = (before.status, before.output, before.error, before.completed_at)
            assert (prediction.status, prediction.output, prediction.error, prediction.completed_at) == ended, seen
        elif prediction.status is Status.CANCELED:
            files_are_gone = before.attempts[0].status is AttemptStatus.COLLECTING and name == "given up"
            assert before.winner is None or files_are_gone, "a success that had landed was taken back"
            assert "cancel" in seen
        if prediction.cancel_requested_at is not None and not prediction.is_terminal:
            assert any(not attempt.status.is_closed for attempt in prediction.attempts), "nobody is left to wait for"
    assert effects["done"] == effects["completed"] == int(prediction.is_terminal)


@pytest.mark.parametrize("at_seconds", [round(0.25 * step, 2) for step in range(1, 25)])
def test_a_cancel_at_any_instant_ends_it_as_its_job_ended_in_the_providers_books(
    tmp_path: Path, at_seconds: float
) -> None:
    """A job that is queued for two seconds and runs for two, and a cancel every quarter of a second."""

    @virtual
    async def scenario() -> None:
        stage = Stage(tmp_path)
        provider = stage.provider("first", Script(queue_seconds=2, run_seconds=2), capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(at_seconds)
            await stage.cancel(id)
            prediction = await stage.ended(id)
            job = provider.jobs[0]
            was_stopped = job.canceled_at is not None
            assert prediction.status is (Status.CANCELED if was_stopped else Status.SUCCEEDED)
            assert was_stopped == (at_seconds < 4.0)
            assert prediction.completed_at is not None
            if was_stopped:
                assert (prediction.completed_at - prediction.created_at).total_seconds() < at_seconds + 1
                state = (await stage.ledger(id))[0][1]
                assert state == ("released" if at_seconds < 2 else "maybe") or job.canceled_at is not None
            await stage.settled(id)
            await stage.check(id)

    scenario()


@virtual
async def test_a_cancel_that_is_only_heard_is_final_when_the_provider_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first", Script(run_seconds=math.inf, cancel=Cancellation.REQUESTED), capabilities=POLLED)
    async with stage:
        prediction = await canceled(stage, after=1)
        assert prediction.status is Status.CANCELED
        assert prediction.attempts[0].status is AttemptStatus.CANCELED
        assert waited_seconds(prediction) < 5


@virtual
async def test_without_an_answer_it_is_asked_five_times_and_final_after_the_grace(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(run_seconds=math.inf, cancel=PollFailed("503")), capabilities=POLLED)
    async with stage:
        prediction = await canceled(stage, after=1)
        assert prediction.status is Status.CANCELED
        assert provider.jobs[0].cancels == stage.timing.cancel_tries == 5
        assert 30 <= waited_seconds(prediction) <= 36
        assert (await stage.ledger(prediction.id))[0][1] == "maybe"


@virtual
async def test_the_grace_is_counted_from_the_cancel_over_a_kill(tmp_path: Path) -> None:
    stage = Stage(tmp_path, deadline_seconds=600)
    stage.provider("first", Script(run_seconds=math.inf, cancel=PollFailed("503")), capabilities=POLLED)
    async with stage:
        id = await stage.post()
        await asyncio.sleep(1)
        await stage.cancel(id)
        await asyncio.sleep(5)
        await stage.kill()
        await stage.open()
        prediction = await stage.ended(id)
        assert prediction.status is Status.CANCELED
        # A dead worker's lease has to run out first.
        assert waited_seconds(prediction) <= 45


@virtual
async def test_a_success_within_the_grace_stays_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first", Script(run_seconds=15, cancel=PollFailed("503")), capabilities=WITH_CALLBACKS)
    async with stage:
        prediction = await canceled(stage, after=1)
        assert (prediction.status, prediction.output) == (Status.SUCCEEDED, "done")
        await stage.settled(prediction.id)
        await stage.check(prediction.id)


@virtual
async def test_what_runs_and_cannot_be_stopped_any_more_ends_as_it_ends(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first", Script(run_seconds=8, cancel=Cancellation.UNSUPPORTED), capabilities=QUEUED_ONLY)
    async with stage:
        prediction = await canceled(stage, after=2)
        assert prediction.status is Status.SUCCEEDED
