"""Reservations of budgets that were left open, as a process or the store failed in between. Reserves nothing."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import NamedTuple

from gateway.contract.budget import MOST_NANOS, Reserved, read_reservation_id
from gateway.contract.clock import Clock
from gateway.contract.errors import PredictionUnreadable
from gateway.contract.ledger import rows_of
from gateway.contract.prediction import Prediction
from gateway.engine.lifecycle import is_open
from gateway.store.protocol import Store

log = logging.getLogger("turnout.engine")

SWEEP_SECONDS = 60.0
STALE_SECONDS = 60.0
PATIENCE_SECONDS = STALE_SECONDS / 2
KEPT_SECONDS = 86_400.0  # windows after their end, and what was settled: for corrections that come late
_PAGE = 200
FORGOTTEN = 1_000  # at once
_MOST_PAGES = 10  # of either in one round; the next goes on from there


class Sweep:
    """
    Settles what was left open by what its attempt says. One per process; any number may run beside each other.

    An attempt is begun only after its money was set aside: one that is missing was never sent, and its money is
    released. Four things may happen meanwhile, and none lets anything be spent that is not reserved:

    - It is begun after all. Whoever begins it writes its intent within PATIENCE_SECONDS of the reservation, or reserves
      again before a byte leaves; only what is older than STALE_SECONDS is looked at, which is twice that.
    - It is reserved anew while we read its prediction: by another worker, or for want of an answer. What is settled
      here is the reservation as it was listed (`reserved_at`), and no later one.
    - It ends, and is settled by whoever heard of it. The newer word holds (`revision`), in whatever order they come.
    - A worker that has lost the prediction reserves for it all the same. Its fence is older, and changes nothing.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._position: str | None = None

    async def step(self) -> None:
        """One round. Raises StoreError."""
        now = self._clock.now()
        for _ in range(_MOST_PAGES):
            rows, self._position = await self._store.reservations(
                before=now - timedelta(seconds=STALE_SECONDS), position=self._position, limit=_PAGE
            )
            for row in rows:
                await self._look_at(row)
            if self._position is None:
                break
        for _ in range(_MOST_PAGES):
            forgotten = await self._store.forget_spending(before=now - timedelta(seconds=KEPT_SECONDS), limit=FORGOTTEN)
            if forgotten < FORGOTTEN:
                break

    async def _look_at(self, row: Reserved) -> None:
        id, number = read_reservation_id(row.id)
        try:
            prediction = await self._store.get(id)
        except PredictionUnreadable:
            return  # for whoever can read it
        revision = prediction.revision if prediction is not None else row.revision
        end = end_of(prediction, number)
        if end is None:
            return
        log.info("what was set aside for attempt %d of prediction %s had been left open, and is settled", number, id)
        await self._store.settle(row.id, end.nanos, revision=revision, reserved_at=row.at)


class End(NamedTuple):
    nanos: int | None  # None: nobody will ever know, so that what was reserved counts


def end_of(prediction: Prediction | None, number: int) -> End | None:
    """What attempt `number` came to; None while that is open."""
    if prediction is None or number > len(prediction.attempts):
        return End(0)  # never begun
    attempt = prediction.attempts[number - 1]
    if attempt.reserved_nanos is None:
        return End(0)  # begun later, under no budget
    [row] = rows_of([attempt])
    if row.state == "reserved" or (row.state == "maybe" and is_open(prediction)):
        return None
    if row.state == "maybe" or row.nanos is None:
        return End(None)
    return End(min(row.nanos, MOST_NANOS))
