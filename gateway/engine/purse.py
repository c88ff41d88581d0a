"""
What budgets let one prediction spend: set aside before an intent is written, settled by its ledger rows. Ranks nothing.

Between a reservation and its intent, and between an end and its settlement, a process may die: `sweep` puts that right.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec.structs import replace

from gateway.contract.attempt import Attempt
from gateway.contract.budget import (
    DROPPED,
    LOCAL,
    MOST_NANOS,
    Hold,
    Refusal,
    Reservation,
    read_counter,
    reservation_id,
    say,
)
from gateway.contract.errors import BudgetSpent, StoreError
from gateway.contract.fact import LedgerEntry
from gateway.contract.money import format_dollars
from gateway.contract.prediction import Prediction
from gateway.contract.reason import Reason
from gateway.contract.route import Choice, Plan
from gateway.store.protocol import Applied, Store

log = logging.getLogger("turnout.engine")

# Of states of a ledger row: what it cost is known, or as good as known.
_KNOWN = ("settled", "released")


class Purse:
    """For one prediction that is being driven, under the lease with this fence."""

    def __init__(self, store: Store, *, fence: int) -> None:
        self._store = store
        self._fence = fence

    async def reserve(self, prediction: Prediction, number: int, choice: Choice, plan: Plan) -> int | None:
        """
        Set aside what attempt `number` is expected to cost; None if it falls under no budget. Again: is the same.

        Raises BudgetSpent, StoreError.
        """
        if not plan.holds:
            return None
        holds = tuple(replace(hold, is_soft=is_soft(hold, choice, plan)) for hold in plan.holds)
        nanos = amount_of(choice, holds)
        asked = Reservation(id=reservation_id(prediction.id, number), nanos=nanos, holds=holds, fence=self._fence)
        refusal = await self._store.reserve(asked)
        if refusal is not None:
            raise spent(refusal, choice, nanos)
        return nanos

    async def release(self, prediction: Prediction, attempt: Attempt) -> None:
        """It was not begun after all. Where the store cannot do it now, the sweep does it later."""
        if attempt.reserved_nanos is not None:
            await _settle(self._store, prediction, attempt.number, 0)


def is_soft(hold: Hold, choice: Choice, plan: Plan) -> bool:
    """Whether this choice may go beyond the budget's limit."""
    match hold.when_spent:
        case "local":
            return choice.provider == LOCAL
        case "cheapest":
            prices = [other.expected_nanos for other in plan.kept if not other.is_fallback]
            known = [nanos for nanos in prices if nanos is not None]
            return not choice.is_fallback and choice.expected_nanos == min(known, default=-1)
    return False


def amount_of(choice: Choice, holds: tuple[Hold, ...]) -> int:
    """What is set aside for it. Raises BudgetSpent for a price that is not known, where one has to be."""
    if choice.expected_nanos is not None:
        return min(choice.expected_nanos, MOST_NANOS)
    for hold in holds:
        if hold.unknown_nanos is None and not hold.is_soft:
            raise BudgetSpent(f"what {choice.offer} costs is not known, and the budget {say(hold)} wants to know it")
    return max((hold.unknown_nanos or 0 for hold in holds), default=0)


def spent(refusal: Refusal, choice: Choice, nanos: int) -> BudgetSpent:
    hold = refusal.hold
    per = read_counter(hold.counter).per
    used = format_dollars(refusal.settled_nanos)
    if refusal.reserved_nanos:
        used += f" and {format_dollars(refusal.reserved_nanos)} set aside"
    return BudgetSpent(
        f"the budget {say(hold)} is spent: {used}, so that {format_dollars(nanos)} for {choice.offer} does not fit;"
        f" the next {per} begins at {hold.ends_at:%Y-%m-%dT%H:%MZ}",
        # What is free does not stand in for what was refused: who wants that says "local".
        bars_fallback=hold.when_spent == "refuse",
    )


def without(plan: Plan, refused: Mapping[str, BudgetSpent]) -> Plan:
    """The plan with the offers that a budget did not let through among the dropped ones, by its words."""
    if not refused:
        return plan
    kept = [choice for choice in plan.choices if choice.offer not in refused]
    dropped = [
        replace(
            choice,
            kept=False,
            score=None,
            reasons=(Reason(code=DROPPED, written=str(refused[choice.offer])),),
        )
        for choice in plan.choices
        if choice.offer in refused
    ]
    place = sum(choice.kept for choice in kept)
    return replace(plan, choices=(*kept[:place], *dropped, *kept[place:]))


async def settle(store: Store, applied: Applied) -> None:
    """
    What is known now of what its attempts cost goes from set aside to spent.

    It was committed before; if the store cannot do it now, the sweep does it later.
    """
    prediction = applied.prediction
    for effect in applied.effects:
        if not isinstance(effect, LedgerEntry) or effect.state not in _KNOWN:
            continue
        if prediction.attempts[effect.attempt - 1].reserved_nanos is None:
            continue
        nanos = None if effect.nanos is None else min(effect.nanos, MOST_NANOS)
        await _settle(store, prediction, effect.attempt, nanos)


async def _settle(store: Store, prediction: Prediction, number: int, nanos: int | None) -> None:
    try:
        await store.settle(reservation_id(prediction.id, number), nanos, revision=prediction.revision)
    except StoreError as error:
        log.warning("what prediction %s cost is not told to its budgets yet: %s", prediction.id, error)
