"""What may have been billed, read from a real store: listed, added up, bounded, and shown beside the prediction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.contract.body import routing_body
from gateway.contract.errors import OutcomeUnknown, StoreUnavailable
from gateway.contract.fact import AttemptEnded, Begun, Fact, Learned, Phase, Source, SubmitFailed
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Prediction
from gateway.dashboard.account import Account
from gateway.dashboard.detail import detail_of
from gateway.engine.lifecycle import reduce
from gateway.store.sqlite import SqliteStore
from gateway.testing import ManualClock
from tests.unit.engine.world import a_prediction, an_attempt, at

UNKNOWN = OutcomeUnknown("the line broke").failure


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(
        tmp_path / "store.db", reduce=reduce, snapshot=lambda one: b"{}", clock=ManualClock(at(10))
    )
    yield opened
    await opened.aclose()


async def keep(store: SqliteStore, id: str, *, prices: tuple[int | None, ...], wins: bool) -> Prediction:
    """A prediction whose attempts were given up unanswered, and with `wins` one more that was paid 5."""
    prediction = a_prediction(id=id, stream_token=id * 2)
    await store.create(prediction)
    for number, price in enumerate(prices, 1):
        hash = f"{id[:10]}{number:054d}"
        await store.apply(id, Begun(attempt=an_attempt(number, expected_nanos=price, token_hash=hash)))
        await store.apply(id, SubmitFailed(attempt=number, failure=UNKNOWN))
        await store.apply(id, AttemptEnded(attempt=number, failure=UNKNOWN))
    if wins:
        number = len(prices) + 1
        await store.apply(id, Begun(attempt=an_attempt(number, token_hash=f"{id[:10]}{number:054d}", pays_twice=True)))
        fact, cost = Fact(phase=Phase.SUCCEEDED, output="done"), Cost(nanos=5, basis=CostBasis.REPORTED)
        await store.apply(id, Learned(attempt=number, fact=fact, source=Source.POLL, cost=cost))
    kept = await store.get(id)
    assert kept is not None
    return kept


async def test_the_ledger_lists_what_may_have_been_billed_and_bounds_what_came_twice(store: SqliteStore) -> None:
    await keep(store, "a" * 26, prices=(), wins=True)
    await keep(store, "b" * 26, prices=(7,), wins=False)
    await keep(store, "c" * 26, prices=(11, None), wins=True)
    told = await Account(store, ManualClock(at(20))).read(hours=1, limit=100)
    assert (told.maybe.nanos, told.maybe.rows, told.maybe.unpriced) == (18, 3, 1)
    twice = told.double_bill_upper_bound
    assert (twice.nanos, twice.rows, twice.unpriced) == (11, 2, 1)
    assert [(line.prediction[0], line.attempt, line.nanos, line.is_double) for line in told.lines] == [
        ("c", 1, 11, True),
        ("c", 2, None, True),
        ("b", 1, 7, False),
    ]
    assert told.is_all


async def test_the_sum_is_bounded_and_says_so(store: SqliteStore) -> None:
    for letter in "abc":
        await keep(store, letter * 26, prices=(7,), wins=True)
    told = await Account(store, ManualClock(at(20))).read(hours=1, limit=2)
    assert (told.double_bill_upper_bound.nanos, told.is_all) == (14, False)


async def test_only_what_is_young_enough_counts(store: SqliteStore) -> None:
    await keep(store, "a" * 26, prices=(7,), wins=True)
    later = ManualClock(at(0) + timedelta(hours=3))
    assert (await Account(store, later).read(hours=2, limit=10)).lines == ()


async def test_the_bound_stands_beside_the_prediction_for_ops_and_for_its_caller(store: SqliteStore) -> None:
    prediction = await keep(store, "a" * 26, prices=(7_000_000,), wins=True)
    rows = await store.ledger(prediction.id)
    detail = detail_of(prediction, ledger=rows, deliveries=(), files={}, now=at(30), base="https://turnout.test")
    assert detail.double_bill_upper_bound.nanos == 7_000_000
    assert [(one.ledger, one.pays_twice) for one in detail.attempts] == [("maybe", False), ("settled", True)]
    shown = routing_body(prediction)
    assert shown.double_bill_upper_bound.amount == "0.007"
    assert [(one.maybe_billed, one.pays_twice) for one in shown.attempts] == [(True, False), (False, True)]


async def test_what_it_last_added_up_is_at_hand_and_a_store_that_is_out_leaves_it(store: SqliteStore) -> None:
    await keep(store, "a" * 26, prices=(7,), wins=True)

    class Gate:
        is_out = False

        async def maybes(self, **asked: object) -> list[str]:
            if self.is_out:
                tried.set()
                raise StoreUnavailable("out")
            return await store.maybes(**asked)  # type: ignore[arg-type]

        async def ledger(self, id: str) -> object:
            rows = await store.ledger(id)
            read.set()
            return rows

    read, tried, gate = asyncio.Event(), asyncio.Event(), Gate()
    account = Account(gate, ManualClock(at(20)))  # type: ignore[arg-type]
    assert account.latest.nanos == 0
    working = asyncio.create_task(account.run())
    await read.wait()
    working.cancel()
    assert account.latest.nanos == 7
    gate.is_out = True
    working = asyncio.create_task(account.run())
    await tried.wait()
    await asyncio.sleep(0)
    assert not working.done(), "it gave up"
    assert account.latest.nanos == 7
    working.cancel()
