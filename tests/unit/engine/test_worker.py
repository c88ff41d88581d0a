"""The worker: what it cannot drive it lets go, what it may have lost it does not rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from gateway.contract.errors import StoreUnavailable
from gateway.engine.worker import Leasing, Worker
from gateway.store.protocol import Store
from gateway.testing import ManualClock
from tests.unit.engine.stage import virtual

LEASING = Leasing(lease=30.0)


class Slow:
    """A store whose releases take their time."""

    def __init__(self) -> None:
        self.released: list[list[str]] = []
        self.entered = asyncio.Event()
        self.go = asyncio.Event()

    async def beat(self, worker: str, *, lease_seconds: float) -> None: ...

    async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
        self.entered.set()
        await self.go.wait()
        self.released.append(sorted(ids or ()))

    async def claim_due(self, worker: str, *, limit: int) -> list[Any]:
        return []


class Booked:
    """A store that writes down what it is asked, and can be out."""

    def __init__(self, clock: ManualClock) -> None:
        self.calls: list[str] = []
        self.is_out = False
        self.takes_seconds = 0.0
        self._clock = clock

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> list[Any]:
            self.calls.append(verb)
            await asyncio.sleep(self.takes_seconds)
            if self.is_out:
                raise StoreUnavailable("out")
            return []

        return call


def a_worker(store: Any, clock: ManualClock | None = None) -> Worker:
    return Worker("w", cast(Store, store), lambda held: cast(Any, None), clock=clock or ManualClock(), leasing=LEASING)


def the_clock() -> ManualClock:
    clock = cast(Any, asyncio.get_running_loop()).clock
    assert isinstance(clock, ManualClock)
    return clock


async def test_what_could_not_be_released_while_others_were_is_released_with_the_next_claim() -> None:
    store = Slow()
    worker = a_worker(store)
    worker._unreleased.add("first")
    claiming = asyncio.create_task(worker._claim())
    await store.entered.wait()
    worker._unreleased.add("second")  # its own release failed just now
    store.go.set()
    await claiming
    await worker._claim()
    assert store.released == [["first"], ["second"]]


async def test_a_release_that_fails_is_kept_for_later() -> None:
    class Out(Slow):
        async def release(self, worker: str, ids: Sequence[str] | None = None) -> None:
            raise StoreUnavailable("out")

    worker = a_worker(Out())
    await worker._let_go("first")
    assert worker._unreleased == {"first"}


@virtual
async def test_a_lease_is_relied_on_from_the_start_of_the_last_beat_that_came_through() -> None:
    clock = the_clock()
    store = Booked(clock)
    worker = a_worker(store, clock)
    assert not worker.holds_since(worker.term)
    store.takes_seconds = 4.0
    await worker._beat()
    term = worker.term
    clock.advance(LEASING.lease - LEASING.margin - 4.0 - 0.5)
    assert worker.holds_since(term)
    clock.advance(0.5)
    assert not worker.holds_since(term), "the time of the answer was counted, not that of the question"


@virtual
async def test_a_beat_after_the_lease_begins_another_term() -> None:
    clock = the_clock()
    worker = a_worker(Booked(clock), clock)
    await worker._beat()
    term = worker.term
    clock.advance(10.0)
    await worker._beat()
    assert worker.holds_since(term)
    clock.advance(31.0)
    await worker._beat()
    assert worker.holds_since(worker.term)
    assert not worker.holds_since(term)


@virtual
async def test_a_beat_that_may_have_come_too_late_begins_another_term() -> None:
    """It was asked for in time and answered after the last lease had ended: nobody knows when it was taken."""
    clock = the_clock()
    store = Booked(clock)
    worker = a_worker(store, clock)
    await worker._beat()
    term = worker.term
    clock.advance(20.0)
    store.takes_seconds = 12.0
    await worker._beat()
    assert not worker.holds_since(term)


@virtual
async def test_after_a_sleep_it_beats_before_it_claims() -> None:
    clock = the_clock()
    store = Booked(clock)
    worker = a_worker(store, clock)
    await worker._beat()
    store.calls.clear()
    clock.advance(100.0)
    await worker._claim()
    assert store.calls == ["beat", "claim_due"]


@virtual
async def test_a_beat_that_fails_is_soon_made_again() -> None:
    clock = the_clock()
    store = Booked(clock)
    worker = a_worker(store, clock)
    await worker.start()
    await asyncio.sleep(5.0)
    store.is_out = True
    await asyncio.sleep(8.0)
    store.is_out = False
    await asyncio.sleep(LEASING.beat / 5 + 0.1)
    assert worker.holds_since(worker.term)
    assert worker.term == 1, "one beat that failed cost the leases"
    await worker.drain(seconds=1.0)


@virtual
async def test_a_claim_under_way_is_waited_for_before_the_leases_go() -> None:
    clock = the_clock()
    store = Booked(clock)
    worker = a_worker(store, clock)
    await worker.start()
    store.takes_seconds = 1.0
    store.calls.clear()
    await asyncio.sleep(2.5)  # it claims
    assert store.calls == ["claim_due"]
    begun = clock.monotonic()
    await worker.drain(seconds=1.0)
    assert store.calls[-1] == "release"
    assert clock.monotonic() - begun >= 1.4, "the leases were let go while more were on their way"


class Backlog(Slow):
    """A store with so many predictions that nobody holds."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.go.set()
        self.left = left
        self.asked: list[int] = []

    async def claim_due(self, worker: str, *, limit: int) -> list[Any]:
        self.asked.append(limit)
        found = min(limit, self.left)
        self.left -= found
        return [None] * found


@virtual
async def test_of_a_long_backlog_little_is_claimed_before_the_start_and_all_of_it_right_after(monkeypatch: Any) -> None:
    store = Backlog(2_500)
    worker = a_worker(store, the_clock())
    taken: list[Any] = []
    monkeypatch.setattr(worker, "take", taken.append)
    await worker.start()
    assert store.asked == [200]
    await asyncio.sleep(0.01)
    assert store.asked == [200, 1_000, 1_000, 1_000]
    assert (len(taken), store.left) == (2_500, 0)
    await worker.drain(seconds=1.0)
