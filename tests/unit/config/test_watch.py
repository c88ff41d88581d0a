from __future__ import annotations

import asyncio
import logging
import os
import threading
import tomllib
from pathlib import Path

import msgspec
import pytest

from gateway.config.watch import PolicyFiles
from gateway.contract.errors import ConfigurationError, refuse
from policies.document import Policy


def read(text: str, *, place: str) -> tuple[Policy, ...]:
    try:
        return (msgspec.convert(tomllib.loads(text), Policy),)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise refuse(str(error), place=f"{place}:1", remedy="correct it") from None


def write(file: Path, name: str, **more: str) -> None:
    """As a careful editor does: a new file in the old one's place."""
    text = f'name = "{name}"\n' + "".join(f'{key} = "{value}"\n' for key, value in more.items())
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, file)


def look_until_settled(files: PolicyFiles) -> bool:
    files.look()
    return files.look()


def test_files_and_folders_are_read_as_one_set(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    write(tmp_path / "one.toml", "one")
    write(folder / "b.toml", "two")
    write(folder / "c.toml", "three")
    (folder / ".swap.toml").write_text("half a fi")
    (folder / "notes.txt").write_text("not a policy")
    found = PolicyFiles([tmp_path / "one.toml", folder], read=read).current()
    assert found.names == ("one", "two", "three")
    assert found.find("two") == Policy(name="two")
    assert found.find("four") is None


def test_the_version_names_the_contents(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    write(file, "one")
    first = PolicyFiles([file], read=read).current().version
    assert first == PolicyFiles([file], read=read).current().version
    write(file, "one", description="other")
    assert first != PolicyFiles([file], read=read).current().version
    assert len(first) == 12


def test_a_first_set_with_faults_says_every_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("name = ")
    (tmp_path / "b.toml").write_bytes(b'name = "\xff"')
    write(tmp_path / "c.toml", "same")
    write(tmp_path / "d.toml", "same")
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigurationError) as refused:
        PolicyFiles([tmp_path, missing], read=read)
    lines = str(refused.value).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{tmp_path}/a.toml:1: ")
    assert lines[1].startswith(f"{tmp_path}/b.toml: not UTF-8 at byte 8")
    assert lines[2].startswith(f'{tmp_path}/d.toml: policy "same" is there already, in {tmp_path}/c.toml')
    assert lines[3].startswith(f"{missing}: it cannot be read (No such file or directory)")


def test_a_change_is_swapped_in_whole_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.toml", "a")
    write(tmp_path / "b.toml", "b")
    files = PolicyFiles([tmp_path], read=read)
    before = files.current()
    write(tmp_path / "a.toml", "a", description="changed")
    (tmp_path / "b.toml").unlink()
    write(tmp_path / "c.toml", "c")
    with caplog.at_level(logging.INFO):
        assert look_until_settled(files)
    assert files.current().names == ("a", "c")
    assert before.names == ("a", "b"), "who holds the old set keeps it whole"
    assert caplog.messages == [f"policies swapped, version {before.version} → {files.current().version}: ~a, -b, +c"]
    assert not look_until_settled(files)


def test_a_file_still_being_written_is_not_read_though_it_is_valid_so_far(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    write(file, "strict", description="only in Europe")
    files = PolicyFiles([file], read=read)
    file.write_text('name = "strict"\n')
    assert not files.look()
    file.write_text('name = "strict"\ndescription = "only in Norway"\n')
    assert not files.look(), "it changed between two looks: wait"
    assert files.current().policies[0].description == "only in Europe"
    assert files.look()
    assert files.current().policies[0].description == "only in Norway"


def test_a_bad_file_is_refused_aloud_once_and_the_last_good_set_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.toml"
    write(file, "good")
    files = PolicyFiles([file], read=read)
    good = files.current()
    file.write_text("name = ")
    for _ in range(5):
        files.look()
    assert files.current() is good
    assert len(caplog.messages) == 1
    assert f"version {good.version} stays: {file}:1: " in caplog.messages[0]
    write(file, "better")
    assert look_until_settled(files)
    assert files.current().names == ("better",)


def test_a_file_taken_away_leaves_the_last_good_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.toml"
    write(file, "good")
    files = PolicyFiles([file], read=read)
    file.unlink()
    look_until_settled(files)
    assert files.current().names == ("good",)
    assert "cannot be read" in caplog.text


def test_a_set_that_the_configuration_cannot_live_with_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def accept(policies: tuple[Policy, ...]) -> None:
        if not any(policy.name == "needed" for policy in policies):
            raise ConfigurationError('turnout.toml:3: policies.default: unknown policy "needed"')

    file = tmp_path / "a.toml"
    write(file, "needed")
    files = PolicyFiles([file], read=read, accept=accept)
    write(file, "other")
    look_until_settled(files)
    assert files.current().names == ("needed",)
    assert 'turnout.toml:3: policies.default: unknown policy "needed"' in caplog.text


def test_a_file_written_anew_with_the_same_words_is_no_new_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.toml"
    write(file, "same")
    files = PolicyFiles([file], read=read)
    write(file, "same")
    with caplog.at_level(logging.INFO):
        assert not look_until_settled(files)
    assert caplog.messages == []


async def test_it_looks_in_the_background_off_the_loop_until_cancelled(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    write(file, "before")
    reads: list[threading.Thread] = []

    def noted(text: str, *, place: str) -> tuple[Policy, ...]:
        reads.append(threading.current_thread())
        return read(text, place=place)

    files = PolicyFiles([file], read=noted)
    naps: list[float] = []
    swapped = asyncio.Event()

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        if files.current().names == ("after",):
            swapped.set()
        await asyncio.sleep(0)

    write(file, "after")
    task = asyncio.create_task(files.run(every_seconds=0.5, sleep=sleep))
    await swapped.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(naps) == {0.5}
    assert len(reads) == 2, "nothing is read while nothing changes"
    assert reads[1] is not threading.main_thread()
