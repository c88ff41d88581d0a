"""
The store in Redis, for many processes: every verb of the protocol, and who carries it. Its connections are the line's.

The lifecycle runs in this process, on a row that was read or remembered; one script makes sure that it still stands
and writes all that follows, or else says what stands there by now. So no process is the truth, and none waits for
another one's lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from gateway.contract.budget import Refusal, Reservation, Reserved, Spending
from gateway.contract.clock import Clock
from gateway.contract.errors import refuse
from gateway.contract.fact import Effect, Happening
from gateway.contract.prediction import Prediction
from gateway.store._redis_budget import Budgets
from gateway.store._redis_delivery import Deliveries
from gateway.store._redis_event import Rows
from gateway.store._redis_keep import KEEP, SWAP, Audit, Files, Settings
from gateway.store._redis_key import CLUSTER_SHARDS, MOST_SHARDS, Keys
from gateway.store._redis_lease import Leases
from gateway.store._redis_moving import Moving
from gateway.store._redis_pointer import Pointers
from gateway.store._redis_prediction import Predictions
from gateway.store._redis_replica import Replicas
from gateway.store._redis_search import Lists
from gateway.store._redis_seat import Seat
from gateway.store._redis_turn import Turns
from gateway.store._redis_wire import Call, Line, ScriptRefused, load
from gateway.store.protocol import (
    Applied,
    AuditRow,
    Backlog,
    CreateResult,
    Delivery,
    FileRow,
    Heard,
    Held,
    Lease,
    LedgerRow,
    Page,
    Record,
    Redelivery,
    Reduce,
    Search,
    Snapshot,
    StoredEvent,
)

FORMAT = 2  # of keys and rows; it grows when something is added to them
# The lowest format that may write beside ours: an earlier one leaves out what we rely on. Raised only if it must be:
# then nobody may serve from the store any more who does not know it.
MIN_FORMAT = 1
COUNT = load("count")
KEEP_FORMAT = load("format")


class RedisStore:
    """`await RedisStore.open(line, …)`, and `await store.aclose()` at the end. See `protocol.Store` for the verbs."""

    def __init__(self, seat: Seat, *, reduce: Reduce, snapshot: Snapshot, max_queue: int) -> None:
        self._seat = seat
        self._turns = Turns(max_queue)
        self._pointers = Pointers(seat)
        self._predictions = Predictions(seat, self._pointers, reduce=reduce, snapshot=snapshot)
        self._rows = Rows(seat)
        self._leases = Leases(seat, self._predictions.cache)
        self._deliveries = Deliveries(seat)
        self._lists = Lists(seat)
        self._budgets = Budgets(seat)
        self._files = Files(seat)
        self._settings = Settings(seat)
        self._audit = Audit(seat)
        self._replicas = Replicas(seat)
        self._moving = Moving(
            seat,
            predictions=self._predictions,
            rows=self._rows,
            deliveries=self._deliveries,
            files=self._files,
            settings=self._settings,
            audit=self._audit,
            budgets=self._budgets,
        )

    @classmethod
    async def open(
        cls,
        line: Line,
        *,
        reduce: Reduce,
        snapshot: Snapshot,
        clock: Clock | None = None,
        prefix: str = "turnout",
        max_queue: int = 1_000,
        shards: int | None = None,
    ) -> RedisStore:
        """
        The store goes by the server's time, unless a test brings a `clock`. `max_queue`: writes that may be under way.

        How many shards there are is settled by whoever opens it first. The line is the store's from here on, closed by
        it even if this fails. Raises ConfigurationError for what a newer version keeps there, and StoreUnavailable.
        """
        try:
            now = 0 if clock is None else 1
            own = [Keys(prefix, 1).first.own]
            wanted = shards or (CLUSTER_SHARDS if line.is_cluster else 1)
            (format_, asked), kept, origin = _heard(
                await line.run_all(
                    [
                        Call(KEEP_FORMAT, own, [FORMAT, MIN_FORMAT], now),
                        Call(KEEP, own, ["shards", wanted], now),
                        Call(COUNT, own, ["processes"], now),
                    ]
                )
            )
            if asked > FORMAT or not 1 <= int(kept) <= MOST_SHARDS:
                raise refuse(  # noqa: TRY301 - the line is closed below
                    f"a newer Turnout keeps this store (format {format_}, for {asked} and later;"
                    f" this one knows {FORMAT})",
                    place=f"[store] prefix = {prefix!r}",
                    remedy="run that Turnout, or choose another prefix",
                )
            seat = Seat(line, Keys(prefix, int(kept)), clock=clock, origin=origin)
        except BaseException:
            await line.aclose()
            raise
        return cls(seat, reduce=reduce, snapshot=snapshot, max_queue=max_queue)

    # -- predictions -------------------------------------------------------------------------------------------

    async def create(
        self,
        prediction: Prediction,
        *,
        idempotency_key: str | None = None,
        body_hash: str = "",
        worker: str | None = None,
        effects: Sequence[Effect] = (),
    ) -> CreateResult:
        write = partial(
            self._predictions.create,
            prediction,
            idempotency_key=idempotency_key,
            body_hash=body_hash,
            worker=worker,
            effects=effects,
        )
        return await self._turns.run(write, of=prediction.id)

    async def apply(self, id: str, happening: Happening, *, lease: Lease | None = None) -> Applied:
        return await self._turns.run(partial(self._predictions.apply, id, happening, lease=lease), of=id)

    async def get(self, id: str, *, owner: str | None = None) -> Prediction | None:
        self._turns.check_open()
        return await self._predictions.get(id, owner=owner)

    async def list_predictions(
        self,
        *,
        owner: str,
        position: str | None = None,
        limit: int = 100,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page:
        self._turns.check_open()
        return await self._lists.page(
            owner=owner, position=position, limit=limit, created_after=created_after, created_before=created_before
        )

    async def search_predictions(self, search: Search, *, position: str | None = None, limit: int = 100) -> Page:
        self._turns.check_open()
        return await self._lists.search(search, position=position, limit=limit)

    async def find_attempt(self, token_hash: str) -> tuple[str, int] | None:
        self._turns.check_open()
        return await self._pointers.find_attempt(token_hash)

    async def find_stream(self, stream_token: str) -> str | None:
        self._turns.check_open()
        return await self._pointers.find_stream(stream_token)

    async def events(self, id: str, *, after: int = -1, limit: int = 1000) -> list[StoredEvent]:
        self._turns.check_open()
        return await self._rows.events(id, after=after, limit=limit)

    async def ledger(self, id: str) -> list[LedgerRow]:
        self._turns.check_open()
        return await self._rows.ledger(id)

    async def maybes(self, *, created_after: datetime | None = None, limit: int = 1_000) -> list[str]:
        self._turns.check_open()
        return await self._lists.maybes(created_after=created_after, limit=limit)

    # -- leases ------------------------------------------------------------------------------------------------

    async def beat(self, worker: str, *, lease_seconds: float) -> None:
        # Not in the queue: a replica that has much to write must not lose what it holds for it.
        self._turns.check_open()
        await self._leases.beat(worker, lease_seconds=lease_seconds)

    async def claim_due(self, worker: str, *, limit: int) -> list[Held]:
        self._turns.check_open()
        return await self._leases.claim_due(worker, limit=limit)

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        await self._turns.run(partial(self._leases.release, worker, ids))

    # -- outbox ------------------------------------------------------------------------------------------------

    async def claim_deliveries(
        self, worker: str, *, limit: int, lease_seconds: float, exclude_lanes: frozenset[tuple[str, str]] = frozenset()
    ) -> list[Delivery]:
        self._turns.check_open()
        return await self._deliveries.claim(
            worker, limit=limit, lease_seconds=lease_seconds, exclude_lanes=exclude_lanes
        )

    async def release_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        await self._turns.run(partial(self._deliveries.release, deliveries))

    async def finish_delivery(
        self,
        delivery: Delivery,
        *,
        ended: str | None,
        due_at: datetime | None = None,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        return await self._turns.run(
            partial(self._deliveries.finish, delivery, ended=ended, due_at=due_at, status=status, error=error)
        )

    async def deliveries(self, id: str) -> list[Delivery]:
        self._turns.check_open()
        return await self._deliveries.of_prediction(id)

    async def next_delivery_at(self) -> datetime | None:
        self._turns.check_open()
        return await self._deliveries.next_at()

    async def backlog(self, *, limit: int = 100) -> list[Backlog]:
        self._turns.check_open()
        return await self._deliveries.backlog(limit=limit)

    async def redeliver(self, id: str) -> Redelivery:
        return await self._turns.run(partial(self._deliveries.redeliver, id))

    # -- budgets -----------------------------------------------------------------------------------------------

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        return await self._turns.run(partial(self._budgets.reserve, reservation))

    async def settle(self, id: str, nanos: int | None, *, revision: int, reserved_at: datetime | None = None) -> None:
        await self._turns.run(partial(self._budgets.settle, id, nanos, revision=revision, reserved_at=reserved_at))

    async def reservations(
        self, *, before: datetime, position: str | None = None, limit: int = 500
    ) -> tuple[list[Reserved], str | None]:
        self._turns.check_open()
        return await self._budgets.open_before(before, position=position, limit=limit)

    async def spending(self, *, ends_after: datetime, limit: int = 1_000) -> list[Spending]:
        self._turns.check_open()
        return await self._budgets.ending_after(ends_after, limit=limit)

    async def forget_spending(self, *, before: datetime, limit: int = 1_000) -> int:
        return await self._turns.run(partial(self._budgets.forget, before, limit=limit))

    # -- files -------------------------------------------------------------------------------------------------

    async def put_file(self, row: FileRow) -> None:
        await self._turns.run(partial(self._files.put, row))

    async def get_file(self, id: str, *, owner: str | None) -> FileRow | None:
        self._turns.check_open()
        return await self._files.get(id, owner=owner)

    async def list_files(
        self, *, owner: str, position: str | None = None, limit: int = 100
    ) -> tuple[list[FileRow], str | None, str | None]:
        self._turns.check_open()
        return await self._lists.files(owner=owner, position=position, limit=limit)

    async def delete_file(self, id: str, *, owner: str) -> FileRow | None:
        return await self._turns.run(partial(self._files.delete, id, owner=owner))

    async def expire_files(self, *, limit: int = 100) -> list[FileRow]:
        return await self._turns.run(partial(self._files.expire, limit=limit))

    # -- retention ---------------------------------------------------------------------------------------------

    async def aged(self, *, before: datetime, limit: int = 100) -> list[str]:
        self._turns.check_open()
        return await self._lists.aged(before=before, limit=limit)

    # -- replicas ----------------------------------------------------------------------------------------------

    async def follow(self, worker: str, heard: Heard) -> None:
        self._turns.check_open()
        await self._replicas.follow(worker, heard)

    def watch(self, id: str) -> None:
        self._replicas.watch(id)

    def unwatch(self, id: str) -> None:
        self._replicas.unwatch(id)

    async def exchange(self, topic: str, worker: str, body: bytes, *, lifetime_seconds: float) -> list[bytes]:
        self._turns.check_open()
        return await self._replicas.exchange(topic, worker, body, lifetime_seconds=lifetime_seconds)

    # -- moving ------------------------------------------------------------------------------------------------

    async def dump(self) -> AsyncIterator[Record]:
        self._turns.check_open()
        async for record in self._moving.dump():
            yield record

    async def load(self, records: Sequence[Record]) -> None:
        await self._turns.run(partial(self._moving.load, records))

    # -- what people did ---------------------------------------------------------------------------------------

    async def put_audit(self, row: AuditRow) -> AuditRow:
        return await self._turns.run(partial(self._audit.put, row))

    async def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        self._turns.check_open()
        return await self._audit.newest(before=before, limit=limit)

    async def last_audit(self, actions: frozenset[str], *, outcomes: frozenset[str]) -> list[AuditRow]:
        self._turns.check_open()
        return await self._audit.last(actions, outcomes)

    # -- itself ------------------------------------------------------------------------------------------------

    async def setting(self, name: str, default: str) -> str:
        self._turns.check_open()
        return await self._settings.keep(name, default)

    async def swap_setting(self, name: str, value: str) -> str | None:
        return await self._turns.run(partial(self._settings.swap, name, value))

    async def check(self) -> None:
        """Every shard, and the budgets: each may lie with another server."""
        self._turns.check_open()
        now = self._seat.now().isoformat()
        await self._seat.run_all([self._seat.call(SWAP, [key], ["checked_at", now]) for key in self._seat.keys.checked])

    async def aclose(self) -> None:
        """What was begun ends; then the line is closed. A second call does no harm."""
        await self._turns.close()
        await self._seat.line.aclose()


def _heard(answers: list[Any]) -> tuple[tuple[int, int], bytes, int]:
    format_, shards, origin = answers
    for answer in answers:
        if isinstance(answer, ScriptRefused):
            raise answer
    return (format_[0], format_[1]), shards, origin
