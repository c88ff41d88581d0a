"""The money rows of attempts: what is reserved, settled, released, or may have been billed. Not what a job cost."""

from __future__ import annotations

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.fact import LedgerEntry
from gateway.contract.ledger import is_heard_of, may_be_billed


def entry_of(attempt: Attempt, state: str, nanos: int | None, basis: str) -> LedgerEntry:
    return LedgerEntry(
        attempt=attempt.number, offer=attempt.offer, provider=attempt.provider, state=state, nanos=nanos, basis=basis
    )


def settlement(attempt: Attempt) -> LedgerEntry:
    """The row of one whose end its provider has told."""
    if is_released(attempt):
        return entry_of(attempt, "released", 0, "canceled before it ran")
    if may_be_billed(attempt):
        # As where a cancel is confirmed without a word of the end: what ran may be billed.
        return entry_of(attempt, "maybe", attempt.expected_nanos, "expected")
    return entry_of(attempt, "settled", attempt.cost.nanos, attempt.cost.basis)


def is_released(attempt: Attempt) -> bool:
    """It was canceled before it ran, by its provider's word: whatever its price is, nothing was spent."""
    never_ran = attempt.running_at is None and not attempt.cost.nanos
    return attempt.status is AttemptStatus.CANCELED and never_ran and is_heard_of(attempt)
