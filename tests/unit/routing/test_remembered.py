"""What was found for a goal is taken again for a moment, and never for another question."""

from __future__ import annotations

import pytest

from gateway.routing import remembered
from gateway.routing.remembered import KEPT_SECONDS, RememberedAims
from gateway.testing import ManualClock
from tests.unit.policies.making import candidate
from tests.unit.policies.test_goal import ALL, CHEAP


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times: list[float] = []
    real = remembered.aims

    def counted(candidates: object, *, success: float, within_seconds: float, attempts: int) -> object:
        times.append(within_seconds)
        return real(ALL, success=success, within_seconds=within_seconds, attempts=attempts)

    monkeypatch.setattr(remembered, "aims", counted)
    return times


def test_within_a_moment_it_is_found_once(clock: ManualClock, asked: list[float]) -> None:
    solve = RememberedAims(clock)
    for _ in range(10):
        assert solve(ALL, success=0.9, within_seconds=30.0, attempts=3)
        clock.advance(KEPT_SECONDS / 20)
    assert len(asked) == 1
    clock.advance(KEPT_SECONDS)
    solve(ALL, success=0.9, within_seconds=30.0, attempts=3)
    assert len(asked) == 2


def test_another_question_has_its_own_answer(clock: ManualClock, asked: list[float]) -> None:
    solve = RememberedAims(clock)
    solve(ALL, success=0.9, within_seconds=30.0, attempts=3)
    solve(ALL, success=0.95, within_seconds=30.0, attempts=3)
    solve(ALL, success=0.9, within_seconds=20.0, attempts=3)
    solve(ALL, success=0.9, within_seconds=30.0, attempts=2)
    solve(ALL[:2], success=0.9, within_seconds=30.0, attempts=3)
    dearer = candidate("cheap", dollars=0.02, seconds=CHEAP.signals.seconds)
    solve([dearer, *ALL[1:]], success=0.9, within_seconds=30.0, attempts=3)
    assert len(asked) == 6
    solve(ALL, success=0.9, within_seconds=29.99, attempts=3)  # so near that it is the same
    assert len(asked) == 6


def test_memory_is_bounded(clock: ManualClock, asked: list[float]) -> None:
    solve = RememberedAims(clock)
    for number in range(2 * remembered.MOST_KEPT):
        solve([candidate(f"p{number}")], success=0.9, within_seconds=30.0, attempts=1)
    assert len(solve._kept) <= remembered.MOST_KEPT
