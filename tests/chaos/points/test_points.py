"""Some of the crash points, others each day; the whole of them by `python -m tests.chaos.points`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from tests.chaos.points.enumeration import Bench, enumerate_points, targets

# Another part of the points each day; the one of a failure is replayed by its number.
SEED = int(os.environ.get("CHAOS_SEED") or datetime.datetime.now(datetime.UTC).date().toordinal())
EACH_DAY = 6


@pytest.mark.timeout(240)  # a dozen starts of a gateway
def test_a_gateway_may_die_at_any_point(tmp_path: Path) -> None:
    outcome = enumerate_points(tmp_path, seed=SEED, most=EACH_DAY, say=print)
    assert not outcome.broken, f"CHAOS_SEED={SEED}\n" + "\n".join(
        f"{at}\n{said}" for at, said in outcome.broken.items()
    )
    assert outcome.runs == EACH_DAY
    assert outcome.crashed >= EACH_DAY - 2, f"CHAOS_SEED={SEED}: {outcome}"


@pytest.mark.timeout(120)  # four gateways, one after the other
def test_an_intent_that_is_written_after_the_bytes_have_left_is_seen(tmp_path: Path) -> None:
    with Bench(tmp_path) as bench:
        run, verdict, passed = bench.run(crash_at="send.submit.after:5", planted="send_before_intent")
        assert run.was_hit
        # Nobody knows of the job, so that it is started once more: under the same token, which shows it.
        assert verdict.violations["nothing is started twice that need not be"], verdict
        assert len(targets(passed)) > 50
        run, verdict, _ = bench.run(crash_at="send.submit.after:5")
        assert run.was_hit
        assert verdict.is_good, verdict
