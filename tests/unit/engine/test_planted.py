"""Proof that the checks of `stage` can fail: each planted bug is caught by the check that is there for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import ModelFailed, OutcomeUnknown
from gateway.contract.fact import Begun, Fact, Happening, Learned, LedgerEntry, Notify, Phase
from gateway.contract.prediction import Prediction, Status
from gateway.contract.provider import Cancellation
from gateway.engine import failover, run, submission
from gateway.engine.agenda import Agenda
from gateway.engine.hand import Hand
from gateway.engine.lifecycle import open_attempts, reduce
from gateway.engine.run import Run
from gateway.engine.withdrawal import Withdrawal
from gateway.store.protocol import Reduce, Reduction
from gateway.testing import Script, run_virtual
from tests.unit.engine.stage import WITH_CALLBACKS, Stage

Scenario = Callable[[Path, Reduce], Awaitable[None]]


# -- what happens -----------------------------------------------------------------------------------------------------


async def plainly(folder: Path, reduce: Reduce) -> None:
    """A job that succeeds, and then is said to have failed, by a callback that comes late."""
    stage = Stage(folder)
    stage.reduce = reduce
    first = stage.provider("first", capabilities=WITH_CALLBACKS)
    async with stage:
        prediction = await stage.run()
        said = Fact(phase=Phase.FAILED, handle={"id": first.jobs[0].id}, failure=ModelFailed("late").failure)
        assert stage.engine is not None
        await stage.store.apply(prediction.id, Learned(attempt=1, fact=said, source="callback"))
        await stage.check(prediction.id)


async def crashing(folder: Path, reduce: Reduce) -> None:
    """The engine dies between an intent and its answer; the job runs."""
    stage = Stage(folder)
    stage.reduce = reduce
    stage.provider("first", Script(answer_seconds=10, run_seconds=20))
    async with stage:
        id = await stage.post()
        await asyncio.sleep(1)
        await stage.kill()
        await stage.open()
        await stage.ended(id)
        await stage.settled(id)
        await stage.check(id)


async def losing_an_answer(folder: Path, reduce: Reduce) -> None:
    """The answer of a submit is lost, and the next candidate is a dear one."""
    stage = Stage(folder)
    stage.reduce = reduce
    stage.provider("first", Script(raises=OutcomeUnknown("the line broke"), run_seconds=20))
    stage.provider("second")
    async with stage:
        prediction = await stage.run()
        await stage.check(prediction.id)


async def canceling(folder: Path, reduce: Reduce) -> None:
    """A caller cancels what would run for ever."""
    stage = Stage(folder)
    stage.reduce = reduce
    stage.provider("first", Script(run_seconds=math.inf))
    async with stage:
        id = await stage.post()
        await asyncio.sleep(3)
        await stage.cancel(id)
        await stage.ended(id)
        await stage.settled(id)
        await stage.check(id)


# -- the bugs ---------------------------------------------------------------------------------------------------------


def send_before_intent(patch: pytest.MonkeyPatch) -> None:
    commit = Hand.commit

    async def eager(self: Hand, happening: Happening) -> None:
        if isinstance(happening, Begun):
            parts, attempt = self.parts, happening.attempt
            offer, link = parts.offer(attempt.offer), parts.links[attempt.provider]
            assert offer is not None
            await submission.send(
                self.prediction,
                attempt,
                offer,
                link,
                intake=parts.intake,
                callback_base=parts.callback_base,
                secret=parts.secret,
                now=self.now(),
                on_fact=lambda fact: asyncio.sleep(0),
                confirm=lambda: asyncio.sleep(0),
                may_send=lambda: True,
            )
        await commit(self, happening)

    patch.setattr(Hand, "commit", eager)


def submit_again_on_resume(patch: pytest.MonkeyPatch) -> None:
    async def hasty(self: Run) -> None:
        for attempt in open_attempts(self.prediction):
            offer, link = self._hand.offer(attempt), self._hand.link(attempt)
            if attempt.handle is None and offer is not None and link is not None:
                await self._submission._send(attempt, offer, link)

    patch.setattr(Run, "_resume", hasty)


def retry_on_unknown(patch: pytest.MonkeyPatch) -> None:
    def after_a_second(self: Agenda, attempt: Attempt, now: datetime) -> datetime | None:
        if attempt.status is not AttemptStatus.UNKNOWN:
            return None
        return now + timedelta(seconds=self._sent_at[attempt.number] + 1 - self._parts.clock.monotonic())

    patch.setattr(Agenda, "resend_at", after_a_second)


def pay_twice_at_any_price(patch: pytest.MonkeyPatch) -> None:
    def careless(prediction: Prediction, plan: Any, *, pays_twice: bool) -> Any:
        return failover.choose(prediction, plan, pays_twice=False)

    patch.setattr(run, "choose", careless)


def forget_the_losers(patch: pytest.MonkeyPatch) -> None:
    async def idle(self: Withdrawal, attempt: Any) -> None:
        return None

    patch.setattr(Withdrawal, "_cancel", idle)


def trust_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """Count a cancel that was refused as done."""
    stop = Withdrawal._cancel

    async def trusting(self: Withdrawal, attempt: Any) -> None:
        driver = self._hand.parts.links[attempt.provider].driver

        async def cancel(handle: dict[str, str]) -> Cancellation:
            return Cancellation.STOPPED

        patch.setattr(driver, "cancel", cancel)
        await stop(self, attempt)

    patch.setattr(Withdrawal, "_cancel", trusting)


def nothing(patch: pytest.MonkeyPatch) -> None:
    """No bug at all: the scenarios themselves are sound."""


def ignore_that_it_is_closed(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    reduction = reduce(prediction, happening, now)
    if isinstance(happening, Learned) and happening.fact.phase is Phase.FAILED and prediction.is_terminal:
        changed = replace(prediction, status=Status.FAILED, error="late", completed_at=now)
        return Reduction(prediction=changed, is_open=False)
    return reduction


def drop_the_ledger(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    return _without(LedgerEntry, reduce(prediction, happening, now))


def drop_the_delivery(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    return _without(Notify, reduce(prediction, happening, now))


def forget_what_may_be_billed(prediction: Prediction, happening: Happening, now: datetime) -> Reduction:
    """An unknown outcome is released as if nothing had run."""
    reduction = reduce(prediction, happening, now)
    effects = tuple(
        replace(effect, state="released") if isinstance(effect, LedgerEntry) and effect.state == "maybe" else effect
        for effect in reduction.effects
    )
    return replace(reduction, effects=effects)


def _without(kind: type, reduction: Reduction) -> Reduction:
    return replace(reduction, effects=tuple(e for e in reduction.effects if not isinstance(e, kind)))


ENGINE_BUGS = [
    (send_before_intent, plainly, "before its intent"),
    (submit_again_on_resume, crashing, "was started 2 times"),
    (retry_on_unknown, losing_an_answer, r"was started \d+ times"),
    (pay_twice_at_any_price, losing_an_answer, "was started while"),
    (forget_the_losers, canceling, "is an orphan"),
    (trust_a_cancel, canceling, "is an orphan"),
]
REDUCER_BUGS = [
    (ignore_that_it_is_closed, plainly, "was .* and is "),
    (drop_the_ledger, plainly, "in the ledger set"),
    (drop_the_delivery, plainly, "delivered 0 times"),
    (forget_what_may_be_billed, losing_an_answer, "was billed, the ledger says"),
]


@pytest.mark.parametrize(("plant", "scenario", "said"), ENGINE_BUGS)
def test_a_bug_planted_in_the_engine_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    scenario: Scenario,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=said):
        run_virtual(_play(scenario, tmp_path, reduce))


@pytest.mark.parametrize(("bug", "scenario", "said"), REDUCER_BUGS)
def test_a_bug_planted_in_the_lifecycle_is_caught(bug: Reduce, scenario: Scenario, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        run_virtual(_play(scenario, tmp_path, bug))


@pytest.mark.parametrize("scenario", [plainly, crashing, losing_an_answer, canceling])
def test_without_a_bug_nothing_is_caught(scenario: Scenario, tmp_path: Path) -> None:
    run_virtual(_play(scenario, tmp_path, reduce))


async def _play(scenario: Scenario, folder: Path, reduce: Reduce) -> None:
    await scenario(folder, reduce)
