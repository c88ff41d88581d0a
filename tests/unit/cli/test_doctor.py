from __future__ import annotations

import socket
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.commands import doctor
from gateway.commands.doctor import Finding, Level
from gateway.config.load import Loaded, parse
from tests.redis.server import RedisServer


def loaded(text: str, folder: Path, **environ: str) -> Loaded:
    return parse(text, place="turnout.toml", folder=folder, environ=environ)


def test_both_wheels_of_onnxruntime_are_a_failure_with_the_way_out() -> None:
    both = doctor.onnxruntime_wheels("1.31.0", "1.31.1")
    assert both.level is Level.FAIL
    assert (
        "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1" in both.remedy
    )
    assert doctor.onnxruntime_wheels(None, None).level is Level.FAIL
    assert doctor.onnxruntime_wheels(None, "1.31.1") == Finding(Level.OK, "onnxruntime", "onnxruntime-gpu 1.31.1")


@pytest.mark.parametrize(
    ("version", "level"), [((3, 40, 1), Level.WARN), ((3, 51, 2), Level.WARN), ((3, 51, 3), Level.OK)]
)
def test_a_sqlite_with_the_wal_reset_bug_is_told(version: tuple[int, ...], level: Level) -> None:
    assert doctor.sqlite_version(version).level is level


def test_a_clock_that_is_wrong_or_left_alone_is_told() -> None:
    assert doctor.clock(datetime(1970, 1, 1, tzinfo=UTC), synchronised=True).level is Level.FAIL
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert doctor.clock(now, synchronised=False).level is Level.WARN
    assert doctor.clock(now, synchronised=None).level is Level.OK


@pytest.mark.parametrize(
    ("host", "configured", "level"),
    [
        ("127.0.0.1", False, Level.OK),
        ("::1", False, Level.OK),
        ("localhost", False, Level.OK),
        ("0.0.0.0", False, Level.FAIL),
        ("turnout.internal", False, Level.FAIL),
        ("0.0.0.0", True, Level.OK),
    ],
)
def test_without_keys_only_this_machine_may_be_served(host: str, configured: bool, level: Level) -> None:
    assert doctor.keys(host, configured).level is level


@pytest.mark.parametrize(
    ("url", "host", "calls_back", "level"),
    [
        ("", "127.0.0.1", False, Level.OK),
        ("", "127.0.0.1", True, Level.WARN),
        ("", "0.0.0.0", False, Level.WARN),
        ("https://turnout.example", "0.0.0.0", True, Level.OK),
        ("http://127.0.0.1:8000", "127.0.0.1", False, Level.OK),
        ("http://turnout.example", "0.0.0.0", True, Level.WARN),
    ],
)
def test_a_public_address_without_tls_is_told(url: str, host: str, calls_back: bool, level: Level) -> None:
    assert doctor.public_url(url, host, calls_back=calls_back).level is level


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_told_and_a_free_one_is_left_free(taken: int) -> None:
    assert doctor.port("127.0.0.1", taken).level is Level.WARN
    assert doctor.port("203.0.113.7", 0).level is Level.OK
    assert doctor.port("203.0.113.7", 8000).level is Level.FAIL, "an address of somebody else"


def test_a_store_that_is_locked_or_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "turnout.db"
    assert doctor.store_file(file).level is Level.OK
    with sqlite3.connect(file) as writer:
        writer.execute("CREATE TABLE t (x)")
    assert doctor.store_file(file).level is Level.OK
    writer.execute("BEGIN IMMEDIATE")
    locked = doctor.store_file(file)
    writer.rollback()
    writer.close()
    assert (locked.level, "locked" in locked.text) == (Level.FAIL, True)
    file.write_bytes(b"this is no database, and long enough to tell" * 100)
    assert doctor.store_file(file).level is Level.FAIL


def test_what_a_201_stands_for_is_told_for_the_store_that_is_set(tmp_path: Path) -> None:
    (engine, _, _, sqlite) = doctor.store(loaded("", tmp_path))
    assert engine.about == "sqlite", "what is known of this version of it is only told where it is used"
    assert sqlite.text == (
        "at a 201 it is in the store's file on disk, fsynced. "
        "What can be lost: nothing by a crash or a power cut, all of it with the disk"
    )
    for durability, word in (
        ("aof-always", "in the server's log on disk, fsynced"),
        ("everysec", "the last two seconds"),
        ("wait:1", "in the memory of the server and of another server"),
        ("wait:3", "of 3 other servers, and within two seconds on the server's disk"),  # theirs nobody has asked
        ("wait:3", "up to the last two seconds by a power cut of all of them"),
    ):
        text = f'[store]\nurl = "redis://127.0.0.1:{closed_port()}"\ndurability = "{durability}"\n'
        *_, said = doctor.store(loaded(text, tmp_path))
        assert (said.level, said.about, word in said.text) == (Level.OK, "accepted", True)
        assert durability in said.text


