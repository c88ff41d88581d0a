"""
Whole universes from one seed: many predictions, every fault there is at random, an engine that is killed at random.

What must hold of each is I1, I2, I4-I7 and I9 of the invariants. A failing universe prints its seed, and is the same
again from it: `universe(tmp_path, seed)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.contract.errors import (
    AtCapacity,
    InputRefused,
    ModelFailed,
    NotSent,
    OutcomeUnknown,
    OutputModerated,
    PollFailed,
    RateLimited,
    StoreError,
)
from gateway.contract.fact import Phase
from gateway.contract.prediction import Status
from gateway.contract.provider import Call, Callbacks, Cancel, Cancellation, Capabilities
from gateway.testing import Script, run_virtual
from tests.unit.engine.stage import IDEMPOTENT, OWNER, POLLED, WITH_CALLBACKS, Stage

UNIVERSES = 30
PREDICTIONS = 20
DEADLINE_SECONDS = 90
A_MINUTE = timedelta(seconds=60)

UNSIGNED = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, callbacks=Callbacks.UNSIGNED)

# Weight, and what it does to a script. Every one of them must have come to pass in a run.
SUBMIT_FAULTS: dict[str, Script] = {
    "none": Script(),
    "refused": Script(starts=False, raises=NotSent("connection refused")),
    "rate limited": Script(starts=False, raises=RateLimited(retry_after_seconds=3)),
    "at capacity": Script(starts=False, raises=AtCapacity()),
    "bad input": Script(starts=False, raises=InputRefused("no such size")),
    "lost answer": Script(raises=OutcomeUnknown("the line broke")),
    "never came": Script(starts=False, raises=OutcomeUnknown("the line broke")),
    "slow answer": Script(arrive_seconds=0.5, answer_seconds=6),
    "bug": Script(raises=ValueError("a bug in the adapter")),
}
JOB_FAULTS: dict[str, dict[str, object]] = {
    "none": {},
    "failed": {"end": Phase.FAILED, "failure": ModelFailed("out of memory").failure},
    "moderated": {"end": Phase.FAILED, "failure": OutputModerated("withheld").failure},
    "hangs": {"run_seconds": math.inf},
    "forgotten": {"is_forgotten": True},
    "polls cut": {"polls_failing": 4},
    "poll bug": {"poll_raises": ValueError("a bug in the adapter")},
    "cancel refused": {"cancel": Cancellation.UNSUPPORTED, "run_seconds": 50.0},
    "cancel cut": {"cancel": PollFailed("503"), "run_seconds": 50.0},
    "queued long": {"queue_seconds": 10.0},
    "file": {"output": "https://provider.example/out.png"},
}
CALLBACK_FAULTS: dict[str, dict[str, object]] = {
    "none": {},
    "lost": {"callbacks": 0},
    "duplicated": {"callbacks": 4},
    "late": {"callback_seconds": 25.0},
    "forged": {"forged": True},
}
ACTS = ("kill", "drain", "store out", "cancel", "result lost")


class Fate:
    """Draws what becomes of each submit, and counts it."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self.random = random.Random(seed)
        self._counts = counts

    def count(self, kind: str) -> None:
        self._counts[kind] += 1

    def script(self, call: Call) -> Script:
        submit = self._pick("submit", SUBMIT_FAULTS, 0.6)
        job = self._pick("job", JOB_FAULTS, 0.5)
        callback = self._pick("callback", CALLBACK_FAULTS, 0.5) if call.callback_url else "none"
        changes: dict[str, object] = {
            "run_seconds": self.random.choice([0.2, 1, 4, 15]),
            **JOB_FAULTS[job],
            **CALLBACK_FAULTS[callback],
        }
        base = SUBMIT_FAULTS[submit]
        changes |= {
            name: getattr(base, name)
            for name in ("starts", "raises", "arrive_seconds", "answer_seconds")
            if getattr(base, name) != getattr(Script(), name)
        }
        return Script(**changes)  # type: ignore[arg-type]

    def _pick(self, side: str, faults: dict[str, object], peace: float) -> str:
        names = [name for name in faults if name != "none"]
        name = "none" if self.random.random() < peace else self.random.choice(names)
        self.count(f"{side}: {name}")
        return name


