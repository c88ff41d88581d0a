# ruff: noqa: ASYNC220, ASYNC240 - nothing else runs on the loop of these tests
"""Opening the SQLite store: one process, a sound file, or one line that says what to do, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import ConfigurationError
from gateway.contract.prediction import Prediction, Request, Status
from gateway.store import _database
from gateway.store._encoding import FILE
from gateway.store.protocol import AuditRow, FileRow, Search
from tests.contract.store import toy
from tests.unit.store.conftest import OpenSqlite

HOLDER = """
import sys
from pathlib import Path
from gateway.store._database import Database
database = Database(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def _left_behind() -> tuple[int, list[str]]:
    return len(os.listdir("/proc/self/fd")), [t.name for t in threading.enumerate() if "store" in t.name]


async def _refused(open_sqlite: OpenSqlite, path: str | Path) -> str:
    """The one line; and nothing may be left open by the try."""
    before = _left_behind()
    with pytest.raises(ConfigurationError) as caught:
        await open_sqlite(path)
    assert _left_behind() == before
    line = str(caught.value)
    assert "\n" not in line
    assert "[store] url" in line
    return line


async def test_a_second_opener_is_refused_and_hears_why(open_sqlite: OpenSqlite, path: Path) -> None:
    store = await open_sqlite()
    line = await _refused(open_sqlite, path)
    assert str(path) in line
    assert "another process has this store open" in line
    assert "use Redis" in line
    await store.check()
    await store.aclose()
    await (await open_sqlite()).check()


async def test_another_process_keeps_us_out_until_it_is_killed(open_sqlite: OpenSqlite, path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert "another process" in await _refused(open_sqlite, path)
        holder.kill()
    await (await open_sqlite()).check()


async def test_a_folder_in_the_place_of_the_file_is_refused(open_sqlite: OpenSqlite, path: Path) -> None:
    path.mkdir(parents=True)
    assert str(path) in await _refused(open_sqlite, path)


async def test_a_folder_that_cannot_be_made_is_refused(open_sqlite: OpenSqlite, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "turnout.db"
    assert str(path) in await _refused(open_sqlite, path)
    assert "/proc/nowhere/turnout.db" in await _refused(open_sqlite, "/proc/nowhere/turnout.db")


async def test_a_path_no_file_can_have_is_refused(open_sqlite: OpenSqlite, tmp_path: Path) -> None:
    await _refused(open_sqlite, f"{tmp_path}/nu\0l.db")
    await _refused(open_sqlite, f"{tmp_path}/{'long' * 100}.db")


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(open_sqlite: OpenSqlite, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"these are my notes" * 500)
    assert "not a database" in await _refused(open_sqlite, path)
    assert path.read_bytes() == b"these are my notes" * 500


async def test_another_programs_database_is_refused_and_left_as_it_is(open_sqlite: OpenSqlite, path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE prediction (id)")
    db.close()
    before = path.read_bytes()
    assert "another program" in await _refused(open_sqlite, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("asked", ["98", "soon", None])
async def test_a_newer_schema_that_asks_for_a_newer_gateway_is_refused(
    open_sqlite: OpenSqlite, path: Path, asked: str | None
) -> None:
    await (await open_sqlite()).aclose()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.execute("DELETE FROM setting WHERE name = 'store.min_version'")
    if asked is not None:
        db.execute("INSERT INTO setting VALUES ('store.min_version', ?)", (asked,))
    db.commit()
    db.close()
    before = path.read_bytes()
    line = await _refused(open_sqlite, path)
    assert "newer Turnout" in line
    assert "schema 99" in line
    assert ("98" if asked == "98" else "99") in line.split("for ")[1]
    assert path.read_bytes() == before


async def test_a_newer_schema_that_only_adds_is_written_by_us_and_left_at_its_version(
    open_sqlite: OpenSqlite, path: Path
) -> None:
    await (await open_sqlite()).aclose()
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE prediction ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'")
    db.execute("CREATE TABLE later (id INTEGER PRIMARY KEY)")
    db.execute("PRAGMA user_version = 4")
    db.commit()
    db.close()
    prediction = toy.prediction(webhook="https://hooks.example/")
    for _ in range(2):
        store = await open_sqlite()
        await store.create(prediction)
        assert (await store.get(prediction.id)) == prediction
        await store.aclose()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (4,)
    assert db.execute("SELECT mood FROM prediction").fetchall() == [("fine",)]
    assert db.execute("SELECT value FROM setting WHERE name = 'store.min_version'").fetchall() == [("3",)]
    db.close()


async def test_a_store_of_the_second_version_gets_its_ages_filled_in(open_sqlite: OpenSqlite, path: Path) -> None:
    _make_file(path, 2)
    long_ago = toy.START - timedelta(days=30)
    ended = toy.prediction(status=Status.SUCCEEDED, completed_at=long_ago, output="x")
    removed = toy.prediction(status=Status.SUCCEEDED, completed_at=long_ago, data_removed=True)
    open_ = toy.prediction()
    late = toy.prediction(status=Status.ABORTED, completed_at=long_ago)  # ended, and still to be seen to
    file = FileRow(
        id="f",
        owner="alice",
        artifact="a",
        name="n",
        content_type="image/png",
        size_bytes=1,
        sha256="0",
        md5="0",
        metadata={},
        created_at=long_ago,
        expires_at=toy.START,
    )
    db = sqlite3.connect(path, isolation_level=None)
    for number, (one, is_open) in enumerate(((ended, 0), (removed, 0), (open_, 1), (late, 1)), 1):
        _insert_old(db, number, one, is_open=is_open)
    db.execute("INSERT INTO ledger VALUES (1, 1, 'o', 'p', 'maybe', NULL, 'unknown', 5)")
    db.execute(
        "INSERT INTO delivery (number, id, prediction, sequence, event, url, host, body, created_at, slot_at, due_at,"
        " is_final, ended, fence) VALUES (1, 'msg_a', 1, 0, 'completed', 'https://h/', 'h', x'7b7d', 1, 1, 1, 1,"
        " 'delivered', 2)"
    )
    db.execute("INSERT INTO file VALUES ('f', 'alice', 5, ?)", (FILE.encode(file),))
    db.close()
    store = await open_sqlite()
    assert await store.aged(before=long_ago) == []
    assert await store.aged(before=long_ago + timedelta(microseconds=1)) == [ended.id]
    assert await store.maybes() == [ended.id]
    [delivery] = await store.deliveries(ended.id)
    assert delivery.history == ()
    assert {one.prediction.id for one in await store.claim_due("w", limit=10)} == {open_.id, late.id}
    assert await store.expire_files() == [file]
    assert await store.get(ended.id) == ended
    applied = await store.apply(open_.id, toy.begun("t"))
    assert applied.changed


async def test_each_sweep_goes_by_its_index(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    seen: list[str] = []
    db = store._list_reader
    db.set_trace_callback(seen.append)
    await store.aged(before=toy.START)
    await store.maybes()
    db.set_trace_callback(None)
    store._database.writer.set_trace_callback(seen.append)
    await store.expire_files()
    plans = [
        " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
        for statement in seen
        if statement.startswith("SELECT")
    ]
    assert len(plans) == 3
    for plan, index in zip(plans, ("prediction_aged", "ledger_maybe", "file_expiring"), strict=True):
        assert index in plan
    assert "TEMP B-TREE" not in plans[0]


def _make_file(path: Path, version: int) -> None:
    """As that version made it."""
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    for step in range(1, version + 1):
        name = "schema.sql" if step == 1 else f"schema_{step}.sql"
        schema = importlib.resources.files("gateway.store").joinpath(name).read_text("utf-8")
        db.executescript(f"BEGIN; {schema} PRAGMA application_id = 0x54524E54; PRAGMA user_version = {step}; COMMIT")
    db.close()


def _insert_old(db: sqlite3.Connection, number: int, prediction: Prediction, *, is_open: int) -> None:
    """As versions 1 and 2 did, whose states had no number."""
    no_request = Request(model="", version="", is_pinned=False, input={}, webhook_events=())
    state = msgspec.msgpack.encode(replace(prediction, request=no_request))
    db.execute(
        "INSERT INTO prediction (number, id, stream_token, owner, created_at, status, is_open, due_at, state)"
        " VALUES (?, ?, ?, 'alice', 5, ?, ?, 0, ?)",
        (number, prediction.id, prediction.stream_token, prediction.status, is_open, state),
    )
    body = msgspec.msgpack.encode(prediction.request)
    db.execute("INSERT INTO request (prediction, body) VALUES (?, ?)", (number, body))


async def test_a_store_of_the_first_version_opens_with_all_that_was_in_it(open_sqlite: OpenSqlite, path: Path) -> None:
    begun = toy.begun("t").attempt
    failed = replace(begun, status=AttemptStatus.FAILED, failure=toy.BROKEN)
    won = replace(begun, number=2, provider="south", token_hash="u", status=AttemptStatus.SUCCEEDED)
    kept = toy.prediction(status=Status.SUCCEEDED, attempts=(failed, won), winner=2, output="out")
    _make_file(path, 1)
    db = sqlite3.connect(path, isolation_level=None)
    _insert_old(db, 7, kept, is_open=0)
    db.close()
    for _ in range(2):  # as well as once it has been brought up
        store = await open_sqlite()
        assert await store.get(kept.id) == kept
        found = await store.search_predictions(Search(model="acme/upscale", provider="north", is_rescued=True))
        assert [one.id for one in found.predictions] == [kept.id]
        await store.put_audit(AuditRow(at=toy.START, who="a", action="b", target="c", reason="d", outcome="e"))
        await store.aclose()


async def test_a_step_that_fails_leaves_the_file_at_its_version(
    open_sqlite: OpenSqlite, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_file(path, 1)

    def fail(db: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as planted:
        planted.setattr(_database, "_fill_searched", fail)
        assert "disk full" in await _refused(open_sqlite, path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'audit'").fetchone() == (0,)
    db.close()
    await (await open_sqlite()).check()


async def test_a_new_store_and_the_folders_made_for_it_outlive_a_power_cut(
    open_sqlite: OpenSqlite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(_database.os, "fsync", fsync)
    path = tmp_path / "one" / "two" / "turnout.db"
    await (await open_sqlite(path)).aclose()
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "one"), str(path.parent)]
    synced.clear()
    await open_sqlite(path)
    assert synced == []


async def test_an_empty_file_becomes_a_store(open_sqlite: OpenSqlite, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    await (await open_sqlite()).check()


async def test_the_files_are_their_owners_alone(open_sqlite: OpenSqlite, path: Path) -> None:
    before = os.umask(0)
    try:
        store = await open_sqlite()
        await store.check()
    finally:
        os.umask(before)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["turnout.db", "turnout.db-shm", "turnout.db-wal", "turnout.db.lock"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_closed_store_is_one_sound_file_without_a_log(open_sqlite: OpenSqlite, path: Path) -> None:
    before = _left_behind()
    store = await open_sqlite()
    prediction = toy.prediction(webhook="https://hooks.example/")
    await store.create(prediction, idempotency_key="k")
    await store.apply(prediction.id, toy.begun("t"))
    await store.apply(prediction.id, toy.succeeded())
    await store.list_predictions(owner="alice")
    await store.aclose()
    assert _left_behind() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["turnout.db", "turnout.db.lock"]
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert db.execute("SELECT count(*) FROM event").fetchone() == (2,)
    db.close()


async def test_a_stop_folds_the_log_into_the_file_though_somebody_else_looks_on(
    open_sqlite: OpenSqlite, path: Path, tmp_path: Path
) -> None:
    """SQLite does that by itself only when the last connection goes, and a backup or a shell may have one."""
    store = await open_sqlite()
    log, alone = path.with_name(f"{path.name}-wal"), tmp_path / "alone.db"
    with contextlib.closing(sqlite3.connect(path)) as onlooker:
        ids = [(await store.create(toy.prediction())).prediction.id for _ in range(20)]
        assert onlooker.execute("SELECT count(*) FROM prediction").fetchone() == (20,)
        assert log.stat().st_size > 0
        await store.aclose()
        assert log.stat().st_size == 0, "there is something left to be replayed"
        shutil.copyfile(path, alone)
    with contextlib.closing(sqlite3.connect(alone)) as db:
        assert {id for (id,) in db.execute("SELECT id FROM prediction")} == set(ids)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_the_connection_that_writes_is_durable_and_patient(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    db = store._database.writer
    settings = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "secure_delete",
            "busy_timeout",
            "journal_size_limit",
        )
    }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "secure_delete": 1,
        "busy_timeout": 5_000,
        "journal_size_limit": 64 * 1024 * 1024,
    }


async def test_whoever_held_something_before_the_restart_is_dead(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    await store.beat("old", lease_seconds=86_400)
    held, ended = toy.prediction(), toy.prediction(webhook="https://hooks.example/")
    for prediction in (held, ended):
        await store.create(prediction, worker="old")
    await store.apply(ended.id, toy.succeeded(), lease=toy.lease("old"))
    [before] = await store.claim_deliveries("old", limit=10, lease_seconds=86_400)
    await store.aclose()
    store = await open_sqlite()
    await store.beat("new", lease_seconds=30)
    assert [one.prediction for one in await store.claim_due("new", limit=10)] == [held]
    assert await store.finish_delivery(before, ended="delivered") is False
    [after] = await store.claim_deliveries("new", limit=10, lease_seconds=30)
    assert (after.id, after.body, after.tries) == (before.id, before.body, 0)
    assert after.fence > before.fence