def test_a_redis_server_says_what_it_is_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        text = f'[store]\nurl = "{server.url}"\ntimeout_seconds = 1\n'
        fine, _ = doctor.store(loaded(text, tmp_path))
        assert (fine.level, fine.text.startswith("Redis ")) == (Level.OK, True)
        assert f"127.0.0.1:{server.port}, no replica" in fine.text
        with server.client() as client:
            client.config_set("appendfsync", "everysec")
            _, wrong, _ = doctor.store(loaded(text + 'durability = "wait:1"\n', tmp_path))
            assert (wrong.level, "0 replicas are connected" in wrong.text) == (Level.FAIL, True)
            assert wrong.remedy == "start them: until then every write is refused"
            client.config_set("appendfsync", "always")
            client.config_set("maxmemory-policy", "allkeys-lru")
            _, wrong, _ = doctor.store(loaded(text, tmp_path))
            assert (wrong.level, wrong.remedy) == (Level.FAIL, "set maxmemory-policy noeviction there")
            _, wrong, _ = doctor.store(loaded(text + 'checks = "warn"\n', tmp_path))
            assert wrong.level is Level.WARN
            assert client.dbsize() == 0, "nothing is written"


def test_a_redis_server_that_lets_us_in_by_another_password_is_told_and_none_is_shown(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        text = f'[store]\nurl = "{server.url}"\n'
        with server.client() as client:
            client.config_set("requirepass", "canary")
        wrong, _ = doctor.store(loaded(text, tmp_path))
        assert (wrong.level, wrong.remedy) == (Level.FAIL, "set [store] password")
        text += 'password = "env:REDIS_PASSWORD"\n'
        refused, _ = doctor.store(loaded(text, tmp_path, REDIS_PASSWORD="wrong canary"))
        assert (refused.level, refused.remedy) == (Level.FAIL, "correct [store] username and password")
        fine, _ = doctor.store(loaded(text, tmp_path, REDIS_PASSWORD="canary"))
        assert (fine.level, fine.about) == (Level.OK, "store")
    assert "canary" not in repr([wrong, refused, fine])


def test_a_redis_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    wrong, _ = doctor.store(loaded(f'[store]\nurl = "redis://127.0.0.1:{closed_port()}"\n', tmp_path))
    assert (wrong.level, "Connection refused" in wrong.text) == (Level.FAIL, True)
    assert wrong.remedy == "start it, or name another in [store] url"


def test_a_folder_is_examined_where_it_would_be_made_and_nothing_is_left_there(tmp_path: Path) -> None:
    (found,) = doctor.folder("artifacts", tmp_path / "a" / "b")
    assert found.level is Level.OK
    assert "made at the first start" in found.text
    assert list(tmp_path.iterdir()) == []
    blocked = tmp_path / "file"
    blocked.write_text("")
    (wrong,) = doctor.folder("store", blocked / "below")
    assert wrong.level is Level.FAIL


def test_a_file_with_a_secret_that_others_can_read_is_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("r8_canary")
    configured = loaded('[providers.replicate]\ntoken = "file:token"\n[providers.cog]\n', tmp_path)
    token.chmod(0o644)
    (found,) = doctor.secret_files(configured)
    assert found.remedy == f"chmod 600 {token}"
    token.chmod(0o600)
    assert list(doctor.secret_files(configured)) == []
    said = doctor.secrets(configured).text
    assert said == "1 found; no token for cog"
    assert "canary" not in repr(list(doctor.configured(loaded("[local]\nenabled = false\n", tmp_path), {})))


def test_a_package_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    configured = loaded('[local]\npackages = ["empty"]\n', tmp_path)
    found = doctor.packages(configured)
    assert found.level is Level.FAIL
    assert str(tmp_path / "empty") in found.text
    assert doctor.packages(loaded("", tmp_path)).text == "turnout/upscaler"


def test_the_device_is_asked_in_a_process_that_knows_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv > "$0.env"\nprintf "cpu 9.9"\n')
    python.chmod(0o755)
    monkeypatch.setenv("REPLICATE_API_TOKEN", "canary")
    monkeypatch.setattr(sys, "executable", str(python))
    found = doctor.device("cpu", {"REPLICATE_API_TOKEN": "canary", "PATH": "/usr/bin:/bin"})
    assert found == Finding(Level.OK, "device", "ONNX Runtime 9.9 runs on the CPU")
    assert "canary" not in (tmp_path / "python.env").read_text()


def test_a_runtime_that_crashes_is_a_line_and_not_our_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'libcudart.so.12: cannot open' >&2\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    found = doctor.device("auto", {"PATH": "/usr/bin:/bin"})
    assert found.level is Level.FAIL
    assert "libcudart.so.12" in found.text


def test_a_wrong_configuration_is_exit_2_and_the_machine_is_examined_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[server]\nprot = 1\n[sore]\n")
    assert main(["doctor", "--config", str(file)]) == 2
    said = capsys.readouterr().out
    assert f'fail configuration  {file}:2: server.prot: unknown key "prot"; did you mean "port"?' in said
    assert f"{file}:3: sore" in said
    assert "ok   turnout" in said
    assert "onnxruntime" in said
