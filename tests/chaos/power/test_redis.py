"""What a power cut takes from Redis: nothing with `always`, and with `everysec` what its documents say, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.power import redis
from tests.chaos.power.calls import needs_strace

SEED = 7
LONGEST_SECONDS = 2.0  # redis.io: everysec loses a second; two, if a sync takes long


@needs_strace
@pytest.mark.timeout(60)  # eight starts of a server
def test_always_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    life = redis.live(tmp_path / "life", "always", answers=300, pause_seconds=0)
    window = redis.window(life)
    assert window.told == 300
    assert window.syncs >= 300
    assert (window.losing_cuts, window.lost_most) == (0, 0)
    for told, counted in redis.ruins(life, tmp_path / "ruins", cuts=6, seed=SEED):
        assert counted >= told


@needs_strace
@pytest.mark.timeout(60)  # three seconds of a life, and a few starts of a server
def test_everysec_loses_what_it_says_and_no_more(tmp_path: Path) -> None:
    life = redis.live(tmp_path / "life", "everysec", answers=700, pause_seconds=0.004)
    window = redis.window(life)
    assert window.told == 700
    assert window.losing_cuts > window.cuts / 2  # the control: the test sees what is lost
    assert 0.5 < window.seconds_longest < LONGEST_SECONDS
    ruins = redis.ruins(life, tmp_path / "ruins", cuts=4, seed=SEED)
    assert any(counted < told for told, counted in ruins)
    assert all(counted <= told + 1 for told, counted in ruins)
