"""What the ledger's rows add up to. Pure; keeps no rows, and knows no prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.fact import Source
from gateway.contract.money import CostBasis


class MoneyRow(Protocol):
    """One attempt's row, as a store keeps it."""

    @property
    def state(self) -> str: ...  # reserved, settled, released, maybe

    @property
    def nanos(self) -> int | None: ...  # None: unknown


class Exposure(msgspec.Struct, kw_only=True, frozen=True):
    """What may have been billed beside what is known to have been: `nanos` of `rows`, and `unpriced` rows more."""

    nanos: int = 0
    rows: int = 0
    unpriced: int = 0  # of the rows, those whose price nobody knows: the sum is without them

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(
            nanos=self.nanos + other.nanos, rows=self.rows + other.rows, unpriced=self.unpriced + other.unpriced
        )


def maybe_billed(rows: Iterable[MoneyRow]) -> Exposure:
    """All rows of attempts of which nobody knows whether they were billed."""
    return _sum([row.nanos for row in rows if row.state == "maybe"])


def double_bill_upper_bound(rows: Iterable[MoneyRow]) -> Exposure:
    """
    The most that one prediction may have cost beside the one bill it was to have, by the rows of its attempts.

    Where an attempt was settled, that was the bill, and all that may have been billed came on top; where none was, one
    of those was it: the cheapest, so that this stays an upper bound.
    """
    rows = list(rows)
    maybes = sorted((row.nanos for row in rows if row.state == "maybe"), key=lambda nanos: nanos or 0)
    is_paid = any(row.state == "settled" and row.nanos != 0 for row in rows)
    return _sum(maybes if is_paid else maybes[1:])


def rows_of(attempts: Iterable[Attempt]) -> list[MoneyRow]:
    """What the ledger says of these attempts, for who has them and not the ledger."""
    return [_row_of(attempt) for attempt in attempts]


def may_be_billed(attempt: Attempt) -> bool:
    """Nobody knows what became of it, or what it cost until it was stopped."""
    if attempt.status is not AttemptStatus.CANCELED:
        return attempt.status in (AttemptStatus.UNKNOWN, AttemptStatus.ABANDONED)
    return attempt.cost.nanos is None or not (attempt.running_at or is_heard_of(attempt))


def is_heard_of(attempt: Attempt) -> bool:
    """Its provider has told of it by more than its list: that a job stands there does not say that it waited."""
    return attempt.resolved_by != Source.LISTING or attempt.cost.basis is CostBasis.REPORTED


class _Row(NamedTuple):
    state: str
    nanos: int | None


def _row_of(attempt: Attempt) -> MoneyRow:
    if may_be_billed(attempt):
        return _Row("maybe", attempt.expected_nanos)
    if attempt.status is AttemptStatus.REJECTED:
        return _Row("released", 0)
    is_over = attempt.status.is_closed or attempt.status is AttemptStatus.COLLECTING
    return _Row("settled", attempt.cost.nanos) if is_over else _Row("reserved", attempt.expected_nanos)


def _sum(amounts: Sequence[int | None]) -> Exposure:
    return Exposure(
        nanos=sum(nanos or 0 for nanos in amounts),
        rows=len(amounts),
        unpriced=sum(nanos is None for nanos in amounts),
    )
