"""Small versions of the scenarios; the full ones by `python -m tests.chaos.kills`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.judge import Verdict
from tests.chaos.kills import scenario
from tests.chaos.kills.clock import has_compiler, stepped_clock
from tests.chaos.kills.disk import may_mount, within_small_disk
from tests.chaos.kills.scene import Options

SMALL = Options(
    predictions=150,
    seed=3,
    is_hurried=True,
    clients=8,
    pause_seconds=0.5,  # ten seconds of traffic, on any machine
    attempt_seconds=5.0,
    patience_seconds=60.0,
    median=0.2,
    lease_seconds=3.0,
)


def check(verdict: Verdict, predictions: int) -> None:
    print(verdict)
    assert verdict.is_good, str(verdict)
    # Careless callers may have been refused; nobody else.
    assert int(verdict.figures["accepted"]) >= 0.8 * predictions, str(verdict)


@pytest.mark.timeout(120)  # gateways that are started again and again, and jobs whose end nobody tells
@pytest.mark.parametrize("store", ["sqlite", pytest.param("redis", marks=pytest.mark.long)])
def test_a_killed_gateway_loses_nothing_and_starts_nothing_twice(tmp_path: Path, store: str) -> None:
    options = replace(SMALL, store=store, gateways=2 if store == "redis" else 1)
    verdict = scenario.gateway(tmp_path, options)
    check(verdict, options.predictions)
    assert int(verdict.figures["moments of trouble"]) >= 1, "nobody was killed"


@pytest.mark.long
@pytest.mark.timeout(120)  # as above
def test_a_killed_redis_means_503s_and_loses_nothing(tmp_path: Path) -> None:
    """With aof-always. With everysec a killed server may lose what it answered while it was syncing."""
    verdict = scenario.redis(tmp_path, replace(SMALL, predictions=200))
    check(verdict, 200)
    assert int(verdict.figures["moments of trouble"]) >= 2, "it was never killed"


@pytest.mark.long
@pytest.mark.timeout(120)  # a lease is slept through three times
def test_a_gateway_that_slept_longer_than_its_lease_writes_nothing_it_may_not(tmp_path: Path) -> None:
    verdict = scenario.pause(tmp_path, replace(SMALL, lease_seconds=2.0))
    check(verdict, SMALL.predictions)
    assert int(verdict.figures["moments of trouble"]) >= 2, "nobody was frozen"


@pytest.mark.long
@pytest.mark.timeout(120)  # four steps and the quiet after them
@pytest.mark.skipif(not has_compiler(), reason="the stepped clock is a small library in C, and there is no compiler")
def test_no_deadline_passes_when_the_clock_is_set(tmp_path: Path) -> None:
    verdict = stepped_clock(tmp_path, replace(SMALL, faults=0.0, predictions=120))
    check(verdict, 120)
    assert int(verdict.figures["steps"]) >= 4


@pytest.mark.long
@pytest.mark.timeout(180)  # the disk is full for seconds, several times
@pytest.mark.skipif(not may_mount(), reason="no namespace with a small tmpfs of its own may be made here")
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_full_disk_means_503s_and_loses_nothing(tmp_path: Path, store: str) -> None:
    holds, said = within_small_disk(tmp_path, replace(SMALL, store=store, predictions=200))
    print(said)
    assert holds, said
