"""What a process that uses Redis remembers, and in which order it writes."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.contract.errors import StoreOverloaded, StoreUnavailable
from gateway.store._redis_key import Keys, digits, host_name, worker_name
from gateway.store._redis_row import Cache, Row
from gateway.store._redis_turn import Turns
from tests.contract.store import toy


def _row(revision: int = 0, *, size: int = 100, is_open: bool = True, id: str | None = None) -> Row:
    prediction = toy.prediction(**({} if id is None else {"id": id}))
    return Row(replace(prediction, revision=revision), is_open, 0, size, 0)


def test_the_memory_is_bounded_and_forgets_the_least_lately_written() -> None:
    cache = Cache(limit_bytes=1_000)
    rows = [_row() for _ in range(25)]
    for row in rows:
        cache.put(row)
        cache.put(rows[0])
    kept = [row for row in rows if cache.find(row.prediction.id) is row]
    assert kept == [rows[0], *rows[16:]]
    for row in kept:
        cache.drop(row.prediction.id)
    for row in rows[:10]:
        cache.put(row)
    assert all(cache.find(row.prediction.id) is row for row in rows[:10])


def test_an_older_answer_that_comes_late_is_not_remembered_and_what_is_closed_is_forgotten() -> None:
    cache = Cache()
    newer = _row(5)
    cache.put(newer)
    cache.put(_row(4, id=newer.prediction.id))
    assert cache.find(newer.prediction.id) is newer
    cache.put(_row(6, id=newer.prediction.id, is_open=False))
    assert cache.find(newer.prediction.id) is None


async def test_writes_to_one_prediction_are_made_one_after_the_other_whoever_leaves() -> None:
    turns = Turns(10)
    made: list[str] = []
    gate = asyncio.Event()

    def write(name: str) -> asyncio.Task[None]:
        async def act() -> None:
            made.append(f"{name} begins")
            await gate.wait()
            made.append(f"{name} ends")

        return asyncio.ensure_future(turns.run(act, of="one"))

    first, second, third = write("a"), write("b"), write("c")
    other = asyncio.ensure_future(turns.run(gate.wait, of="other"))
    await asyncio.sleep(0.01)
    assert made == ["a begins"]
    second.cancel()
    gate.set()
    await asyncio.gather(first, third, other)
    assert second.cancelled()
    assert made == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


async def test_one_that_fails_holds_nobody_up_and_so_many_are_the_most() -> None:
    turns = Turns(3)
    gate = asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise ValueError("no")

    waiting = [asyncio.ensure_future(turns.run(fail, of="one")) for _ in range(3)]
    await asyncio.sleep(0.01)
    with pytest.raises(StoreOverloaded):
        await turns.run(fail)
    gate.set()
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [ValueError] * 3
    await turns.close()
    with pytest.raises(StoreUnavailable):
        await turns.run(fail)


def test_names_are_sorted_as_what_they_stand_for() -> None:
    times = [-(2**63), 0, 1, 999_999, 1_770_000_000_000_000, 2**63]
    assert [digits(at) for at in times] == sorted(digits(at) for at in times)
    assert {len(digits(at)) for at in times} == {16}
    assert host_name("a\0b\x01.example") == "a?b?.example"
    for name in ("", "a\0b", "a\nb"):
        with pytest.raises(ValueError, match="no name"):
            worker_name(name)


def test_shards_are_named_by_what_a_cluster_keeps_together_and_ids_spread_over_them() -> None:
    keys = Keys("turnout", 64)
    count = [0] * 64
    for _ in range(6_400):
        count[keys.shard(toy.ids.prediction()).index] += 1
    assert min(count) > 50
    shard = keys.shard("x")
    tag = f"turnout:{{s{shard.index}}}:"
    assert all(key.startswith(tag) for key in (*shard.changed("x"), *shard.delivered("x"), shard.owned("o")))
