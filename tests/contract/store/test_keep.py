"""Files, settings and the check in any store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from gateway.store.protocol import FileRow, Store
from tests.contract.store import toy
from tests.contract.store.conftest import OpenStore


def _file(**changes: Any) -> FileRow:
    defaults: dict[str, Any] = {
        "id": toy.ids.prediction(),
        "owner": "alice",
        "artifact": "ab/cd",
        "name": "cat é.png",
        "content_type": "image/png",
        "size_bytes": 7,
        "sha256": "0" * 64,
        "md5": "0" * 32,
        "metadata": {"a": [1, None, {"b": 10**30}]},
        "created_at": toy.START,
        "expires_at": toy.START + timedelta(days=1),
    }
    return FileRow(**(defaults | changes))


async def test_a_file_is_read_back_equal_by_its_owner_alone(open_store: OpenStore) -> None:
    store = await open_store()
    row = _file()
    await store.put_file(row)
    await store.put_file(row)
    await store.aclose()
    store = await open_store()
    assert await store.get_file(row.id, owner="alice") == row
    assert await store.get_file(row.id, owner=None) == row
    assert await store.get_file(row.id, owner="bob") is None
    assert await store.delete_file(row.id, owner="bob") is None
    assert (await store.list_files(owner="bob")) == ([], None, None)
    assert await store.get_file(row.id, owner="alice") == row


async def test_a_file_of_another_owner_is_not_overwritten(store: Store) -> None:
    row = _file()
    await store.put_file(row)
    await store.put_file(_file(id=row.id, owner="bob"))
    assert await store.get_file(row.id, owner=None) == row


async def test_a_file_is_deleted_once(store: Store) -> None:
    row = _file()
    await store.put_file(row)
    results = await asyncio.gather(*(store.delete_file(row.id, owner="alice") for _ in range(5)))
    assert [result for result in results if result is not None] == [row]
    assert await store.get_file(row.id, owner="alice") is None


@pytest.mark.parametrize("count", [2, 5, 6])
async def test_files_are_listed_newest_first_there_and_back(store: Store, count: int) -> None:
    rows = [_file(created_at=toy.START + timedelta(seconds=n // 2)) for n in range(count)]
    for row in rows:
        await store.put_file(row)
    ordered = sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
    there, next_, previous = await store.list_files(owner="alice", limit=3)
    assert previous is None
    pages = [there]
    while next_ is not None:
        page, next_, previous = await store.list_files(owner="alice", limit=3, position=next_)
        pages.append(page)
    assert [row for page in pages for row in page] == ordered
    back = [pages[-1]]
    while previous is not None:
        page, next_, previous = await store.list_files(owner="alice", limit=3, position=previous)
        assert next_ is not None
        back.insert(0, page)
    assert [row for page in back for row in page] == ordered


async def test_the_first_setting_wins_for_ever(open_store: OpenStore) -> None:
    store = await open_store()
    values = await asyncio.gather(*(store.setting("secret", f"value {n}") for n in range(20)))
    assert set(values) == {values[0]}
    assert await store.setting("other", "") == ""
    await store.aclose()
    store = await open_store()
    assert await store.setting("secret", "another") == values[0]
    assert await store.setting("other", "no longer") == ""


async def test_a_sound_store_passes_its_check_again_and_again(store: Store) -> None:
    for _ in range(3):
        await store.check()


async def test_a_setting_that_changes_gives_what_was_before(open_store: OpenStore) -> None:
    store = await open_store()
    assert await store.swap_setting("offers", "one") is None
    assert await store.swap_setting("offers", "two") == "one"
    await store.aclose()
    again = await open_store()
    assert await again.swap_setting("offers", "two") == "two"
    assert await again.setting("offers", "three") == "two"
