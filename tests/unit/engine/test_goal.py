"""A plan for a goal leaves an attempt in time for the next one, and holds nothing against its provider."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import JobTimedOut, OutcomeUnknown, PlanMovedOn
from gateway.contract.prediction import Status
from gateway.contract.provider import Cancel
from gateway.contract.route import BreakerState
from gateway.engine.attempt import next_limit, overdue
from gateway.testing import Script
from gateway.testing.virtual import START
from policies.document import Goal, Rank
from tests.unit.engine.stage import MODEL, POLLED, Stage, virtual

SLOW, FAST = f"{MODEL}@slow", f"{MODEL}@fast"


def taught(stage: Stage) -> None:
    """The slow one takes six seconds, or thirty; the fast one five."""
    drawn = random.Random(4)
    for _ in range(200):
        for offer, seconds in ((SLOW, drawn.lognormvariate(math.log(6), 0.8)), (FAST, drawn.uniform(4.5, 5.5))):
            flight = stage.board.attempt_begun(offer)
            stage.board.attempt_ended(flight, total_seconds=seconds, run_seconds=seconds, blame=None)


def staged(folder: Path, *, cancel: Cancel = Cancel.ANY_TIME) -> Stage:
    stage = Stage(folder)
    stage.rank = Rank(by="goal", goal=Goal(success=0.98, within="30s"), explore=0)
    capabilities = POLLED if cancel is Cancel.ANY_TIME else type(POLLED)(modes=POLLED.modes, cancel=cancel)
    stage.provider("slow", Script(run_seconds=math.inf), price=1_000_000, capabilities=capabilities)
    stage.provider("fast", Script(run_seconds=5), price=30_000_000)
    return stage


@virtual
async def test_who_is_late_is_stopped_in_time_for_the_next(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        taught(stage)
        before = stage.board.snapshot(SLOW)
        prediction = await stage.run()
        first, second = prediction.attempts
        assert (first.provider, second.provider, prediction.status) == ("slow", "fast", Status.SUCCEEDED)
        assert first.failure is not None
        assert first.failure.code == PlanMovedOn.code
        assert first.move_on_at is not None
        assert first.status is AttemptStatus.CANCELED
        assert (second.ended_at or prediction.deadline_at) - prediction.created_at < timedelta(seconds=31)
        stage.clock.advance(1)
        after = stage.board.snapshot(SLOW)
        assert after.success == pytest.approx(before.success, abs=0.02)
        assert after.seconds[8] >= before.seconds[8]
        assert stage.breakers.view(SLOW)[0] is BreakerState.CLOSED
        await stage.settled(prediction.id)
        await stage.check(prediction.id)


@virtual
async def test_who_cannot_be_stopped_is_not_left(tmp_path: Path) -> None:
    async with staged(tmp_path, cancel=Cancel.NONE) as stage:
        taught(stage)
        id = await stage.post()
        await stage.until(lambda: bool(stage.providers["slow"].jobs or stage.providers["fast"].jobs))
        prediction = await stage.read(id)
        assert all(attempt.move_on_at is None for attempt in prediction.attempts if attempt.provider == "slow")
        await stage.cancel(id)


def attempt(status: AttemptStatus) -> Attempt:
    return Attempt(
        number=1,
        offer=SLOW,
        provider="slow",
        remote="m",
        version="0" * 64,
        token_hash="",
        begun_at=START,
        deadline_at=START + timedelta(seconds=60),
        move_on_at=START + timedelta(seconds=10),
        status=status,
    )


@pytest.mark.parametrize("status", [AttemptStatus.ACCEPTED, AttemptStatus.RUNNING])
def test_its_time_is_over_when_the_plan_says(status: AttemptStatus) -> None:
    made = attempt(status)
    assert next_limit(made) == START + timedelta(seconds=10)
    assert overdue(made, START + timedelta(seconds=9.9)) is None
    assert isinstance(overdue(made, START + timedelta(seconds=10)), PlanMovedOn)
    assert isinstance(overdue(made, START + timedelta(seconds=60)), JobTimedOut)


@pytest.mark.parametrize("status", [AttemptStatus.INTENT, AttemptStatus.UNKNOWN])
def test_of_whom_nobody_knows_anything_is_waited_for(status: AttemptStatus) -> None:
    made = attempt(status)
    assert next_limit(made) == START + timedelta(seconds=60)
    assert overdue(made, START + timedelta(seconds=10)) is None
    if status is AttemptStatus.UNKNOWN:
        assert isinstance(overdue(made, START + timedelta(seconds=60)), OutcomeUnknown)
