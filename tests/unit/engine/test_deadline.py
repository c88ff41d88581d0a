"""The four times of an attempt: rows of the store, told to the provider, enforced by who drives it, named in words."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import JobTimedOut, OutcomeUnknown, PollFailed
from gateway.contract.prediction import Status
from gateway.contract.provider import Call, Callbacks, Cancel, Cancellation, Capabilities
from gateway.testing import Script
from providers import fal, kserve, replicate, runpod
from tests.unit.engine.stage import POLLED, Stage, virtual

SLOW_CALLED = Capabilities(
    modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, callbacks=Callbacks.SIGNED, min_poll_seconds=0.5
)


def seconds(start: Any, end: Any) -> float:
    return float((end - start).total_seconds())


@virtual
async def test_a_job_that_does_not_start_in_time_moves_on_and_costs_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start_seconds=10)
    first = stage.provider("first", Script(queue_seconds=math.inf, run_seconds=1))
    stage.provider("second", Script(run_seconds=1))
    async with stage:
        prediction = await stage.run()
        waited, served = prediction.attempts
        assert prediction.status is Status.SUCCEEDED
        assert (waited.status, served.status) == (AttemptStatus.CANCELED, AttemptStatus.SUCCEEDED)
        assert waited.failure is not None
        assert waited.failure.code == JobTimedOut.code
        assert waited.failure.message == "it did not begin to run within 10 s"
        assert 10 <= seconds(waited.begun_at, waited.ended_at) < 12
        assert (await stage.ledger(prediction.id))[0] == (1, "released", 0)
        assert waited.cost.nanos == 0
        assert first.jobs[0].cancels == 1
        await stage.check(prediction.id)


@virtual
async def test_a_job_that_runs_too_long_is_stopped_and_may_have_been_billed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, run_seconds=15)
    stage.provider("first", Script(queue_seconds=20, run_seconds=math.inf))
    stage.provider("second", Script(run_seconds=14))
    async with stage:
        prediction = await stage.run()
        ran, served = prediction.attempts
        assert served.status is AttemptStatus.SUCCEEDED, "what runs for less is left alone"
        assert ran.failure is not None
        assert ran.failure.message == "it ran longer than the 15 s it may"
        assert ran.running_at is not None
        assert ran.run_deadline_at is not None
        assert seconds(ran.running_at, ran.run_deadline_at) == 15
        assert 15 <= seconds(ran.running_at, ran.ended_at) < 17
        assert (await stage.ledger(prediction.id))[0][1] == "maybe"
        await stage.check(prediction.id)


@virtual
async def test_a_job_that_began_unheard_is_not_taken_for_one_that_waits(tmp_path: Path) -> None:
    """Its callbacks tell only the end, and nobody polls for long: at the start's deadline somebody looks."""
    stage = Stage(tmp_path, start_seconds=3)
    stage.provider("first", Script(queue_seconds=2.5, run_seconds=20), capabilities=SLOW_CALLED)
    async with stage:
        prediction = await stage.run()
        assert len(prediction.attempts) == 1
        assert prediction.status is Status.SUCCEEDED


@virtual
async def test_all_four_are_rows_that_survive_a_kill_and_are_kept_by_who_adopts_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start_seconds=60, run_seconds=50, attempt_seconds=100)
    stage.provider("first", Script(queue_seconds=2, run_seconds=math.inf))
    stage.provider("second", Script(run_seconds=1))
    async with stage:
        assert stage.engine is not None
        stage.engine._parts.links["first"].submit_seconds = 15.0
        id = await stage.post()
        await asyncio.sleep(5)
        before = (await stage.read(id)).attempts[0]
        assert before.status is AttemptStatus.RUNNING
        await stage.kill()
        await stage.open()
        prediction = await stage.ended(id)
        first = prediction.attempts[0]
        for name in ("submit_deadline_at", "start_deadline_at", "run_deadline_at", "deadline_at"):
            assert getattr(first, name) == getattr(before, name) is not None
        assert first.failure is not None
        assert first.failure.message == "it ran longer than the 50 s it may"
        assert before.run_deadline_at is not None
        assert 0 <= seconds(before.run_deadline_at, first.ended_at) < 2
        await stage.settled(id)
        await stage.check(id)


@virtual
async def test_the_whole_of_an_attempt_is_bounded_too_and_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path, attempt_seconds=20)
    stage.provider("first", Script(run_seconds=math.inf))
    stage.provider("second")
    async with stage:
        prediction = await stage.run()
        failure = prediction.attempts[0].failure
        assert failure is not None
        assert failure.message == "it did not end within 20 s"


@virtual
async def test_a_cancel_that_does_not_get_through_is_sent_five_times_and_then_it_moves_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start_seconds=10)
    first = stage.provider("first", Script(queue_seconds=math.inf, cancel=PollFailed("503")))
    stage.provider("second")
    async with stage:
        prediction = await stage.ended(await stage.post())
        assert first.jobs[0].cancels == 5
        waited = prediction.attempts[0]
        assert waited.status is AttemptStatus.ABANDONED
        assert (await stage.ledger(prediction.id))[0][1] == "maybe"
        assert seconds(waited.begun_at, waited.ended_at) < 10 + 10
        assert prediction.status is Status.SUCCEEDED


