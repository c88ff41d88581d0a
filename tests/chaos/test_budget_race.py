"""The budget race of `tests.bench.routing`, small: real processes, one Redis, kills, and the provider's own books."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.routing.budget_race import Sizes, run


@pytest.mark.timeout(90)  # a dozen processes are started, and what a killed one sent is waited for until its deadline
def test_processes_that_race_and_die_overspend_no_budget_between_them(tmp_path: Path) -> None:
    outcome = run(Sizes(processes=4, predictions=400, kills=2, seed=3), tmp_path)
    assert outcome.killed == 2
    assert outcome.statuses.total() >= 400
    assert outcome.statuses["failed"] > 50, f"the budgets were never in anybody's way\n{outcome}"
    assert outcome.overspend_nanos == 0, outcome
    assert outcome.uncounted_nanos == 0, outcome
    assert len(outcome.spending) == 5, outcome
