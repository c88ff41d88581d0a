"""When jobs are asked about; and that with every callback lost nothing is lost but a little time (T7)."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.prediction import Prediction, Status
from gateway.contract.provider import Call, Callbacks, Capabilities
from gateway.engine.attempt import Timing
from gateway.engine.poll import CallbackRecord, PollSchedule
from gateway.testing import FakeProvider, Script
from tests.unit.engine.stage import POLLED, WITH_CALLBACKS, Stage, virtual

QUEUE = frozenset({"queue"})
TIMING = Timing()


def a_schedule(*, is_called_back: bool = False, expected: float | None = None, **able: object) -> PollSchedule:
    capabilities = Capabilities(modes=QUEUE, callbacks=Callbacks.SIGNED, **able)  # type: ignore[arg-type]
    return PollSchedule(capabilities, TIMING, is_called_back=is_called_back, expected_seconds=expected)


def moments(schedule: PollSchedule, until: float, *, is_doubtful: bool = False) -> list[float]:
    """When it polls, in the middle of the jitter."""
    passed, found = 0.0, []
    while passed < until:
        passed += schedule.next_seconds(passed, lambda: 0.5, is_doubtful=is_doubtful)
        found.append(passed)
    return found


@given(
    is_called_back=st.booleans(),
    is_doubtful=st.booleans(),
    expected=st.one_of(st.none(), st.floats(0.01, 5_000)),
    least=st.floats(0.1, 20),
    lifetime=st.one_of(st.none(), st.floats(1, 90_000)),
    passed=st.floats(0, 90_000),
    draw=st.floats(0, 0.999),
)
def test_never_closer_than_allowed_and_never_sparser_than_a_third_of_the_results_life(
    is_called_back: bool,
    is_doubtful: bool,
    expected: float | None,
    least: float,
    lifetime: float | None,
    passed: float,
    draw: float,
) -> None:
    schedule = a_schedule(
        is_called_back=is_called_back, expected=expected, min_poll_seconds=least, result_lifetime_seconds=lifetime
    )
    seconds = schedule.next_seconds(passed, lambda: draw, is_doubtful=is_doubtful)
    assert seconds >= least
    if lifetime is not None:
        assert seconds <= max(least, lifetime / 3)
    assert seconds <= max(least, TIMING.longest_poll if is_called_back else TIMING.longest_poll_alone)


def test_most_polls_are_near_the_expected_end() -> None:
    polls = moments(a_schedule(is_called_back=True, expected=40.0), 60.0, is_doubtful=True)
    near = [at for at in polls if 36 <= at <= 60]
    assert len(near) >= len(polls) / 2, polls
    assert any(36 <= at <= 40 for at in polls), polls


def test_what_has_waited_long_is_asked_about_at_once_and_then_ever_more_rarely() -> None:
    schedule = a_schedule(expected=4.0)
    steps = [schedule.next_seconds(passed, lambda: 0.5) for passed in (3.9, 6.0, 10.0, 20.0, 60.0)]
    assert steps[0] == pytest.approx(0.8)
    assert steps == sorted(steps)
    assert steps[-1] == TIMING.longest_poll_alone


def test_where_callbacks_work_polls_are_few() -> None:
    assert len(moments(a_schedule(is_called_back=True, expected=2.0), 60.0)) <= 6
    assert moments(a_schedule(is_called_back=True, expected=20.0), 30.0)[0] == 40.0


def test_jitter_is_a_fifth_to_both_sides() -> None:
    schedule = a_schedule(is_called_back=True)
    assert schedule.next_seconds(0.0, lambda: 0.0) == pytest.approx(4.0)
    assert schedule.next_seconds(0.0, lambda: 1.0) == pytest.approx(6.0)


def test_one_lost_callback_is_enough_to_doubt_and_many_that_came_take_it_away() -> None:
    record = CallbackRecord()
    assert not record.is_doubtful("p", 0.0)
    record.missed("p", 0.0)
    assert record.is_doubtful("p", 0.0)
    assert not record.is_doubtful("another", 0.0)
    for _ in range(20):
        record.came("p", 1.0)
    assert not record.is_doubtful("p", 1.0)


def test_a_doubt_fades() -> None:
    record = CallbackRecord()
    record.missed("p", 0.0)
    assert record.is_doubtful("p", 200.0)
    assert not record.is_doubtful("p", 900.0)


def run_time(call: Call) -> Script:
    """From a fraction of a second to most of a minute, drawn by the prediction's own number."""
    draw = random.Random(call.input["number"])
    return Script(
        queue_seconds=draw.choice([0.0, 0.0, 1.0, 5.0]),
        run_seconds=min(54.0, draw.lognormvariate(2.2, 1.0)),
        callbacks=0,
    )


