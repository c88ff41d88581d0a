"""A line of the list: its cost, and where the figure comes from."""

from __future__ import annotations

import pytest

from gateway.contract.attempt import Attempt
from gateway.contract.errors import ModelFailed, RateLimited
from gateway.contract.money import Cost, CostBasis
from gateway.dashboard.row import row_of
from tests.unit.dashboard.making import BASE, after, attempt, prediction

COMPUTED = Cost(nanos=1_000_000, basis=CostBasis.COMPUTED)


@pytest.mark.parametrize(
    ("attempts", "nanos", "is_known", "basis"),
    [
        ((attempt(),), 1_000_000, True, "reported"),
        ((attempt(cost=COMPUTED),), 1_000_000, True, "computed"),
        ((attempt(failure=ModelFailed("x"), cost=COMPUTED), attempt(2)), 2_000_000, True, "computed"),
        ((attempt(nanos=None), attempt(2)), 1_000_000, False, "unknown"),
        ((attempt(failure=RateLimited(), nanos=None), attempt(2)), 1_000_000, True, "reported"),
    ],
)
def test_a_cost_says_where_it_comes_from(attempts: tuple[Attempt, ...], nanos: int, is_known: bool, basis: str) -> None:
    row = row_of(prediction(*attempts), now=after(9), base=BASE)
    assert (row.nanos, row.is_cost_known, row.basis) == (nanos, is_known, basis)
