"""The SQLite store's writer: many writes in one commit, and what happens when the disk says no."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.contract.errors import StoreUnavailable
from gateway.store._prediction import Cache, Row
from tests.contract.store import toy
from tests.unit.store.conftest import Faults, OpenSqlite


async def test_writes_that_wait_together_are_committed_together(open_sqlite: OpenSqlite, faults: Faults) -> None:
    store = await open_sqlite()
    gate = threading.Event()
    faults.before = lambda sql: None if sql != "COMMIT" else _wait(gate)
    first = asyncio.ensure_future(store.create(toy.prediction()))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(store.create(toy.prediction())) for _ in range(129)]
    await asyncio.sleep(0)
    before = store.commits
    gate.set()
    await asyncio.gather(first, *rest)
    # 64 is the most that go together. The first may or may not have set out alone.
    assert store.commits - before in (3, 4)


def _wait(gate: threading.Event) -> None:
    assert gate.wait(10)


async def test_a_loop_is_woken_once_for_each_commit(
    open_sqlite: OpenSqlite, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    call = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args, **kw: (wakes.append(args), call(*args, **kw))[1])
    before = store.commits
    await asyncio.gather(*(store.create(toy.prediction()) for _ in range(100)))
    assert len(wakes) == store.commits - before < 10


async def test_nothing_is_seen_before_it_is_committed(open_sqlite: OpenSqlite, faults: Faults) -> None:
    store = await open_sqlite()
    known = toy.prediction()
    await store.create(known)
    reached, gate = threading.Event(), threading.Event()

    def before(sql: str) -> None:
        if sql == "COMMIT":
            reached.set()
            _wait(gate)

    faults.before = before
    new = toy.prediction()
    writing = asyncio.gather(store.apply(known.id, toy.said("x")), store.create(new))
    await asyncio.to_thread(reached.wait, 10)
    assert await store.get(known.id) == known
    assert await store.get(new.id) is None
    assert await store.events(known.id) == []
    assert (await store.list_predictions(owner="alice")).predictions == (known,)
    assert not writing.done()
    gate.set()
    await writing
    assert await store.get(new.id) == new
    assert (await store.get(known.id)).output == "x"


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "UPDATE prediction", "COMMIT"])
async def test_when_a_transaction_fails_nobody_in_it_is_told_that_it_was_done(
    open_sqlite: OpenSqlite, faults: Faults, statement: str
) -> None:
    store = await open_sqlite()
    known = toy.prediction(webhook="https://hooks.example/")
    await store.create(known)
    fail = True

    def before(sql: str) -> None:
        nonlocal fail
        if fail and sql.startswith(statement):
            fail = False
            raise sqlite3.OperationalError("disk I/O error")

    faults.before = before
    new = [toy.prediction() for _ in range(10)]
    writers = len(faults.connections)
    results = await asyncio.gather(
        *(store.create(prediction) for prediction in new),
        store.apply(known.id, toy.said("x")),
        store.apply("0" * 26, toy.said("x")),
        return_exceptions=True,
    )
    # They may have gone in two transactions, of which the first or the second failed, but no answer may be wrong.
    failed = [result for result in results if isinstance(result, StoreUnavailable)]
    assert failed
    assert all("disk I/O error" in str(result) for result in failed)
    assert len(faults.connections) == writers + 1  # the old connection is not trusted any more
    with pytest.raises(sqlite3.ProgrammingError):
        store._database.writer.execute("SELECT 1")
    for prediction, result in zip(new, results, strict=False):
        kept = await store.get(prediction.id)
        assert kept == (None if isinstance(result, StoreUnavailable) else prediction)
    if isinstance(results[10], StoreUnavailable):
        assert await store.get(known.id) == known
        assert await store.events(known.id) == []
        assert await store.deliveries(known.id) == []
        # What the failed transaction had made of it is forgotten, too.
        assert (await store.apply(known.id, toy.said("x"))).prediction.revision == 1
    await store.check()


async def test_a_commit_that_failed_is_not_tried_again(open_sqlite: OpenSqlite, faults: Faults) -> None:
    store = await open_sqlite()
    statements: list[str] = []

    def before(sql: str) -> None:
        statements.append(sql.split()[0])
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")

    faults.before = before
    with pytest.raises(StoreUnavailable):
        await store.create(toy.prediction())
    assert statements.count("COMMIT") == 1
    assert statements.count("BEGIN") == 1


async def test_a_full_disk_refuses_writes_until_there_is_room(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    kept = toy.prediction()
    await store.create(kept)
    lost = toy.prediction(input={"text": "x" * 5_000_000})
    size = path.with_name("turnout.db-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1_000_000, hard))  # the kernel cuts the log's growth short
    try:
        with pytest.raises(StoreUnavailable):
            await store.create(lost)
        assert await store.get(lost.id) is None
        assert await store.get(kept.id) == kept
        assert (await store.list_predictions(owner="alice")).predictions == (kept,)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.create(lost)
    await store.aclose()
    store = await open_sqlite()
    assert await store.get(lost.id) == lost
    assert await store.get(kept.id) == kept


async def test_while_another_program_holds_the_file_writes_are_refused_and_reads_go_on(
    open_sqlite: OpenSqlite, faults: Faults, path: Path
) -> None:
    store = await open_sqlite()
    kept = toy.prediction()
    await store.create(kept)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for verb in (store.check(), store.create(toy.prediction()), store.setting("a", "b")):
        with pytest.raises(StoreUnavailable, match="locked"):
            await verb
    assert await store.get(kept.id) == kept
    assert (await store.list_predictions(owner="alice")).predictions == (kept,)
    other.execute("ROLLBACK")
    other.close()
    await store.check()
    assert await store.setting("a", "c") == "c"


async def test_a_damaged_page_is_unavailable_not_a_crash(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    for _ in range(200):
        await store.create(toy.prediction(input={"text": "x" * 2_000}))
    await store.aclose()
    with path.open("r+b") as file:
        file.seek(80 * 4096)
        file.write(b"\xff" * 4096 * 40)
    store = await open_sqlite()
    with pytest.raises(StoreUnavailable):
        await store.list_predictions(owner="alice")


async def test_two_loops_may_share_a_store(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()

    async def create_many() -> list[str]:
        results = await asyncio.gather(*(store.create(toy.prediction()) for _ in range(50)))
        return [result.prediction.id for result in results]

    theirs, ours = await asyncio.gather(asyncio.to_thread(asyncio.run, create_many()), create_many())
    assert len({*theirs, *ours}) == 100
    assert len((await store.list_predictions(owner="alice", limit=200)).predictions) == 100


def _row(id: str, size: int, *, is_open: bool = True) -> Row:
    return Row(1, toy.prediction(id=id), is_open, 0, None, 0, size, 0)


def test_the_cache_is_bounded_and_holds_only_what_is_open_and_committed() -> None:
    cache = Cache(limit_bytes=100)
    for n in range(20):
        cache.put(_row(f"{n}", 10))
    assert cache.committed("19") is None
    assert cache.find("19") is not None
    cache.end(True)
    assert [n for n in range(20) if cache.committed(f"{n}")] == list(range(10, 20))
    cache.put(_row("15", 1, is_open=False))
    cache.put(_row("16", 30))
    cache.end(True)
    assert cache.committed("15") is None
    assert [n for n in range(20) if cache.committed(f"{n}")] == [11, 12, 13, 14, 16, 17, 18, 19]
    cache.put(_row("20", 1000))
    cache.end(True)
    assert cache._bytes == 0  # one that is larger than all of it does not stay
    cache.put(_row("21", 10))
    cache.end(False)
    assert cache.find("21") is None


async def test_the_store_works_the_same_with_nothing_in_its_cache(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    store._predictions.cache._limit_bytes = 0
    await store.beat("w", lease_seconds=30)
    prediction = toy.prediction()
    await store.create(prediction, worker="w")
    assert (await store.apply(prediction.id, toy.begun("t"), lease=toy.lease("w"))).prediction.revision == 1
    assert (await store.apply(prediction.id, toy.NOTHING)).changed is False
    assert (await store.apply(prediction.id, toy.succeeded())).prediction.revision == 2
    assert store._predictions.cache.committed(prediction.id) is None


async def test_no_verb_walks_through_a_whole_table(open_sqlite: OpenSqlite, faults: Faults) -> None:
    seen: set[str] = set()
    faults.before = seen.add
    store = await open_sqlite()
    seen.clear()
    prediction = toy.prediction(webhook="https://hooks.example/")
    await store.beat("w", lease_seconds=30)
    await store.create(prediction, idempotency_key="k")
    store._predictions.cache.end(False)
    await store.claim_due("w", limit=10)
    await store.apply(prediction.id, toy.begun("t"))
    await store.apply(prediction.id, toy.said("a"))
    await store.apply(prediction.id, toy.said("b"))
    await store.apply(prediction.id, toy.succeeded())
    await store.get(prediction.id)
    await store.list_predictions(owner="alice")
    await store.list_files(owner="alice")
    await store.find_attempt("")
    await store.find_stream("")
    await store.events(prediction.id)
    await store.ledger(prediction.id)
    await store.deliveries(prediction.id)
    [claimed] = await store.claim_deliveries("w", limit=1, lease_seconds=1)
    await store.finish_delivery(claimed, ended="delivered")
    await store.next_delivery_at()
    await store.release("w")
    queries = [sql for sql in seen if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "WITH")]
    assert len(queries) >= 20
    for sql in queries:
        plan = store._database.reader.execute("EXPLAIN QUERY PLAN " + sql, (None,) * sql.count("?"))
        steps = [row[3] for row in plan]
        # Steps in an index are fine, and so is sorting the few that are due at the same microsecond. `holder` is the
        # query's own, one row for each worker.
        scanned = [step.removeprefix("SCAN ") for step in steps if step.startswith("SCAN ")]
        assert not [step for step in scanned if step != "holder" and "INDEX" not in step], sql
        assert "USE TEMP B-TREE FOR ORDER BY" not in steps, sql
