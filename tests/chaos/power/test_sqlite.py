"""What a power cut takes from the SQLite store: nothing, at any moment; and that a cut that took something is seen."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.power import sqlite
from tests.chaos.power.disk import Delete, Loss, Step, Sync, Told, Truncate, Write, cut

SEED = 7
CUTS = int(os.environ.get("TURNOUT_POWER_CUTS", "200"))
PREDICTIONS = 60


@pytest.mark.timeout(30 + CUTS)  # a ruin is opened, read and examined in some 40 ms
def test_no_power_cut_takes_what_was_told(tmp_path: Path) -> None:
    recorded = sqlite.record(tmp_path / "life", predictions=PREDICTIONS)
    assert sqlite.told_too_early(recorded.log) == []
    assert sum(isinstance(step, Sync) for step in recorded.log) > recorded.commits
    result = sqlite.judge(recorded, tmp_path / "ruins", cuts=CUTS, seed=SEED)
    assert result.broken == []
    assert result.lost == 0
    assert result.cuts == CUTS
    assert result.told > CUTS * PREDICTIONS
    assert set(result.losses) == set(Loss)


@pytest.mark.timeout(60)  # as above
def test_the_setting_that_loses_is_seen_to_lose_and_to_break_nothing(tmp_path: Path) -> None:
    recorded = sqlite.record(tmp_path / "life", predictions=PREDICTIONS, synchronous="NORMAL")
    assert sqlite.told_too_early(recorded.log)
    result = sqlite.judge(recorded, tmp_path / "ruins", cuts=60, seed=SEED)
    assert result.broken == []
    assert result.lost > 0
    assert result.losing_cuts > 10


@pytest.mark.timeout(60)  # as above
def test_a_file_that_is_broken_is_seen_to_be_broken(tmp_path: Path) -> None:
    recorded = sqlite.record(tmp_path / "life", predictions=PREDICTIONS, synchronous="OFF")
    result = sqlite.judge(recorded, tmp_path / "ruins", cuts=40, seed=SEED)
    assert result.broken


def ruin(*log: Step, loss: Loss, seed: int = SEED) -> dict[str, bytes]:
    return next(one.files for one in cut(log, [len(log)], seed + _seed_of(loss, len(log))))


def _seed_of(loss: Loss, moment: int) -> int:
    """One that draws this loss."""
    return next(
        seed - SEED
        for seed in range(SEED, SEED + 1_000)
        if random.Random(f"{seed}.0.{moment}").choice(list(Loss)) is loss
    )


def test_the_disk_keeps_what_was_synced_and_only_that_for_certain() -> None:
    written, more = Write("a", 0, b"x" * 1_024), Write("a", 512, b"y" * 1_024)
    assert ruin(written, loss=Loss.ALL) == {}
    assert ruin(written, Sync("a"), loss=Loss.ALL) == {"a": b"x" * 1_024}
    assert ruin(written, Sync("a"), more, loss=Loss.ALL) == {"a": b"x" * 1_024}
    assert ruin(written, Sync("b"), loss=Loss.ALL) == {"b": b""}
    assert ruin(written, Sync("a"), Truncate("a", 10), loss=Loss.ALL) == {"a": b"x" * 1_024}
    assert ruin(written, Truncate("a", 10), Sync("a"), loss=Loss.ALL) == {"a": b"x" * 10}
    assert ruin(written, Sync("a"), Delete("a", is_synced=False), loss=Loss.ALL) == {"a": b"x" * 1_024}
    assert ruin(written, Sync("a"), Delete("a", is_synced=True), loss=Loss.ALL) == {}
    torn = {ruin(written, Sync("a"), more, loss=Loss.ANY, seed=seed).get("a") for seed in range(40)}
    assert torn == {
        b"x" * 1_024,
        b"x" * 512 + b"y" * 512,
        b"x" * 1_024 + b"y" * 512,
        b"x" * 512 + b"y" * 1_024,
    }


def test_the_disk_remembers_what_was_told_before_the_cut() -> None:
    log = [Told("one"), Write("a", 0, b"x"), Told("two")]
    assert [one.told for one in cut(log, [0, 1, 3], SEED)] == [[], ["one"], ["one", "two"]]