@virtual
async def test_a_success_that_lands_while_it_is_being_stopped_is_taken(tmp_path: Path) -> None:
    stage = Stage(tmp_path, attempt_seconds=10)
    first = stage.provider("first", Script(run_seconds=12, cancel=PollFailed("503")), capabilities=SLOW_CALLED)
    stage.provider("second")
    async with stage:
        prediction = await stage.run()
        assert first.jobs[0].cancels >= 1
        assert (prediction.status, prediction.winner, len(prediction.attempts)) == (Status.SUCCEEDED, 1, 1)


@virtual
async def test_a_submit_that_nobody_answers_is_unknown_at_its_own_deadline(tmp_path: Path) -> None:
    stage = Stage(tmp_path, pay_twice_up_to="1")
    stage.provider("first", Script(answer_seconds=100, run_seconds=math.inf))
    stage.provider("second", Script(run_seconds=1))
    async with stage:
        assert stage.engine is not None
        stage.engine._parts.links["first"].submit_seconds = 15.0
        prediction = await stage.run()
        first = prediction.attempts[0]
        assert first.submit_deadline_at is not None
        assert seconds(first.begun_at, first.submit_deadline_at) == 15
        assert first.unknown_at is not None
        assert 15 <= seconds(first.begun_at, first.unknown_at) <= 17.5
        assert first.failure is not None
        assert first.failure.code in (OutcomeUnknown.code, "no_longer_needed")


@virtual
async def test_the_files_of_an_input_have_their_time_before_a_submit_counts_as_unanswered(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first")
    async with stage:
        assert stage.engine is not None
        stage.engine._parts.links["first"].submit_seconds = 15.0
        prediction = await stage.run(image="data:image/png;base64,AAAA")
        first = prediction.attempts[0]
        assert first.submit_deadline_at is not None
        assert seconds(first.begun_at, first.submit_deadline_at) == pytest.approx(120, abs=0.01), (
            "the prediction's own deadline is sooner"
        )


@virtual
async def test_the_call_says_what_is_left_of_each(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start_seconds=10, run_seconds=20, attempt_seconds=90)
    first = stage.provider("first", capabilities=POLLED)
    async with stage:
        await stage.run()
        call = first.submits[0]
        assert call.run_seconds == 20
        assert call.start_seconds == pytest.approx(10, abs=0.1)
        assert call.deadline_seconds == pytest.approx(90, abs=0.1)


def a_call(**changes: Any) -> Call:
    fields: dict[str, Any] = {
        "prediction": "p" * 26,
        "attempt": 1,
        "name": "acme/model",
        "version": None,
        "input": {},
        "idempotency_id": "i" * 26,
        "callback_url": None,
        "deadline_seconds": 600.0,
    }
    return Call(**(fields | changes))


def test_providers_are_told_the_times_they_have_knobs_for() -> None:
    plain, timed = a_call(), a_call(start_seconds=30.0, run_seconds=90.0)
    assert replicate.Replicate().submit(plain).headers["cancel-after"] == "600"
    assert replicate.Replicate().submit(timed).headers["cancel-after"] == "120"
    assert fal.Fal().submit(plain).headers["x-fal-request-timeout"] == "600"
    assert fal.Fal().submit(timed).headers["x-fal-request-timeout"] == "30"
    policy = runpod.RunPod().submit(a_call(name="endpoint")).json["policy"]
    assert policy["executionTimeout"] == 600_000
    policy = runpod.RunPod().submit(a_call(name="endpoint", start_seconds=30.0, run_seconds=90.0)).json["policy"]
    assert (policy["executionTimeout"], policy["ttl"] - 1_000 * int(runpod.SPARE_SECONDS)) == (90_000, 120_000)
    tensor = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
    options = {"queue_timeout": True}
    sent = kserve.KServe().submit(a_call(name="m", input={"x": 1.0}, options=options, start_seconds=30.0)).json
    assert sent["parameters"]["timeout"] == 30_000_000, tensor


def test_a_shorter_whole_wins_over_its_parts() -> None:
    call = a_call(deadline_seconds=20.0, start_seconds=30.0, run_seconds=90.0)
    assert (call.seconds_to_start, call.seconds_to_run, call.seconds_to_end) == (20.0, 20.0, 20.0)


@virtual
async def test_a_cancel_that_came_too_late_shows_what_became_of_it(tmp_path: Path) -> None:
    """The job ends between our look and our cancel."""
    stage = Stage(tmp_path, attempt_seconds=10)
    stage.provider("first", Script(run_seconds=10.4, cancel=Cancellation.TOO_LATE), capabilities=POLLED)
    stage.provider("second")
    async with stage:
        prediction = await stage.run()
        assert [attempt.status for attempt in prediction.attempts] == [AttemptStatus.SUCCEEDED]
        await stage.check(prediction.id)