PREDICTIONS = int(os.environ.get("TURNOUT_POLLED", "400"))  # 2,000 take half a minute


@pytest.mark.timeout(60)  # two thousand predictions through a real file: about ten seconds on an idle machine
@virtual
async def test_with_every_callback_lost_all_end_by_polls_in_good_time(tmp_path: Path) -> None:
    stage = Stage(tmp_path, deadline_seconds=600)
    provider = stage.provider("first", run_time, capabilities=WITH_CALLBACKS)
    async with stage:
        ids = []
        for number in range(PREDICTIONS):
            ids.append(await stage.post(number=number))
            await asyncio.sleep(0.1)
        predictions = [await stage.ended(id, within=200) for id in ids]
    late, polls = _figures(stage, provider, predictions)
    over = [seconds for seconds, bound in late if seconds > bound]
    print(
        f"\nT7, {PREDICTIONS} predictions, every callback lost: late p50 {late[len(late) // 2][0]:.2f} s, "
        f"p99 {late[int(len(late) * 0.99)][0]:.2f} s, most {late[-1][0]:.2f} s, {len(over)} over max(10 s, 1.6 x run "
        f"time); polls of one: mean "
        f"{sum(polls) / len(polls):.2f}, most {max(polls)}"
    )
    assert all(prediction.status is Status.SUCCEEDED for prediction in predictions)
    assert late[len(late) // 2][0] <= 5.0
    assert len(over) <= len(late) / 100, f"{len(over)} waited too long: {over[:10]}"
    assert max(polls) <= 12


def _figures(
    stage: Stage, provider: FakeProvider, predictions: list[Prediction]
) -> tuple[list[tuple[float, float]], list[int]]:
    """How late each end was known, with what is borne for it, in order; and how often each was asked about."""
    jobs = {job.prediction: job for job in provider.jobs}
    start = stage.clock.now() - stage.clock.now().__class__.resolution * 0
    began = start.timestamp() - stage.clock.monotonic()
    late = []
    for prediction in predictions:
        job = jobs[prediction.id]
        assert prediction.completed_at is not None
        seconds = prediction.completed_at.timestamp() - began - job.ends_at
        late.append((seconds, max(10.0, 1.6 * (job.ends_at - job.started_at))))
    return sorted(late), [jobs[prediction.id].polls for prediction in predictions]


@virtual
async def test_a_provider_whose_callbacks_come_is_hardly_polled(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(run_seconds=3), capabilities=WITH_CALLBACKS)
    async with stage:
        for _ in range(30):
            await stage.run()
        assert sum(job.polls for job in provider.jobs) == 0


@virtual
async def test_what_another_worker_sent_is_asked_about_soon_after_it_is_adopted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider("first", Script(run_seconds=20, callbacks=0), capabilities=WITH_CALLBACKS)
    async with stage:
        id = await stage.post()
        await asyncio.sleep(1)
        await stage.kill()
        await asyncio.sleep(60)
        opened = stage.clock.monotonic()
        await stage.open()
        await stage.ended(id)
        assert stage.clock.monotonic() - opened <= 40  # a dead worker's lease, and the first poll
        await stage.check((await stage.settled(id)).id)


@virtual
async def test_where_nobody_calls_a_long_job_is_still_looked_at_every_few_seconds(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    provider = stage.provider("first", Script(queue_seconds=20, run_seconds=40), capabilities=POLLED)
    async with stage:
        prediction = await stage.run()
        assert prediction.started_at is not None
        assert (prediction.started_at - prediction.created_at).total_seconds() < 27
        assert provider.jobs[0].polls <= 30
