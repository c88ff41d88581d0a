"""What budgets have come to, and what is reserved of them, in Redis. It knows no policy and no prediction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from gateway.contract.budget import Refusal, Reservation, Reserved, Spending
from gateway.contract.errors import NotFound
from gateway.store._encoding import from_micros, to_micros
from gateway.store._redis_key import digits
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load

RESERVE = load("reserve", "budget")
SETTLE = load("settle", "budget")
FORGET = load("forget_spending", "budget")
PUT_SPENDING = load("put_spending", "budget")
PUT_RESERVATION = load("put_reservation", "budget")

_CHUNK = 500


class Budgets:
    """
    All of them lie in one slot: a reservation falls under several budgets, and is made under all or under none.

    One server carries them for a whole cluster; a prediction that falls under no budget never comes here.
    """

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._keys = seat.keys.budgets

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        args: list[Argument] = [reservation.id, reservation.nanos, reservation.fence, len(reservation.holds)]
        for hold in reservation.holds:
            args += [hold.counter, hold.limit_nanos, to_micros(hold.ends_at), "1" if hold.is_soft else "0"]
        answer = await self._seat.run(RESERVE, self._keys.all, args)
        if answer is None:
            return None
        index, settled, reserved = answer
        return Refusal(hold=reservation.holds[index], settled_nanos=int(settled), reserved_nanos=int(reserved))

    async def settle(self, id: str, nanos: int | None, *, revision: int, reserved_at: datetime | None) -> None:
        at = to_micros(reserved_at) if reserved_at is not None else 0
        await self._seat.run(SETTLE, self._keys.all, [id, "" if nanos is None else nanos, revision, at])

    async def open_before(
        self, before: datetime, *, position: str | None, limit: int
    ) -> tuple[list[Reserved], str | None]:
        """Raises NotFound for a position that is none of ours."""
        if position is not None and not position[:16].isdecimal():
            raise NotFound("no such position")
        first, last = "-" if position is None else f"({position}", f"({digits(to_micros(before))}"
        [entries] = await self._seat.read(("ZRANGEBYLEX", self._keys.open, first, last, "LIMIT", 0, limit))
        found = await self._reserved([entry[16:] for entry in entries])
        # What was settled between the two readings is no longer open.
        return [row for row in found if row.is_open], entries[-1].decode() if len(entries) == limit else None

    async def ending_after(self, at: datetime, *, limit: int) -> list[Spending]:
        first = f"({to_micros(at)}"
        [counters] = await self._seat.read(("ZRANGEBYSCORE", self._keys.windows, first, "+inf", "LIMIT", 0, limit))
        return await self._spending(counters)

    async def forget(self, before: datetime, *, limit: int) -> int:
        forgotten: int = await self._seat.run(FORGET, self._keys.all, [to_micros(before), limit])
        return forgotten

    # -- moving ------------------------------------------------------------------------------------------------

    async def all_spending(self) -> AsyncIterator[Spending]:
        """As many as there are counters that run, or ran lately."""
        [counters] = await self._seat.read(("HKEYS", self._keys.spending))
        for start in range(0, len(counters), _CHUNK):
            for row in await self._spending(sorted(counters)[start : start + _CHUNK]):
                yield row

    async def all_reserved(self) -> AsyncIterator[Reserved]:
        for key in (self._keys.open, self._keys.settled):
            after = "-"
            while True:
                [entries] = await self._seat.read(("ZRANGEBYLEX", key, after, "+", "LIMIT", 0, _CHUNK))
                if not entries:
                    break
                for row in await self._reserved([entry[16:] for entry in entries]):
                    yield row
                after = f"({entries[-1].decode()}"

    async def put_spending(self, row: Spending) -> None:
        args: list[Argument] = [row.counter, to_micros(row.ends_at), row.limit_nanos]
        await self._seat.run(PUT_SPENDING, self._keys.all, [*args, row.settled_nanos, row.reserved_nanos, row.open])

    async def put_reservation(self, row: Reserved) -> None:
        args: list[Argument] = [row.id, row.nanos, to_micros(row.at), "1" if row.is_open else "0", row.revision]
        await self._seat.run(PUT_RESERVATION, self._keys.all, [*args, len(row.counters), *row.counters])

    # -- reading -----------------------------------------------------------------------------------------------

    async def _spending(self, counters: list[bytes]) -> list[Spending]:
        if not counters:
            return []
        [rows] = await self._seat.read(("HMGET", self._keys.spending, *counters))
        return [_spending(counter, row) for counter, row in zip(counters, rows, strict=True) if row is not None]

    async def _reserved(self, ids: list[bytes]) -> list[Reserved]:
        if not ids:
            return []
        [rows] = await self._seat.read(("HMGET", self._keys.reservations, *ids))
        return [_reserved(id, row) for id, row in zip(ids, rows, strict=True) if row is not None]


def _spending(counter: bytes, row: bytes) -> Spending:
    ends, limit, settled, reserved, open_ = map(int, row.split())
    return Spending(
        counter=counter.decode(),
        ends_at=from_micros(ends),
        limit_nanos=limit,
        settled_nanos=settled,
        reserved_nanos=reserved,
        open=open_,
    )


def _reserved(id: bytes, row: bytes) -> Reserved:
    state, nanos, at, fence, revision, *counters = row.split()
    return Reserved(
        id=id.decode(),
        nanos=int(nanos),
        counters=tuple(counter.decode() for counter in counters),
        at=from_micros(int(at)),
        is_open=state == b"o",
        fence=int(fence),
        revision=int(revision),
    )
