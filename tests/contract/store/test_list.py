"""Lists in any store: newest first, every entry once, there and back, for their owner alone."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from msgspec.structs import replace

from gateway.contract.errors import NotFound
from gateway.contract.prediction import Status
from gateway.store.protocol import Store
from tests.contract.store import toy


async def _pages(store: Store, *, limit: int, **bounds: object) -> tuple[list[list[str]], list[list[str]]]:
    """All pages from the newest to the oldest, and back again."""
    page = await store.list_predictions(owner="alice", limit=limit, **bounds)
    assert page.previous is None
    there = [[p.id for p in page.predictions]]
    while page.next is not None:
        page = await store.list_predictions(owner="alice", limit=limit, position=page.next, **bounds)
        there.append([p.id for p in page.predictions])
    back = [[p.id for p in page.predictions]]
    while page.previous is not None:
        page = await store.list_predictions(owner="alice", limit=limit, position=page.previous, **bounds)
        back.append([p.id for p in page.predictions])
        assert page.next is not None
    return there, back


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 12])
async def test_pages_show_everything_once_there_and_back_though_times_are_equal(store: Store, count: int) -> None:
    predictions = [toy.prediction(created_at=toy.START + timedelta(microseconds=n // 3)) for n in range(count)]
    for prediction in predictions:
        await store.create(prediction)
    await store.create(toy.prediction(owner="bob"))
    newest_first = [p.id for p in sorted(predictions, key=lambda p: (p.created_at, p.id), reverse=True)]
    there, back = await _pages(store, limit=3)
    assert [id for page in there for id in page] == newest_first
    assert all(len(page) == 3 for page in there[:-1])
    assert sorted(id for page in back for id in page) == sorted(newest_first)
    assert [id for page in reversed(back) for id in page] == newest_first


async def test_pages_stay_in_place_while_new_predictions_arrive(store: Store) -> None:
    old = [toy.prediction(created_at=toy.START - timedelta(seconds=n)) for n in range(6)]
    for prediction in old:
        await store.create(prediction)
    first = await store.list_predictions(owner="alice", limit=3)
    new = toy.prediction(created_at=toy.START + timedelta(seconds=1))
    await store.create(new)
    second = await store.list_predictions(owner="alice", limit=3, position=first.next)
    assert [p.id for p in second.predictions] == [p.id for p in old[3:]]
    assert second.next is None
    back = await store.list_predictions(owner="alice", limit=3, position=second.previous)
    assert [p.id for p in back.predictions] == [p.id for p in old[:3]]
    newest = await store.list_predictions(owner="alice", limit=3, position=back.previous)
    assert [p.id for p in newest.predictions] == [new.id]


async def test_lists_hold_their_bounds_on_every_page(store: Store) -> None:
    predictions = [toy.prediction(created_at=toy.START + timedelta(seconds=n)) for n in range(10)]
    for prediction in predictions:
        await store.create(prediction)
    after, before = toy.START + timedelta(seconds=2), toy.START + timedelta(seconds=8)
    there, back = await _pages(store, limit=4, created_after=after, created_before=before)
    # The first bound is in, the second is out.
    assert [id for page in there for id in page] == [p.id for p in reversed(predictions[2:8])]
    assert len(back) == 2
    assert [id for page in reversed(back) for id in page] == [p.id for p in reversed(predictions[2:8])]


async def test_a_position_of_another_owner_shows_nothing_of_his(store: Store) -> None:
    for n in range(4):
        await store.create(toy.prediction(created_at=toy.START + timedelta(seconds=n)))
    mine = toy.prediction(owner="bob")
    await store.create(mine)
    page = await store.list_predictions(owner="alice", limit=2)
    foreign = await store.list_predictions(owner="bob", limit=2, position=page.next)
    assert {p.owner for p in foreign.predictions} <= {"bob"}


@pytest.mark.parametrize(
    "text", ["", "?", "é", "x" * 5000, "nonsense", "[1,2]", '[1e99,"x"]', "[]", '[100000000000000000000,"x"]', "[1]"]
)
async def test_a_position_that_is_none_of_ours_is_not_found(store: Store, text: str) -> None:
    for position in (text, base64.urlsafe_b64encode(text.encode()).decode()):
        with pytest.raises(NotFound):
            await store.list_predictions(owner="alice", position=position)
        with pytest.raises(NotFound):
            await store.list_files(owner="alice", position=position)


async def test_lists_show_the_state_of_now(store: Store) -> None:
    prediction = toy.prediction()
    await store.create(prediction)
    await store.apply(prediction.id, toy.said("x"))
    [listed] = (await store.list_predictions(owner="alice")).predictions
    assert listed == replace(prediction, output="x", status=Status.PROCESSING, revision=1, events=1)
