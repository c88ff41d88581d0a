"""
T10: of a hundred submits five are never answered though their job begins, and five never arrive, under each policy.

`TURNOUT_DOUBTS=4000 pytest -s` on this file gives the figures of the full size.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import OutcomeUnknown
from gateway.contract.ledger import double_bill_upper_bound, rows_of
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Call, Capabilities
from gateway.engine.attempt import Timing
from gateway.engine.lifecycle import is_open
from gateway.testing import Job, Script, run_virtual
from tests.unit.engine.stage import IDEMPOTENT, POLLED, WITH_CALLBACKS, Stage

PREDICTIONS = int(os.environ.get("TURNOUT_DOUBTS", "400"))
SHARE = 0.05  # of submits that are not answered though their job begins (F6), and of those that never arrive (F7)
SEED = 10
A_BIT = 120.0  # seconds in which a job nobody needs is asked to stop, once we know of it

LISTED = replace(WITH_CALLBACKS, lists=True)


class Fate:
    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)

    def script(self, call: Call) -> Script:
        draw = self._random.random()
        script = Script(
            run_seconds=self._random.choice((0.5, 3.0, 20.0, math.inf if draw < SHARE else 40.0)),
            callbacks=self._random.randint(0, 1),
            listed_seconds=self._random.choice((0.0, 9.0, 45.0, 400.0)),
            answer_seconds=self._random.choice((0.1, 1.0)),
        )
        if draw >= 2 * SHARE:
            return script
        fault = "F6" if draw < SHARE else "F7"
        self.counts[fault] += 1
        return replace(
            script, starts=fault == "F6", answer_seconds=15.0, raises=OutcomeUnknown("no answer within 15 s")
        )


async def universe(folder: Path, capabilities: Capabilities, pay_twice_up_to: str) -> Counter[str]:
    fate = Fate(SEED)
    stage = Stage(folder, seed=SEED, deadline_seconds=300, pay_twice_up_to=pay_twice_up_to, timing=Timing())
    stage.provider("first", fate.script, capabilities=capabilities)
    stage.provider("second", fate.script, capabilities=capabilities)
    async with stage:
        for number in range(PREDICTIONS):
            await stage.post(number=number)
            if number % 200 == 199:  # what is under way at once stays within the engine's bound
                await asyncio.gather(*(stage.ended(id, within=1_000) for id in stage.accepted[-200:]))
        for _ in range(75):  # minutes: what was given up is looked for that long
            if not await _is_any_open(stage):
                break
            await asyncio.sleep(60)
        for id in stage.accepted:
            await _count(stage, await stage.read(id), fate.counts)
        assert stage.breaches == []
    return fate.counts


async def _is_any_open(stage: Stage) -> bool:
    """Some are still driven, or looked for."""
    for id in stage.accepted:
        if is_open(await stage.read(id)):
            return True
    return False


async def _count(stage: Stage, prediction: Prediction, counts: Counter[str]) -> None:
    assert prediction.is_terminal
    assert not is_open(prediction)
    counts[f"end: {prediction.status}"] += 1
    jobs = [job for provider in stage.providers.values() for job in provider.jobs if job.prediction == prediction.id]
    billed = [job for job in jobs if job.is_billed(stage.clock.monotonic())]
    counts["double bills"] += max(0, len(billed) - 1)
    rows = await stage.store.ledger(prediction.id)
    states = {row.attempt: row.state for row in rows}
    for job in billed:
        assert states[job.attempt] in ("settled", "maybe"), f"a job was billed, and its row says {states[job.attempt]}"
    if len(billed) > 1:
        settled = sum(row.state == "settled" for row in rows)
        told = double_bill_upper_bound(rows).rows + max(0, settled - 1)
        assert told >= len(billed) - 1, "what is billed twice is not all listed"
    assert double_bill_upper_bound(rows_of(prediction.attempts)) == double_bill_upper_bound(rows)
    for attempt in prediction.attempts:
        if attempt.resolved_by is not None:
            counts[f"resolved by {attempt.resolved_by}"] += 1
        if attempt.status is AttemptStatus.ABANDONED:
            counts["never resolved"] += 1
        if attempt.number != prediction.winner and attempt.handle is not None:
            _check_loser(stage, prediction, next(job for job in jobs if job.id == attempt.handle["id"]), counts)


def _check_loser(stage: Stage, prediction: Prediction, job: Job, counts: Counter[str]) -> None:
    attempt = prediction.attempts[job.attempt - 1]
    assert attempt.accepted_at is not None
    assert prediction.completed_at is not None
    now = stage.clock.now()
    learned_ago = (now - max(attempt.accepted_at, prediction.completed_at)).total_seconds()
    over_at = job.ends_at if job.canceled_at is None else job.canceled_at
    late_seconds = over_at - (stage.clock.monotonic() - learned_ago)
    assert late_seconds <= A_BIT, f"a loser ran on for {late_seconds} s"
    counts["losers canceled" if job.canceled_at is not None else "losers that had ended"] += 1


@pytest.mark.timeout(900)  # hundreds of predictions on a real file, and thousands on demand
@pytest.mark.parametrize("pay_twice_up_to", ["0", "1"], ids=["at most once", "pays twice"])
@pytest.mark.parametrize("provider", ["polled", "listed", "idempotent"])
def test_what_is_never_answered_costs_no_more_than_the_policy_allows(
    tmp_path: Path, provider: str, pay_twice_up_to: str
) -> None:
    capabilities = {"polled": POLLED, "listed": LISTED, "idempotent": IDEMPOTENT}[provider]
    counts = run_virtual(universe(tmp_path, capabilities, pay_twice_up_to))
    policy = "pays twice" if pay_twice_up_to != "0" else "at most once"
    print(f"\n{provider}, {policy}: seed {SEED}, {PREDICTIONS} predictions: {dict(sorted(counts.items()))}")
    assert min(counts["F6"], counts["F7"]) > 0.5 * SHARE * PREDICTIONS
    if provider == "idempotent" or pay_twice_up_to == "0":
        assert counts["double bills"] == 0
    else:
        assert counts["double bills"] <= counts["F6"]
    if provider == "listed":
        assert counts["resolved by listing"] > 0
        assert counts["resolved by callback"] > 0
        assert counts["never resolved"] <= counts["F7"], "what was begun and stood in a list was never found"