async def universe(folder: Path, seed: int, counts: Counter[str]) -> None:
    fate = Fate(seed, counts)
    limit = fate.random.choice(["0", "0", "0.0005"])
    stage = Stage(folder, seed=seed, deadline_seconds=DEADLINE_SECONDS, attempts=4, pay_twice_up_to=limit)
    stage.provider("called", fate.script, capabilities=WITH_CALLBACKS, price=1_000_000)
    stage.provider("polled", fate.script, capabilities=POLLED, price=400_000)
    stage.provider("nudged", fate.script, capabilities=UNSIGNED, price=None)
    stage.provider("repeatable", fate.script, capabilities=IDEMPOTENT, price=2_000_000)
    if fate.random.random() < 0.5:
        stage.provider("local", Script(run_seconds=2), price=0, is_fallback=True)
    async with stage:
        if fate.random.random() < 0.3:
            stage.collector.lost = {"called"}
            fate.count("act: result lost")
        meddling = asyncio.create_task(_meddle(stage, fate))
        for _ in range(PREDICTIONS):
            await _post(stage, fate)
            await asyncio.sleep(fate.random.uniform(0, 1.5))
        await meddling
        stage.store.is_out = False
        for id in stage.accepted:
            left = DEADLINE_SECONDS + 60 - stage.clock.monotonic()
            prediction = await stage.ended(id, within=max(1, left + PREDICTIONS * 2))
            assert (prediction.completed_at or prediction.created_at) <= prediction.deadline_at + A_MINUTE
        for id in stage.accepted:
            prediction = await stage.settled(id, within=200)
            counts[f"end: {prediction.status}"] += 1
        for provider in stage.providers.values():
            await _play_again(stage, provider.name)
        for id in stage.accepted:
            await stage.check(id)
    counts["fact: duplicate"] += stage.observer.callbacks["duplicate"]
    counts["fact: forged"] += stage.observer.callbacks["forged"]
    counts["fact: nudge"] += stage.observer.callbacks["nudge"]
    counts["failover"] += stage.observer.failovers


async def _post(stage: Stage, fate: Fate) -> None:
    """As a caller does: again, until it is accepted."""
    while True:
        with contextlib.suppress(StoreError, AssertionError):
            id = await stage.post(
                cancel_after=fate.random.choice([None, None, 20.0]), file_output=fate.random.random() < 0.3
            )
            if fate.random.random() < 0.15:
                await asyncio.sleep(fate.random.uniform(0, 5))
                if stage.engine is not None:
                    fate.count("act: cancel")
                    await stage.engine.cancel(id, owner=OWNER)
            return
        await asyncio.sleep(0.3)


async def _meddle(stage: Stage, fate: Fate) -> None:
    """Kill, drain and starve the engine while it works."""
    for _ in range(fate.random.randint(2, 5)):
        await asyncio.sleep(fate.random.uniform(0.1, 6))
        act = fate.random.choice(["kill", "kill", "drain", "store out"])
        fate.count(f"act: {act}")
        if act == "store out":
            stage.store.is_out = True
            await asyncio.sleep(fate.random.uniform(0.1, 8))
            stage.store.is_out = False
            continue
        await (stage.kill() if act == "kill" else stage.close())
        await asyncio.sleep(fate.random.uniform(0, 3))
        await stage.open()


async def _play_again(stage: Stage, name: str) -> None:
    """I7: every job's end is told once more, long after; nothing that is settled may move."""
    provider = stage.providers[name]
    for job in provider.jobs:
        if job.callback_url is None or not job.phase(stage.clock.monotonic()).is_end or job.script.forged:
            continue
        before = await stage.read(job.prediction)
        headers, body = provider.callback(job)
        for _ in range(2):
            await stage.deliver(job.callback_url, headers, body)
        after = await stage.read(job.prediction)
        assert (before.status, before.output, before.completed_at) == (after.status, after.output, after.completed_at)


def expected_kinds() -> Iterator[str]:
    for side, faults in (("submit", SUBMIT_FAULTS), ("job", JOB_FAULTS), ("callback", CALLBACK_FAULTS)):
        yield from (f"{side}: {name}" for name in faults)
    yield from (f"act: {act}" for act in ACTS)
    yield from (f"end: {status}" for status in Status if status.is_terminal)
    yield from ("fact: duplicate", "fact: forged", "fact: nudge", "failover")


@pytest.mark.timeout(90)  # ten seconds on an idle machine
def test_whatever_goes_wrong_every_prediction_ends_once_and_is_paid_once(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for seed in range(UNIVERSES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            run_virtual(universe(folder, seed, counts))
        except BaseException as error:
            error.add_note(f"in the universe of seed {seed}")
            raise
    print(f"\nseeds 0-{UNIVERSES - 1}, {UNIVERSES * PREDICTIONS} predictions: {dict(sorted(counts.items()))}")
    missed = [kind for kind in expected_kinds() if not counts[kind]]
    assert missed == [], "these never came to pass: the run shows nothing of them"
