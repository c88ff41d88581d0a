"""
Small versions of the bars: what must hold of counts and order. Times are measured by `python -m tests.chaos.bars`.

What a busy machine makes slow is no fault of the code, so that no test here fails for a time that is near its bar.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.bars import failover, herd, loss, restart, stream

pytestmark = pytest.mark.long


@pytest.mark.timeout(60)  # two gateways, one after the other
def test_a_dead_provider_costs_nobody_a_prediction(tmp_path: Path) -> None:
    bar = failover.measure(tmp_path, predictions=200)
    assert "100.00% of 200 succeeded" in bar.said, bar
    assert bar.figures["attempts at the dead one"] <= 0.2 * 200, bar


@pytest.mark.timeout(60)  # polls are seconds apart
def test_without_a_single_callback_everything_ends_by_poll(tmp_path: Path) -> None:
    bar = loss.measure(tmp_path, predictions=80)
    assert bar.said.startswith("80 of 80 ended by poll"), bar


@pytest.mark.timeout(120)  # the ramps take half a minute, as they should
def test_what_waited_for_three_providers_comes_back_slowly_and_by_age(tmp_path: Path) -> None:
    bar = herd.measure(tmp_path, predictions=200)
    assert bar.figures["succeeded"] >= 190, bar
    first, rest = bar.figures["by second"][:3], bar.figures["by second"][3:]
    assert max(first) <= 0.5 * max(rest), bar
    assert int(bar.figures["by age"].rstrip("%")) >= 90, bar


@pytest.mark.timeout(60)  # jobs that speak for seconds, and a gateway that is killed meanwhile
def test_readers_that_come_back_see_each_event_once(tmp_path: Path) -> None:
    bar = stream.measure(tmp_path, predictions=8, kills=2)
    assert bar.is_met, bar


@pytest.mark.timeout(90)  # a thousand predictions are made first
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_gateway_serves_before_it_has_taken_up_a_long_backlog(tmp_path: Path, store: str) -> None:
    bar = restart.measure(tmp_path, predictions=1_000, restarts=2, store=store)
    assert bar.figures["not held"] == 0, bar
    assert bar.figures["most submits in a second"] <= 2 * 50 + 50, bar
