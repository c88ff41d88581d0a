"""Budgets in any store: all holds or none, once per id, settled where it was reserved, never beyond a limit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.budget import (
    MOST_NANOS,
    Hold,
    Refusal,
    Reservation,
    Spending,
    counter_of,
    reservation_id,
    window_of,
)
from gateway.contract.errors import NotFound
from gateway.store.protocol import Store
from gateway.testing import ManualClock
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore

CENT = 10_000_000
HOUR = timedelta(hours=1)


def hold(name: str = "eu", *, limit: int = 100 * CENT, per: str = "day", at: datetime = toy.START, **rest: Any) -> Hold:
    window, ends_at = window_of(per, at)
    counter = counter_of(name, by="policy", of="", per=per, window=window)
    return Hold(counter=counter, limit_nanos=limit, ends_at=ends_at, **rest)


EU = hold()


def money(number: int, nanos: int, *holds: Hold, fence: int = 1) -> Reservation:
    return Reservation(id=reservation_id("p" * 26, number), nanos=nanos, holds=holds or (EU,), fence=fence)


async def sums(store: Store) -> dict[str, tuple[int, int, int]]:
    """Settled, reserved and how many are open, by the budget's name and its window's kind."""
    rows = await store.spending(ends_after=toy.START)
    found = {"/".join(row.counter.split("|")[0:4:3]): (row.settled_nanos, row.reserved_nanos, row.open) for row in rows}
    assert len(found) == len(rows)
    return found


async def ids(store: Store, clock: ManualClock) -> list[str]:
    rows, position = await store.reservations(before=clock.now() + HOUR)
    assert position is None
    return [row.id for row in rows]


async def test_what_is_reserved_is_settled_with_what_it_came_to(store: Store, clock: ManualClock) -> None:
    one = money(1, 30 * CENT)
    assert await store.reserve(one) is None
    assert await store.spending(ends_after=toy.START) == [
        Spending(
            counter=EU.counter,
            ends_at=EU.ends_at,
            limit_nanos=EU.limit_nanos,
            settled_nanos=0,
            reserved_nanos=30 * CENT,
            open=1,
        )
    ]
    [row], _ = await store.reservations(before=clock.now() + HOUR)
    assert (row.id, row.nanos, row.counters, row.at, row.is_open) == (
        one.id,
        30 * CENT,
        (EU.counter,),
        clock.now(),
        True,
    )
    await store.settle(one.id, 20 * CENT, revision=3)
    assert await sums(store) == {"eu/day": (20 * CENT, 0, 0)}
    assert await ids(store, clock) == []


async def test_the_limit_may_be_reached_and_not_passed(store: Store) -> None:
    assert await store.reserve(money(1, 60 * CENT)) is None
    assert await store.reserve(money(2, 40 * CENT + 1)) == Refusal(hold=EU, settled_nanos=0, reserved_nanos=60 * CENT)
    assert await store.reserve(money(3, 40 * CENT)) is None
    assert await store.reserve(money(4, 1)) == Refusal(hold=EU, settled_nanos=0, reserved_nanos=100 * CENT)
    assert await store.reserve(money(5, 0)) is None, "what costs nothing always fits"
    await store.settle(money(1, 0).id, 10 * CENT, revision=1)
    assert await store.reserve(money(4, 50 * CENT)) is None, "what was reserved too much is there again"
    assert await store.reserve(money(6, 1)) == Refusal(hold=EU, settled_nanos=10 * CENT, reserved_nanos=90 * CENT)


async def test_of_many_at_once_exactly_as_many_pass_as_fit(open_store: OpenStore, kind: str) -> None:
    stores = [await open_store()] if kind == "sqlite" else [await open_store() for _ in range(3)]
    answers = await asyncio.gather(
        *(stores[number % len(stores)].reserve(money(number, 7 * CENT)) for number in range(300))
    )
    assert answers.count(None) == 100 // 7
    assert await sums(stores[0]) == {"eu/day": (0, 14 * 7 * CENT, 14)}


async def test_a_reservation_is_made_under_all_of_its_holds_or_under_none(store: Store, clock: ManualClock) -> None:
    wide, tight = hold("wide"), hold("tight", limit=10 * CENT, per="hour")
    assert await store.reserve(money(1, 6 * CENT, wide, tight)) is None
    for order in ((wide, tight), (tight, wide)):
        refused = await store.reserve(money(2, 6 * CENT, *order))
        assert refused == Refusal(hold=tight, settled_nanos=0, reserved_nanos=6 * CENT)
    assert await sums(store) == {"tight/hour": (0, 6 * CENT, 1), "wide/day": (0, 6 * CENT, 1)}
    assert await ids(store, clock) == [money(1, 0).id]
    await store.settle(money(1, 0).id, 5 * CENT, revision=1)
    assert await sums(store) == {"tight/hour": (5 * CENT, 0, 0), "wide/day": (5 * CENT, 0, 0)}


async def test_of_many_at_once_under_crossing_holds_no_counter_passes_its_limit(store: Store) -> None:
    """Each falls under two of three; whatever passes passes under both."""
    holds = [hold(name, limit=limit * CENT) for name, limit in (("a", 40), ("b", 25), ("c", 60))]
    chance = random.Random(5)
    asked = [money(number, chance.randint(1, 9) * CENT, *chance.sample(holds, 2), fence=1) for number in range(200)]
    answers = await asyncio.gather(*map(store.reserve, asked))
    expected: Counter[str] = Counter()
    for one, answer in zip(asked, answers, strict=True):
        for each in one.holds if answer is None else ():
            expected[each.counter] += one.nanos
    assert {row.counter: row.reserved_nanos for row in await store.spending(ends_after=toy.START)} == expected
    left = [each.limit_nanos - expected[each.counter] for each in holds]
    assert min(left) >= 0
    assert sum(nanos >= 9 * CENT for nanos in left) <= 1, "whoever was refused had one without room among its two"


async def test_the_same_id_again_is_reserved_once(store: Store, clock: ManualClock) -> None:
    for _ in range(3):
        assert await store.reserve(money(1, 90 * CENT)) is None
    assert await sums(store) == {"eu/day": (0, 90 * CENT, 1)}
    assert await ids(store, clock) == [money(1, 0).id]


async def test_another_amount_takes_the_place_of_the_first(store: Store) -> None:
    other = hold("other")
    assert await store.reserve(money(1, 90 * CENT)) is None
    assert await store.reserve(money(1, 95 * CENT)) is None, "its own money does not stand in its way"
    assert await sums(store) == {"eu/day": (0, 95 * CENT, 1)}
    assert await store.reserve(money(2, 4 * CENT)) is None
    assert await store.reserve(money(1, 97 * CENT)) == Refusal(hold=EU, settled_nanos=0, reserved_nanos=4 * CENT)
    assert await sums(store) == {"eu/day": (0, 99 * CENT, 2)}, "refused, it stands as it was"
    assert await store.reserve(money(1, 2 * CENT, other)) is None
    assert await sums(store) == {"eu/day": (0, 4 * CENT, 1), "other/day": (0, 2 * CENT, 1)}


async def test_what_is_reserved_already_is_not_refused_since_another_cost_more_than_it_was_to(store: Store) -> None:
    assert await store.reserve(money(1, 40 * CENT)) is None
    assert await store.reserve(money(2, 40 * CENT)) is None
    await store.settle(money(2, 0).id, 90 * CENT, revision=1)
    assert await store.reserve(money(1, 40 * CENT)) is None
    assert await sums(store) == {"eu/day": (90 * CENT, 40 * CENT, 1)}


async def test_an_older_lease_takes_nothing_away(store: Store) -> None:
    assert await store.reserve(money(1, 50 * CENT, fence=2)) is None
    assert await store.reserve(money(1, 1 * CENT, fence=1)) is None
    assert await sums(store) == {"eu/day": (0, 50 * CENT, 1)}
    assert await store.reserve(money(1, 40 * CENT, fence=3)) is None
    await store.settle(money(1, 0).id, 0, revision=5)
    assert await store.reserve(money(1, 40 * CENT, fence=2)) is None
    assert await sums(store) == {"eu/day": (0, 0, 0)}


async def test_what_was_settled_with_a_cost_is_not_reserved_again_and_what_was_released_is(store: Store) -> None:
    for number, cost in ((1, 30 * CENT), (2, 0)):
        assert await store.reserve(money(number, 40 * CENT)) is None
        await store.settle(money(number, 0).id, cost, revision=1)
        assert await store.reserve(money(number, 20 * CENT)) is None
    assert await sums(store) == {"eu/day": (30 * CENT, 20 * CENT, 1)}
    await store.settle(money(2, 0).id, 15 * CENT, revision=2)
    assert await sums(store) == {"eu/day": (45 * CENT, 0, 0)}


async def test_a_soft_hold_counts_and_refuses_nothing(store: Store) -> None:
    soft, hard = hold("soft", limit=10 * CENT, is_soft=True), hold("hard", limit=50 * CENT)
    assert await store.reserve(money(1, 30 * CENT, soft, hard)) is None
    refused = await store.reserve(money(2, 30 * CENT, soft, hard))
    assert refused is not None
    assert refused.hold == hard
    firm = await store.reserve(money(3, 1, replace(soft, is_soft=False)))
    assert firm == Refusal(hold=replace(soft, is_soft=False), settled_nanos=0, reserved_nanos=30 * CENT)


async def test_it_is_settled_in_the_window_in_which_it_was_reserved(store: Store, clock: ManualClock) -> None:
    early = hold(per="hour")
    assert await store.reserve(money(1, 30 * CENT, early)) is None
    clock.advance(5 * 3_600)
    late = hold(per="hour", at=clock.now())
    assert await store.reserve(money(2, 100 * CENT, late)) is None, "a new window begins with nothing"
    assert await store.reserve(money(3, 1, late)) is not None
    await store.settle(money(1, 0).id, 25 * CENT, revision=1)
    running = await store.spending(ends_after=clock.now())
    assert [(row.counter, row.settled_nanos, row.reserved_nanos) for row in running] == [(late.counter, 0, 100 * CENT)]
    shown = {row.counter: row.settled_nanos for row in await store.spending(ends_after=toy.START)}
    assert shown == {early.counter: 25 * CENT, late.counter: 0}


async def test_settling_is_idempotent_corrected_by_newer_words_and_not_by_older_ones(store: Store) -> None:
    id = money(1, 0).id
    assert await store.reserve(money(1, 30 * CENT)) is None
    for nanos, revision, expected in (
        (20, 4, 20),
        (20, 4, 20),  # once more
        (22, 6, 22),  # told better
        (20, 4, 22),  # an old word that comes late
        (None, 7, 22),  # nobody knows: what is known stands
        (0, 8, 0),
        (19, 9, 19),
    ):
        await store.settle(id, None if nanos is None else nanos * CENT, revision=revision)
        assert await sums(store) == {"eu/day": (expected * CENT, 0, 0)}


async def test_of_unknown_cost_what_was_reserved_counts(store: Store) -> None:
    assert await store.reserve(money(1, 30 * CENT)) is None
    await store.settle(money(1, 0).id, None, revision=1)
    assert await sums(store) == {"eu/day": (30 * CENT, 0, 0)}
    await store.settle(money(1, 0).id, 5 * CENT, revision=2)
    assert await sums(store) == {"eu/day": (5 * CENT, 0, 0)}


async def test_there_is_nothing_to_settle_of_what_nobody_knows(store: Store, clock: ManualClock) -> None:
    await store.settle(money(1, 0).id, 5 * CENT, revision=1)
    assert await store.spending(ends_after=toy.START) == []
    assert await ids(store, clock) == []


async def test_what_was_reserved_anew_since_it_was_looked_at_is_left(store: Store, clock: ManualClock) -> None:
    assert await store.reserve(money(1, 30 * CENT)) is None
    [looked], _ = await store.reservations(before=clock.now() + HOUR)
    clock.advance(0.000001)
    assert await store.reserve(money(1, 30 * CENT)) is None
    await store.settle(looked.id, 0, revision=9, reserved_at=looked.at)
    assert await sums(store) == {"eu/day": (0, 30 * CENT, 1)}
    [looked], _ = await store.reservations(before=clock.now() + HOUR)
    await store.settle(looked.id, 0, revision=9, reserved_at=looked.at)
    assert await sums(store) == {"eu/day": (0, 0, 0)}


async def test_open_reservations_are_shown_page_by_page_the_oldest_first(store: Store, clock: ManualClock) -> None:
    for number in (3, 1, 2, 5, 4):
        assert await store.reserve(money(number, CENT)) is None
        clock.advance(10)
    await store.settle(money(2, 0).id, CENT, revision=1)
    before = toy.START + timedelta(seconds=40)
    pages, position = [], None
    while True:
        rows, position = await store.reservations(before=before, position=position, limit=2)
        pages.append([int(row.id.rpartition("/")[2]) for row in rows])
        if position is None:
            break
    assert [number for page in pages for number in page] == [3, 1, 5]
    assert max(map(len, pages)) == 2
    with pytest.raises(NotFound):
        await store.reservations(before=before, position="nowhere")


async def test_windows_are_shown_the_first_to_end_first(store: Store) -> None:
    day, hour, month = hold("a"), hold("b", per="hour"), hold("c", per="month")
    for number, each in enumerate((month, day, hour)):
        assert await store.reserve(money(number, CENT, each)) is None
    assert [row.counter for row in await store.spending(ends_after=toy.START)] == [
        hour.counter,
        day.counter,
        month.counter,
    ]
    assert [row.counter for row in await store.spending(ends_after=toy.START, limit=1)] == [hour.counter]


async def test_windows_are_forgotten_after_their_end_but_not_while_something_is_open(
    store: Store, clock: ManualClock
) -> None:
    done, pending = hold("done", per="hour"), hold("pending", per="hour")
    assert await store.reserve(money(1, CENT, done)) is None
    assert await store.reserve(money(2, CENT, pending, done)) is None
    assert await store.reserve(money(3, 0, hold("free", per="hour"))) is None
    await store.settle(money(1, 0).id, CENT, revision=1)
    assert await store.forget_spending(before=clock.now()) == 0, "its window has not ended"
    clock.advance(86_400)
    assert await store.forget_spending(before=clock.now()) == 1, "the settled reservation, and no window"
    await store.settle(money(1, 0).id, 9 * CENT, revision=2)  # nobody knows it any more
    await store.settle(money(2, 0).id, 2 * CENT, revision=1)
    await store.settle(money(3, 0).id, 0, revision=1)
    assert await sums(store) == {
        "done/hour": (3 * CENT, 0, 0),
        "free/hour": (0, 0, 0),
        "pending/hour": (2 * CENT, 0, 0),
    }
    clock.advance(86_400)
    assert await store.forget_spending(before=clock.now()) == 5
    assert await store.spending(ends_after=toy.START) == []
    await store.settle(money(2, 0).id, 9 * CENT, revision=2)
    assert await store.spending(ends_after=toy.START) == [], "a late word does not bring a window back"


async def test_forgetting_takes_as_many_as_it_is_told(store: Store, clock: ManualClock) -> None:
    for number in range(5):
        assert await store.reserve(money(number, CENT, hold(f"b{number}", per="hour"))) is None
        await store.settle(money(number, 0).id, CENT, revision=1)
    clock.advance(86_400)
    assert [await store.forget_spending(before=clock.now(), limit=2) for _ in range(4)] == [4, 4, 2, 0]


async def test_what_was_reserved_outlives_a_restart(open_store: OpenStore, clock: ManualClock) -> None:
    store = await open_store()
    assert await store.reserve(money(1, 60 * CENT)) is None
    assert await store.reserve(money(2, 30 * CENT)) is None
    await store.settle(money(2, 0).id, 20 * CENT, revision=1)
    await store.aclose()
    store = await open_store()
    assert await sums(store) == {"eu/day": (20 * CENT, 60 * CENT, 1)}
    assert await store.reserve(money(3, 21 * CENT)) == Refusal(
        hold=EU, settled_nanos=20 * CENT, reserved_nanos=60 * CENT
    )
    assert await ids(store, clock) == [money(1, 0).id]


async def test_sums_are_exact_up_to_the_greatest_limit(store: Store) -> None:
    most = hold(limit=9 * MOST_NANOS)
    for number in range(9):
        assert await store.reserve(money(number, MOST_NANOS - 1, most)) is None
    assert await store.reserve(money(9, 10, most)) is not None
    assert await store.reserve(money(9, 9, most)) is None
    for number in range(9):
        await store.settle(money(number, 0).id, MOST_NANOS, revision=1)
    assert await sums(store) == {"eu/day": (9 * MOST_NANOS, 9, 1)}


async def test_names_of_any_kind_are_told_apart(store: Store) -> None:
    names = ("eu", "eu|policy", "e u", "e%20u", "é\n", "日本", "")
    for number, name in enumerate(names):
        assert await store.reserve(money(number, CENT, hold(name))) is None
    assert [row.reserved_nanos for row in await store.spending(ends_after=toy.START)] == [CENT] * len(names)


async def test_a_page_whose_rows_are_settled_meanwhile_still_leads_on(store: Store, clock: ManualClock) -> None:
    for number in range(4):
        assert await store.reserve(money(number, CENT)) is None
        clock.advance(1)
    rows, position = await store.reservations(before=clock.now(), limit=2)
    for row in rows:
        await store.settle(row.id, 0, revision=1)
    rows, position = await store.reservations(before=clock.now(), position=position, limit=2)
    assert [row.id for row in rows] == [money(2, 0).id, money(3, 0).id]
