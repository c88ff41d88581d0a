"""What a Redis store holds, record by record: read out to be moved, and written as it came. Not how a file looks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from gateway.contract.errors import PredictionUnreadable, StoreOverloaded
from gateway.contract.host import host_of
from gateway.store import _redis_row
from gateway.store._encoding import from_micros, to_micros
from gateway.store._redis_budget import Budgets
from gateway.store._redis_delivery import Deliveries, entry_of, fields_of
from gateway.store._redis_event import Rows
from gateway.store._redis_keep import Audit, Files, Settings
from gateway.store._redis_key import host_name
from gateway.store._redis_prediction import Predictions
from gateway.store._redis_row import FIELDS
from gateway.store._redis_seat import Seat
from gateway.store._redis_wire import Argument, load
from gateway.store.protocol import (
    Delivery,
    IdempotencyRow,
    KeptAudit,
    KeptFile,
    KeptReservation,
    KeptSpending,
    Record,
    Setting,
    Whole,
)

FORGET = load("forget", "outbox", "change")
PUT_DELIVERY = load("put_delivery", "outbox")

_CHUNK = 500
_MOST_TRIES = 20


class Moving:
    def __init__(
        self,
        seat: Seat,
        *,
        predictions: Predictions,
        rows: Rows,
        deliveries: Deliveries,
        files: Files,
        settings: Settings,
        audit: Audit,
        budgets: Budgets,
    ) -> None:
        self._seat = seat
        self._keys = seat.keys
        self._predictions = predictions
        self._rows = rows
        self._deliveries = deliveries
        self._files = files
        self._settings = settings
        self._audit = audit
        self._budgets = budgets

    # -- out ---------------------------------------------------------------------------------------------------

    async def dump(self) -> AsyncIterator[Record]:
        for name, value in await self._settings.all():
            yield Setting(name=name, value=value)
        for shard in self._keys.shards:
            after = "-"
            while True:
                [entries] = await self._seat.read(("ZRANGEBYLEX", shard.listed, after, "+", "LIMIT", 0, _CHUNK))
                if not entries:
                    break
                for entry in entries:
                    whole = await self._whole(entry[16:].decode())
                    if whole is not None:
                        yield whole
                after = f"({entries[-1].decode()}"
        async for file in self._files.all():
            yield KeptFile(row=file)
        async for row in self._audit.all():
            yield KeptAudit(row=row)
        async for spending in self._budgets.all_spending():
            yield KeptSpending(row=spending)
        async for reserved in self._budgets.all_reserved():
            yield KeptReservation(row=reserved)

    async def _whole(self, id: str) -> Whole | None:
        """As of one moment: what changed while it was read is read again."""
        key = self._keys.shard(id).prediction(id)
        for _ in range(_MOST_TRIES):
            [values] = await self._seat.read(("HMGET", key, *FIELDS, "until", "revision"))
            if values[1] is None:
                return None
            kept = _redis_row.decode(values[: len(FIELDS)])
            if kept.row.foreign is not None:
                raise PredictionUnreadable(
                    f"a newer Turnout wrote prediction {id}, and keeps more of it than this one knows:"
                    " move it with that one"
                )
            until, revision = values[len(FIELDS) :]
            whole = Whole(
                prediction=kept.row.prediction,
                is_open=kept.row.is_open,
                due_at=from_micros(kept.row.due_at) if kept.row.due_at else None,
                events=tuple(await self._rows.events(id, after=-1, limit=-1)),
                ledger=tuple(await self._rows.ledger(id)),
                deliveries=tuple(await self._deliveries.of_prediction(id)),
                idempotency=self._idempotency(kept.key, kept.body_hash, until),
            )
            [standing] = await self._seat.read(("HGET", key, "revision"))
            if standing == revision:
                return whole
        raise StoreOverloaded(f"prediction {id} changes faster than it can be read whole")

    def _idempotency(self, key: str, body_hash: str, until: bytes | None) -> tuple[IdempotencyRow, ...]:
        if not key or until is None or int(until) <= to_micros(self._seat.now()):
            return ()
        return (IdempotencyRow(key=key, body_hash=body_hash, expires_at=from_micros(int(until))),)

    # -- in ----------------------------------------------------------------------------------------------------

    async def load(self, records: Sequence[Record]) -> None:
        for record in records:
            match record:
                case Whole():
                    await self._load_whole(record)
                case Setting(name=name, value=value):
                    await self._settings.swap(name, value)
                case KeptFile(row=row):
                    await self._files.put(row, is_moved=True)
                case KeptAudit(row=row):
                    await self._audit.keep(row)
                case KeptSpending(row=row):
                    await self._budgets.put_spending(row)
                case KeptReservation(row=row):
                    await self._budgets.put_reservation(row)

    async def _load_whole(self, whole: Whole) -> None:
        prediction = whole.prediction
        shard, id = self._keys.shard(prediction.id), prediction.id
        self._predictions.cache.drop(id)
        lists = [shard.owned(prediction.owner), shard.listed, shard.ids]
        await self._seat.run(FORGET, [*shard.changed(id), *lists], [id])
        await self._predictions.put(whole)
        for delivery in whole.deliveries:
            await self._put_delivery(delivery)

    async def _put_delivery(self, delivery: Delivery) -> None:
        host = host_name(host_of(delivery.url))
        fields = fields_of(delivery)
        args: list[Argument] = [
            delivery.owner,
            delivery.url,
            host,
            delivery.sequence,
            delivery.event,
            entry_of(delivery, host) if delivery.ended is None else "",
            len(fields) // 2,
            *fields,
        ]
        shard = self._keys.shard(delivery.prediction)
        await self._seat.run(PUT_DELIVERY, shard.delivered(delivery.prediction), args)
