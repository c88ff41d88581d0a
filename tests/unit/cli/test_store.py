"""`turnout store`: from one file to another by way of a third, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import stat
import sys
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.commands import store as command
from gateway.contract.clock import SystemClock
from gateway.store.sqlite import SqliteStore
from tests.contract.store import toy

IDS = ["first", "second"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two configurations, and a store with two predictions in the first one's place."""
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        (tmp_path / f"{name}.toml").write_text(f'[store]\nurl = "sqlite:///{name}.db"\n')

    async def fill() -> None:
        store = await opened(tmp_path / "old.db")
        for id in IDS:
            await store.create(toy.prediction(id=id))
        await store.setting("secret", "do not tell")
        await store.aclose()

    asyncio.run(fill())
    return tmp_path


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, reduce=toy.reduce, snapshot=toy.snapshot, clock=SystemClock())


def kept(path: Path) -> list[str]:
    async def look() -> list[str]:
        store = await opened(path)
        try:
            assert await store.setting("secret", "?") == "do not tell"
            page = await store.list_predictions(owner="alice")
            return sorted(one.id for one in page.predictions)
        finally:
            await store.aclose()

    return asyncio.run(look())


def told(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_store_moves_by_way_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "export", "all.jsonl", "--config", "old.toml"]) == 0
    said = told(capsys)
    assert "exported 2 predictions with 0 deliveries" in said
    assert "let nobody read it" in said
    assert stat.S_IMODE((folder / "all.jsonl").stat().st_mode) == 0o600
    assert not (folder / "all.jsonl.part").exists()
    for _ in range(2):  # a repeat changes nothing
        assert main(["store", "import", "all.jsonl", "--config", "new.toml"]) == 0
        assert "imported 2 predictions" in told(capsys)
    assert kept(folder / "new.db") == IDS


def test_a_store_moves_through_a_pipe(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["store", "export", "-", "--config", "old.toml"]) == 0
    text = capfdbinary.readouterr().out
    assert text.startswith(b'{"type":"turnout-store"')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text[:-40])))
    assert main(["store", "import", "-", "--config", "new.toml"]) == 2
    assert b"standard input: it was cut off in line" in capfdbinary.readouterr().err
    assert not (folder / "new.db").exists()  # nothing is opened before the whole was read
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["store", "import", "-", "--config", "new.toml"]) == 0
    assert kept(folder / "new.db") == IDS


def test_a_store_that_a_gateway_has_open_is_not_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def while_open() -> int:
        store = await opened(folder / "old.db")
        try:
            return await asyncio.to_thread(main, ["store", "export", "all.jsonl", "--config", "old.toml"])
        finally:
            await store.aclose()

    assert asyncio.run(while_open()) == 2
    said = told(capsys)
    assert "old.toml:2: store.url" in said
    assert "another process has this store open; stop that process" in said
    assert not list(folder.glob("all*"))


def test_a_store_that_is_not_there_is_not_made_to_be_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "export", "all.jsonl", "--config", "new.toml"]) == 2
    assert "there is no store to export" in told(capsys)
    assert not (folder / "new.db").exists()


def test_no_file_is_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "all.jsonl").write_text("mine")
    assert main(["store", "export", "all.jsonl", "--config", "old.toml"]) == 2
    assert "all.jsonl: it is there already" in told(capsys)
    assert (folder / "all.jsonl").read_text() == "mine"


def test_what_is_left_of_an_export_that_broke_off_is_written_anew(folder: Path) -> None:
    (folder / "all.jsonl.part").write_text("half" * 100)
    assert main(["store", "export", "all.jsonl", "--config", "old.toml"]) == 0
    assert main(["store", "import", "all.jsonl", "--config", "new.toml"]) == 0


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = command.os.open

    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full", command.os.O_WRONLY) if str(path).endswith(".part") else real(path, flags, mode)

    monkeypatch.setattr(command.os, "open", full)
    assert main(["store", "export", "all.jsonl", "--config", "old.toml"]) == 2
    assert "all.jsonl: it cannot be written: No space left on device" in told(capsys)
    monkeypatch.undo()
    assert not list(folder.glob("all*"))


@pytest.mark.parametrize("file", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_read_is_told(folder: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    assert main(["store", "import", file, "--config", "new.toml"]) == 2
    assert "it cannot be read" in told(capsys)
    assert not (folder / "new.db").exists()


def test_a_store_with_other_predictions_takes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["store", "export", "all.jsonl", "--config", "old.toml"])

    async def another() -> None:
        store = await opened(folder / "new.db")
        await store.create(toy.prediction(id="stranger"))
        await store.aclose()

    asyncio.run(another())
    assert main(["store", "import", "all.jsonl", "--config", "new.toml"]) == 2
    assert "nothing was imported: the store holds 1 predictions that do not stand in the file" in told(capsys)
