"""What the ledger's rows add up to: a bound that no order and no unknown price makes too small."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import pytest

from gateway.contract.ledger import Exposure, double_bill_upper_bound, maybe_billed


class Row(NamedTuple):
    state: str
    nanos: int | None


SETTLED, FREE, UNTOLD = Row("settled", 5), Row("settled", 0), Row("settled", None)
RELEASED, RESERVED = Row("released", 0), Row("reserved", 9)
MAYBE, DEAR, UNPRICED = Row("maybe", 3), Row("maybe", 7), Row("maybe", None)


@pytest.mark.parametrize(
    ("rows", "bound"),
    [
        ([], Exposure()),
        ([SETTLED, SETTLED], Exposure()),
        ([MAYBE], Exposure()),  # it may be the one bill
        ([MAYBE, RELEASED], Exposure()),
        ([MAYBE, RESERVED], Exposure()),
        ([MAYBE, SETTLED], Exposure(nanos=3, rows=1)),
        ([MAYBE, UNTOLD], Exposure(nanos=3, rows=1)),  # settled, at a price nobody knows
        ([MAYBE, FREE], Exposure()),  # a bill of nothing is none
        ([MAYBE, DEAR], Exposure(nanos=7, rows=1)),  # one of them was due: the cheaper, to be on the safe side
        ([MAYBE, DEAR, SETTLED], Exposure(nanos=10, rows=2)),
        ([UNPRICED, SETTLED], Exposure(rows=1, unpriced=1)),
        ([UNPRICED, MAYBE, SETTLED], Exposure(nanos=3, rows=2, unpriced=1)),
        ([UNPRICED, MAYBE], Exposure(nanos=3, rows=1)),
    ],
)
def test_the_bound_is_what_may_have_come_beside_one_bill(rows: list[Row], bound: Exposure) -> None:
    for order in permutations(rows):
        assert double_bill_upper_bound(order) == bound


def test_a_price_nobody_knows_is_counted_and_not_added() -> None:
    assert maybe_billed([MAYBE, UNPRICED, DEAR, SETTLED]) == Exposure(nanos=10, rows=3, unpriced=1)
    assert Exposure(nanos=1, rows=2, unpriced=1) + Exposure(nanos=3, rows=1) == Exposure(nanos=4, rows=3, unpriced=1)
