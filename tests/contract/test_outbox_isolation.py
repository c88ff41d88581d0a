"""T13: twenty receivers, five of them dead and five dripping, over the real store and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from gateway.contract.clock import SystemClock
from gateway.contract.fact import CancelRequested, Notify
from gateway.contract.host import host_of
from gateway.contract.prediction import Prediction, Request
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Sender
from gateway.net.target import Guard
from gateway.store.sqlite import SqliteStore
from tests.contract.test_outbox_over_sqlite import SECRET, end
from tests.unit.delivery.fakes import Received, Receiver, running

EVENTS = int(os.environ.get("TURNOUT_T13_EVENTS", "200"))
WELL, DEAD, DRIPPING = 10, 5, 5
OWNERS = ("ada", "bob", "cid")
SCHEDULE = (0, *(0.5 * 1.3**turn for turn in range(30)))
TRY_SECONDS = 1.0
REVIVED_SECONDS = 5.0  # the tries that hang end within TRY_SECONDS, and then nothing is left to wait for


async def drip(received: Received, writer: asyncio.StreamWriter) -> None:
    """An answer that never comes to its end, nor to its status."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.2)


class Host(Receiver):
    """A receiver at a loopback address of its own: a host like any other. Nobody listens there until it is up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.host = f"127.0.1.{number + 1}"
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = int(probe.getsockname()[1])
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    async def up(self, stack: contextlib.AsyncExitStack) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self.serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, self.host, self.port)
        stack.callback(server.close)
        stack.push_async_callback(self._close)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def a_prediction(number: int, url: str, clock: SystemClock) -> Prediction:
    request = Request(model="a/b", version="0" * 64, is_pinned=False, input={}, webhook=url)
    now = clock.now()
    return Prediction(
        id=f"{number:026d}", owner=OWNERS[number % 3], request=request, created_at=now,
        deadline_at=now + timedelta(hours=1), stream_token=f"stream-{number}",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def sending(store: SqliteStore, clock: SystemClock, hosts: list[str]) -> AsyncIterator[Outbox]:
    sender = Sender(Guard(hosts, allow_http=True), (SECRET,), clock, timeout_seconds=TRY_SECONDS)
    outbox = Outbox(
        store, sender, worker="w", clock=clock, draw=lambda: 0.5, schedule_seconds=SCHEDULE, timeout_seconds=TRY_SECONDS
    )
    async with contextlib.aclosing(sender), running(outbox, drain_seconds=5):
        yield outbox


async def until_delivered(store: SqliteStore, ids: list[str], *, seconds: float) -> list[tuple[datetime, datetime]]:
    """Of each event when it was made and when it arrived, once all have arrived."""
    found: dict[str, tuple[datetime, datetime]] = {}
    async with asyncio.timeout(seconds):
        while len(found) < len(ids):
            for id in ids:
                if id in found:
                    continue
                final = [row for row in await store.deliveries(id) if row.is_final]
                if final and final[0].ended == "delivered":
                    found[id] = final[0].created_at, final[0].history[-1].at
            await asyncio.sleep(0.1)
    return list(found.values())


@pytest.mark.timeout(60)  # hundreds of deliveries through real sockets, and tries that have to time out
async def test_the_healthy_are_served_in_time_and_the_others_once_they_revive(tmp_path: Path) -> None:
    clock = SystemClock()
    store = await SqliteStore.open(
        tmp_path / "turnout.db", reduce=end, clock=clock, snapshot=lambda p: f'{{"id":"{p.id}"}}'.encode()
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        everybody = [Host(number) for number in range(WELL + DRIPPING + DEAD)]
        well, dripping, dead = everybody[:WELL], everybody[WELL : WELL + DRIPPING], everybody[WELL + DRIPPING :]
        for receiver in dripping:
            receiver.answers = [drip]
        for receiver in (*well, *dripping):
            await receiver.up(stack)
        hosts = [receiver.host for receiver in everybody]
        outbox = await stack.enter_async_context(sending(store, clock, hosts))
        ids: dict[bool, list[str]] = {True: [], False: []}
        for number in range(EVENTS):
            receiver = everybody[number % len(everybody)]
            made = await store.create(a_prediction(number, receiver.url, clock), effects=(Notify(event="start"),))
            outbox.wake()
            await store.apply(made.prediction.id, CancelRequested())
            outbox.wake()
            ids[receiver in well].append(made.prediction.id)
            await asyncio.sleep(0.002)
        well_served = await until_delivered(store, ids[True], seconds=30)
        for receiver in dripping:
            receiver.answers = list(well[0].answers)
        for receiver in dead:
            await receiver.up(stack)
        revived_at = clock.now()
        for owner, receiver in itertools.product(OWNERS, (*dripping, *dead)):
            await outbox.retry(owner, host_of(receiver.url))
        for id in ids[False]:
            await store.redeliver(id)
        outbox.wake()
        revived = await until_delivered(store, ids[False], seconds=30)
        for receiver in everybody:
            _in_order(receiver)
    late = sorted((came_at - made_at).total_seconds() for made_at, came_at in well_served)
    p99 = late[int(len(late) * 0.99)]
    last = max((came_at - revived_at).total_seconds() for _, came_at in revived)
    print(
        f"\nT13, {EVENTS} predictions to {len(everybody)} receivers: healthy p50 {late[len(late) // 2]:.3f} s, "
        f"p99 {p99:.3f} s; {len(revived)} of {len(ids[False])} arrived after the revival, the last after {last:.3f} s"
    )
    assert p99 <= 2.0
    assert len(revived) == len(ids[False])
    assert last <= REVIVED_SECONDS


def _in_order(receiver: Receiver) -> None:
    """Of one prediction nothing arrives after its end, but its end once more."""
    sequences: dict[str, list[int]] = defaultdict(list)
    ids: dict[str, set[str]] = defaultdict(set)
    for got in receiver.received:
        prediction = msgspec.json.decode(got.body)["id"]
        sequence = int(got.headers["turnout-sequence"])
        sequences[prediction].append(sequence)
        ids[f"{prediction} {sequence}"].add(got.headers["webhook-id"])
    assert all(order == sorted(order) for order in sequences.values())
    assert all(len(found) == 1 for found in ids.values()), "one event, one id"
