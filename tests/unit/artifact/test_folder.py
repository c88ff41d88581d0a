"""A file is kept whole or not at all, under a name and type that harm nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.artifact.folder import Artifacts
from gateway.artifact.links import OwnLink
from gateway.contract.errors import ConfigurationError, StoreUnavailable, TooLarge
from gateway.testing import ManualClock
from tests.unit.artifact.fakes import PNG, PUBLIC, SECRET, START, artifacts_in

TOKEN = "t" * 43


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def artifacts(tmp_path: Path, clock: ManualClock) -> Artifacts:
    return artifacts_in(tmp_path, clock)


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def left_over(folder: Path) -> list[Path]:
    return list((folder / "drafts").iterdir())


def contents(folder: Path) -> int:
    return len(list(folder.glob("*/*/content")))


@pytest.mark.parametrize("streamed", [False, True])
async def test_kept_bytes_come_back_with_what_is_known_of_them(artifacts: Artifacts, streamed: bool) -> None:
    content = PNG * 3000
    chunks = parts(*(content[at : at + 70_000] for at in range(0, len(content), 70_000))) if streamed else content
    kept = await artifacts.keep(chunks, owner="ada", name="My photo.png", content_type="image/jpeg")
    opened = await artifacts.open(kept.token)
    assert opened is not None
    assert opened.path.read_bytes() == content
    assert (opened.name, opened.content_type, opened.size_bytes) == ("My_photo.png", "image/png", len(content))
    assert opened.etag == kept.md5 == hashlib.md5(content).hexdigest()
    assert kept.sha256 == hashlib.sha256(content).hexdigest()
    assert len(kept.token) == 43
    assert artifacts.link(kept.token, kept.name) == f"{PUBLIC}/artifacts/{kept.token}/My_photo.png"


async def test_same_token_again_replaces_nothing_and_reads_nothing(artifacts: Artifacts) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("was read")
        yield b""

    first = await artifacts.keep(b"first", owner="ada", name="a.txt", content_type="text/plain", token=TOKEN)
    again = await artifacts.keep(unread(), owner="ada", name="b.txt", content_type="text/html", token=TOKEN)
    assert again == first


async def test_two_at_once_with_one_token_leave_one_whole_file(artifacts: Artifacts, tmp_path: Path) -> None:
    kept = await asyncio.gather(
        *(
            artifacts.keep(parts(b"%d" % n * 50_000), owner="ada", name="a", content_type="text/plain", token=TOKEN)
            for n in range(6)
        )
    )
    opened = await artifacts.open(TOKEN)
    assert opened is not None
    assert {one.sha256 for one in kept} == {hashlib.sha256(opened.path.read_bytes()).hexdigest()}
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_file_over_the_limit_is_refused_and_leaves_nothing(
    tmp_path: Path, clock: ManualClock, streamed: bool
) -> None:
    artifacts = artifacts_in(tmp_path, clock, max_file_bytes=1000)
    content = b"x" * 1001
    with pytest.raises(TooLarge, match="1000 bytes"):
        await artifacts.keep(
            parts(content[:500], content[500:]) if streamed else content, owner="a", name="a", content_type=""
        )
    assert left_over(tmp_path) == []
    await artifacts.keep(content[:1000], owner="a", name="a", content_type="")


async def test_endless_upload_is_cut_off(artifacts: Artifacts) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b"x" * 10_000

    with pytest.raises(TooLarge):
        await artifacts.keep(endless(), owner="a", name="a", content_type="")
    assert sent <= 1_010_000


async def test_upload_that_breaks_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await artifacts.keep(broken(), owner="a", name="a", content_type="", token=TOKEN)
    assert await artifacts.open(TOKEN) is None
    assert left_over(tmp_path) == []


async def test_full_disk_is_a_store_that_is_unavailable(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        await artifacts.keep(b"x", owner="a", name="a", content_type="", token=TOKEN)
    monkeypatch.undo()
    assert await artifacts.open(TOKEN) is None


async def test_bytes_are_synced_before_the_name_appears(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(number: int) -> None:
        steps.append("sync")
        sync(number)

    def noted_rename(self: Path, target: Any) -> Any:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    await artifacts.keep(b"x", owner="a", name="a", content_type="")
    assert steps == ["sync", "sync", "sync", "rename", "sync", "sync"]


@pytest.mark.parametrize(
    "token", ["", "..", "../../etc/passwd", "t" * 42, "t" * 44, "t" * 42 + "/", "t" * 42 + "\n", "é" * 43]
)
async def test_what_is_no_token_opens_and_removes_nothing(artifacts: Artifacts, token: str) -> None:
    assert await artifacts.open(token) is None
    await artifacts.remove(token)
    with pytest.raises(ValueError, match="token"):
        await artifacts.keep(b"", owner="a", name="a", content_type="", token=token)


async def test_removed_file_is_gone_and_removing_it_again_is_fine(artifacts: Artifacts, tmp_path: Path) -> None:
    kept = await artifacts.keep(b"x", owner="a", name="a", content_type="")
    await artifacts.remove(kept.token)
    await artifacts.remove(kept.token)
    assert await artifacts.open(kept.token) is None
    assert left_over(tmp_path) == []


async def test_inputs_expire_and_outputs_do_not(artifacts: Artifacts, clock: ManualClock, tmp_path: Path) -> None:
    upload = await artifacts.keep(b"x", owner="a", name="a", content_type="")
    output = await artifacts.keep(b"y", owner="a", name="a", content_type="", is_output=True)
    clock.advance(86_400)
    assert await artifacts.open(upload.token) is not None
    assert await artifacts.sweep(clock.now()) == 0
    clock.advance(61)
    assert await artifacts.open(upload.token) is None
    assert await artifacts.sweep(clock.now()) == 1
    assert await artifacts.open(output.token) is not None
    assert contents(tmp_path) == 1


async def test_expired_token_can_be_kept_anew(artifacts: Artifacts, clock: ManualClock) -> None:
    await artifacts.keep(b"old", owner="a", name="a", content_type="", token=TOKEN)
    clock.advance(100_000)
    await artifacts.keep(b"new", owner="a", name="a", content_type="", token=TOKEN)
    opened = await artifacts.open(TOKEN)
    assert opened is not None
    assert opened.path.read_bytes() == b"new"


async def test_drafts_of_a_dead_process_are_swept(artifacts: Artifacts, tmp_path: Path) -> None:
    for name, age in (("old", 90_000), ("young", 10)):
        (tmp_path / "drafts" / name).mkdir()
        stamp = START.timestamp() - age
        os.utime(tmp_path / "drafts" / name, (stamp, stamp))
    await artifacts.sweep(START)
    assert [draft.name for draft in left_over(tmp_path)] == ["young"]


def test_unwritable_folder_is_one_line_that_names_it(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(
        ConfigurationError, match=r"taken: the folder cannot be written \(Not a directory\); name"
    ) as caught:
        artifacts_in(tmp_path / "taken", clock)
    assert "\n" not in str(caught.value)


def test_download_signature_is_the_documented_one_and_binds_every_part(
    artifacts: Artifacts, clock: ManualClock
) -> None:
    expiry = int(START.timestamp()) + 10
    signature = artifacts.sign_download("file1", "ada", expiry)
    expected = hmac.digest(SECRET, f"ada file1 {expiry}".encode(), hashlib.sha256)
    assert signature == base64.b64encode(expected).decode()
    assert artifacts.verify_download("file1", "ada", expiry, signature)
    for wrong in [
        ("file2", "ada", expiry, signature),
        ("file1", "bob", expiry, signature),
        ("file1", "ada", expiry + 1, signature),
        ("file1", "ada", expiry, signature[:-2] + "A="),
        ("file1", "ada", expiry, ""),
        ("file1", "ada", expiry, "é\ud800"),
    ]:
        assert not artifacts.verify_download(*wrong)
    clock.advance(10)
    assert not artifacts.verify_download("file1", "ada", expiry, signature)


def test_signature_for_an_owner_with_a_space_is_not_good_for_another_file(artifacts: Artifacts) -> None:
    expiry = int(START.timestamp()) + 10
    signature = artifacts.sign_download("x", "ada y", expiry)
    assert artifacts.verify_download("x", "ada y", expiry, signature)
    assert not artifacts.verify_download("y x", "ada", expiry, signature)


def test_own_links_are_read_and_others_are_not(artifacts: Artifacts, clock: ManualClock) -> None:
    links = artifacts.links
    signed = links.download("file1", "ada b&c")
    assert links.read(signed) == OwnLink(file_id="file1", owner="ada b&c")
    assert links.read(signed.replace("file1", "file2")) == OwnLink()
    assert links.read(f"{PUBLIC}/v1/files/file1") == OwnLink(file_id="file1")
    assert links.read(f"{PUBLIC}/artifacts/{TOKEN}/a.png") == OwnLink(artifact_token=TOKEN)
    for path in ("", "v1/files/", "v1/files/a/b", "artifacts/x/y", f"artifacts/{TOKEN}/../x", "v1/files/..%2f"):
        assert links.read(f"{PUBLIC}/{path}") == OwnLink()
    for url in (
        "https://turnout.example.evil/v1/files/a",
        "http://turnout.example/v1/files/a",
        "https://a.example/",
        PUBLIC,
    ):
        assert links.read(url) is None
    clock.advance(timedelta(days=1).total_seconds() + 1)
    assert links.read(signed) == OwnLink()


def test_derived_tokens_are_tokens_and_differ_by_part(artifacts: Artifacts, tmp_path: Path, clock: ManualClock) -> None:
    derive = artifacts.links.derived_token
    tokens = {derive("a", "b"), derive("ab"), derive("a", "b", ""), derive("b", "a")}
    assert len(tokens) == 4
    assert {len(token) for token in tokens} == {43}
    assert derive("a", "b") == artifacts_in(tmp_path, clock).links.derived_token("a", "b")
    assert derive("a", "b") != artifacts_in(tmp_path, clock, signing_secret=b"other").links.derived_token("a", "b")
