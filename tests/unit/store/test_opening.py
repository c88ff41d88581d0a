# ruff: noqa: ASYNC220, ASYNC240 - nothing else runs on the loop of these tests
"""Opening the SQLite store: one process, a sound file, or one line that says what to do, and nothing left behind."""

from __future__ import annotations

import importlib.resources
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import ConfigurationError
from gateway.contract.prediction import Status
from gateway.store import _database
from gateway.store._encoding import encode_request, encode_state
from gateway.store.protocol import AuditRow, Search
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


async def test_a_newer_schema_is_refused(open_sqlite: OpenSqlite, path: Path) -> None:
    await (await open_sqlite()).aclose()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    line = await _refused(open_sqlite, path)
    assert "newer Turnout" in line
    assert "99" in line


async def test_a_store_of_the_first_version_opens_with_all_that_was_in_it(open_sqlite: OpenSqlite, path: Path) -> None:
    begun = toy.begun("t").attempt
    failed = replace(begun, status=AttemptStatus.FAILED, failure=toy.BROKEN)
    won = replace(begun, number=2, provider="south", token_hash="u", status=AttemptStatus.SUCCEEDED)
    kept = toy.prediction(status=Status.SUCCEEDED, attempts=(failed, won), winner=2, output="out")
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    schema = importlib.resources.files("gateway.store").joinpath("schema.sql").read_text("utf-8")
    db.executescript(f"BEGIN; {schema} PRAGMA application_id = 0x54524E54; PRAGMA user_version = 1; COMMIT")
    db.execute(
        "INSERT INTO prediction (number, id, stream_token, owner, created_at, status, is_open, due_at, state)"
        " VALUES (7, ?, ?, 'alice', 5, 'succeeded', 0, 0, ?)",
        (kept.id, kept.stream_token, encode_state(kept)),
    )
    db.execute("INSERT INTO request (prediction, body) VALUES (7, ?)", (encode_request(kept.request),))
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
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    schema = importlib.resources.files("gateway.store").joinpath("schema.sql").read_text("utf-8")
    db.executescript(f"BEGIN; {schema} PRAGMA application_id = 0x54524E54; PRAGMA user_version = 1; COMMIT")
    db.close()

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


async def test_the_connection_that_writes_is_durable_and_patient(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    db = store._database.writer
    settings = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "journal_size_limit")
    }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 5_000,
        "journal_size_limit": 64 * 1024 * 1024,
    }


async def test_whoever_held_something_before_the_restart_is_dead(open_sqlite: OpenSqlite) -> None:
    store = await open_sqlite()
    await store.beat("old", lease_seconds=86_400)
    held, ended = toy.prediction(), toy.prediction(webhook="https://hooks.example/")
    for prediction in (held, ended):
        await store.create(prediction, worker="old")
    await store.apply(ended.id, toy.succeeded(), worker="old")
    [before] = await store.claim_deliveries("old", limit=10, lease_seconds=86_400)
    await store.aclose()
    store = await open_sqlite()
    await store.beat("new", lease_seconds=30)
    assert await store.claim_due("new", limit=10) == [held]
    assert await store.finish_delivery(before.id, fence=before.fence, ended="delivered") is False
    [after] = await store.claim_deliveries("new", limit=10, lease_seconds=30)
    assert (after.id, after.body, after.tries) == (before.id, before.body, 0)
    assert after.fence > before.fence
