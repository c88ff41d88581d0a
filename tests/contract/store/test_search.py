"""What ops ask of any store: everybody's predictions by what they are, a page at a time, without their inputs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import NotFound
from gateway.contract.prediction import Prediction, Status
from gateway.store.protocol import Search, Store
from tests.contract.store import toy


def _attempt(number: int, provider: str, *, failed: bool = False) -> Attempt:
    return Attempt(
        number=number,
        offer=f"acme/upscale@{provider}",
        provider=provider,
        remote="upscale",
        version="a" * 64,
        token_hash=toy.ids.token(),
        begun_at=toy.START,
        deadline_at=toy.START,
        status=AttemptStatus.FAILED if failed else AttemptStatus.SUCCEEDED,
        failure=toy.BROKEN if failed else None,
    )


def made_at(seconds: float, **changes: Any) -> Prediction:
    model = changes.pop("model", None)
    prediction = toy.prediction(created_at=toy.START + timedelta(seconds=seconds), **changes)
    if model is not None:
        prediction = replace(prediction, request=replace(prediction.request, model=model))
    return prediction


async def _found(store: Store, *, limit: int = 100, **asked: Any) -> list[str]:
    page = await store.search_predictions(Search(**asked), limit=limit)
    return [prediction.id for prediction in page.predictions]


async def walked(store: Store, search: Search, limit: int) -> list[list[str]]:
    pages: list[list[str]] = []
    position = None
    while True:
        page = await store.search_predictions(search, position=position, limit=limit)
        pages.append([prediction.id for prediction in page.predictions])
        position = page.next
        if position is None:
            return pages


async def test_everybodys_predictions_are_found_newest_first_and_each_once(store: Store) -> None:
    made = [made_at(n // 3, owner=f"owner-{n % 4}") for n in range(11)]
    for prediction in made:
        await store.create(prediction)
    newest_first = [p.id for p in sorted(made, key=lambda p: (p.created_at, p.id), reverse=True)]
    pages = await walked(store, Search(), limit=3)
    assert [id for page in pages for id in page] == newest_first
    assert [len(page) for page in pages] == [3, 3, 3, 2]


async def test_each_condition_narrows_and_several_narrow_together(store: Store) -> None:
    rescued = made_at(
        1,
        status=Status.SUCCEEDED,
        attempts=(_attempt(1, "north", failed=True), _attempt(2, "south")),
        winner=2,
    )
    plain = made_at(2, status=Status.SUCCEEDED, attempts=(_attempt(1, "south"),), winner=1, model="acme/other")
    failed = made_at(3, status=Status.FAILED, attempts=(_attempt(1, "north", failed=True),), owner="bob")
    fresh = made_at(4)
    for prediction in (rescued, plain, failed, fresh):
        await store.create(prediction)
    assert await _found(store, statuses=frozenset({"succeeded"})) == [plain.id, rescued.id]
    assert await _found(store, statuses=frozenset({"failed", "starting"})) == [fresh.id, failed.id]
    assert await _found(store, model="acme/other") == [plain.id]
    assert await _found(store, provider="north") == [failed.id, rescued.id]
    assert await _found(store, provider="nort") == []
    assert await _found(store, owner="bob") == [failed.id]
    assert await _found(store, is_rescued=True) == [rescued.id]
    assert await _found(store, created_after=plain.created_at) == [fresh.id, failed.id, plain.id]
    assert await _found(store, provider="south", model="acme/upscale", statuses=frozenset({"succeeded"})) == [
        rescued.id
    ]
    assert await _found(store, owner="bob", is_rescued=True) == []


async def test_a_change_is_found_by_what_it_made_of_the_prediction(store: Store) -> None:
    prediction = made_at(1)
    await store.create(prediction)
    assert await _found(store, provider="north") == []
    await store.apply(prediction.id, toy.begun("t"))
    assert await _found(store, provider="north", statuses=frozenset({"starting"})) == [prediction.id]
    await store.apply(prediction.id, toy.succeeded())
    assert await _found(store, statuses=frozenset({"starting"})) == []
    assert await _found(store, provider="north", statuses=frozenset({"succeeded"})) == [prediction.id]


async def test_the_beginning_of_an_id_finds_it_however_old_it_is(store: Store) -> None:
    old = made_at(0, id="abc" + "0" * 23)
    other = made_at(9, id="abd" + "0" * 23)
    for prediction in (old, other, made_at(5)):
        await store.create(prediction)
    assert await _found(store, prefix="abc") == [old.id]
    assert await _found(store, prefix="ab") == [other.id, old.id]
    assert await _found(store, prefix=old.id) == [old.id]
    assert await _found(store, prefix="abc", statuses=frozenset({"failed"})) == []
    assert (await walked(store, Search(prefix="ab"), limit=1)) == [[other.id], [old.id]]


async def test_the_input_is_left_out_and_the_rest_is_as_it_was_kept(store: Store) -> None:
    prediction = made_at(1, input={"prompt": "x" * 1_000}, webhook="https://hooks.example/x", output=["a", "b"])
    await store.create(prediction)
    [found] = (await store.search_predictions(Search())).predictions
    assert found == replace(prediction, request=replace(prediction.request, input={}))


@pytest.mark.parametrize("position", ["", "?", "WzFd", "x" * 500])
async def test_a_position_that_is_none_of_ours_is_refused(store: Store, position: str) -> None:
    with pytest.raises(NotFound):
        await store.search_predictions(Search(), position=position)
