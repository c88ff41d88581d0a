"""What a search in SQLite may cost: so many predictions looked at, and no request of megabytes read."""

from __future__ import annotations

import pytest

from gateway.contract.prediction import Status
from gateway.store import _search
from gateway.store.protocol import Search
from tests.contract.store.test_search import made_at, walked
from tests.unit.store.conftest import OpenSqlite


async def test_a_request_of_megabytes_is_not_read_for_a_list(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    prediction = made_at(1, input={"image": "x" * (2 * _search.MOST_REQUEST_BYTES)}, output="done")
    await store.create(prediction)
    [found] = (await store.search_predictions(Search())).predictions
    assert (found.request.model, found.request.input, found.output) == ("acme/upscale", {}, "done")


async def test_one_call_looks_at_so_many_and_the_next_goes_on_behind_them(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    monkeypatch.setattr(_search, "MOST_LOOKED_AT", 4)
    made = [made_at(n, status=Status.FAILED if n in (0, 5) else Status.SUCCEEDED) for n in range(10)]
    for prediction in made:
        await store.create(prediction)
    search = Search(statuses=frozenset({"failed"}))
    assert await walked(store, search, limit=5) == [[], [made[5].id], [made[0].id]]
    assert [id for page in await walked(store, search, limit=1) for id in page] == [made[5].id, made[0].id]
