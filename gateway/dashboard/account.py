"""What may have been billed beside what was, added up from the ledger: of late, and within bounds. Shows no bills."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError
from gateway.contract.ledger import Exposure, double_bill_upper_bound, maybe_billed
from gateway.dashboard.shape import Ledger, MaybeLine
from gateway.store.protocol import LedgerRow

log = logging.getLogger("turnout.ledger")

MOST_PREDICTIONS = 1_000  # that are read for one sum
REFRESH_SECONDS = 60.0


class Rows(Protocol):
    """The part of a store that knows the money."""

    async def maybes(self, *, created_after: datetime | None = None, limit: int = 1_000) -> list[str]: ...

    async def ledger(self, id: str) -> list[LedgerRow]: ...


class Account:
    """`latest` is the bound as it was last added up, for whoever cannot wait for the store."""

    def __init__(self, store: Rows, clock: Clock) -> None:
        self.latest = Exposure()
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        while True:
            try:
                told = await self.read(hours=24, limit=MOST_PREDICTIONS)
                self.latest = told.double_bill_upper_bound
            except StoreError as error:
                log.warning("what may have been billed twice could not be added up: %s", error)
            await asyncio.sleep(REFRESH_SECONDS)

    async def read(self, *, hours: int, limit: int) -> Ledger:
        """Of predictions of the last `hours`, the newest `limit` with a row that says `maybe`. Raises StoreError."""
        since = self._clock.now() - timedelta(hours=hours)
        ids = await self._store.maybes(created_after=since, limit=limit + 1)
        maybe, twice = Exposure(), Exposure()
        lines: list[MaybeLine] = []
        for id in ids[:limit]:
            rows = await self._store.ledger(id)
            bound = double_bill_upper_bound(rows)
            maybe += maybe_billed(rows)
            twice += bound
            lines += _lines(rows, is_double=bound.rows > 0)
        return Ledger(
            since=since, maybe=maybe, double_bill_upper_bound=twice, lines=tuple(lines), is_all=len(ids) <= limit
        )


def _lines(rows: Sequence[LedgerRow], *, is_double: bool) -> list[MaybeLine]:
    return [
        MaybeLine(
            prediction=row.prediction,
            attempt=row.attempt,
            owner=row.owner,
            provider=row.provider,
            offer=row.offer,
            nanos=row.nanos,
            at=row.at,
            is_double=is_double,
        )
        for row in rows
        if row.state == "maybe"
    ]
