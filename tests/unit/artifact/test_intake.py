"""Files in an input reach each provider in a form it takes, and nobody else's file is ever among them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from gateway.artifact.fetch import Fetcher
from gateway.artifact.intake import Intake
from gateway.contract.errors import InputRefused, InputUnfit, Verdict
from gateway.contract.provider import Capabilities
from gateway.net.target import Guard
from gateway.store.protocol import FileRow
from gateway.testing import ManualClock
from tests.unit.artifact.fakes import PNG, PUBLIC, START, FileServer, artifacts_in, file, serving_files

PNG_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


def taking(*forms: str, max_inline_bytes: int = 100_000) -> Capabilities:
    return Capabilities(modes=frozenset({"queue"}), input_forms=frozenset(forms), max_inline_bytes=max_inline_bytes)


BOTH, DATA, URLS, NONE = taking("url", "data"), taking("data"), taking("url"), taking()


class Uploads:
    def __init__(self) -> None:
        self.rows: dict[str, FileRow] = {}

    async def get_file(self, id: str, *, owner: str | None) -> FileRow | None:
        row = self.rows.get(id)
        return row if row is not None and row.owner == owner else None


class Room:
    def __init__(self, folder: Path, server: FileServer) -> None:
        self.clock = ManualClock(START)
        self.folder = folder
        self.server = server
        self.uploads = Uploads()
        self.artifacts = artifacts_in(folder, self.clock)
        self.fetcher = Fetcher(Guard([server.host], allow_http=True), self.clock)
        self.intake = Intake(self.artifacts, self.fetcher, self.uploads, self.clock)

    async def upload(self, id: str, *, owner: str = "ada", content: bytes = PNG) -> str:
        kept = await self.artifacts.keep(content, owner=owner, name="a.png", content_type="image/png")
        self.uploads.rows[id] = FileRow(
            id=id, owner=owner, artifact=kept.token, name="a.png", content_type="image/png", size_bytes=kept.size_bytes,
            sha256=kept.sha256, md5=kept.md5, metadata={}, created_at=START, expires_at=START + timedelta(days=1),
        )  # fmt: skip
        return f"{PUBLIC}/v1/files/{id}"

    async def fit(self, value: Any, capabilities: Capabilities = BOTH, *, reaches_us: bool = True, **asked: Any) -> Any:
        given = {"image": value}
        fitted = await self.intake.fit(given, owner="ada", capabilities=capabilities, reaches_us=reaches_us, **asked)
        assert given == {"image": value}
        return fitted["image"]


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with serving_files() as server:
        room = Room(tmp_path, server)
        yield room
        await room.fetcher.aclose()


async def test_input_without_files_is_handed_on_as_it_is(room: Room) -> None:
    given = {
        "prompt": "https://a.example/ is nice",
        "n": 1,
        "more": [None, {"x": "data: no"}],
        "url": "https://a.example/x.png",
    }
    assert await room.intake.fit(given, owner="ada", capabilities=BOTH, reaches_us=True) is given


async def test_upload_becomes_a_signed_link_for_a_provider_that_reaches_us(room: Room) -> None:
    url = await room.upload("f1")
    fitted = await room.fit([url])
    parts = urlsplit(fitted[0])
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert fitted[0].startswith(f"{PUBLIC}/v1/files/f1/download?")
    assert query["owner"] == "ada"
    assert room.artifacts.verify_download("f1", "ada", int(query["expiry"]), query["signature"])
    assert not room.artifacts.verify_download("f2", "ada", int(query["expiry"]), query["signature"])


@pytest.mark.parametrize(("capabilities", "reaches_us"), [(BOTH, False), (DATA, True), (DATA, False)])
async def test_upload_becomes_a_data_uri_elsewhere(room: Room, capabilities: Capabilities, reaches_us: bool) -> None:
    url = await room.upload("f1")
    assert await room.fit(url, capabilities, reaches_us=reaches_us) == PNG_URI
    assert await room.fit((await room.fit(url)), capabilities, reaches_us=reaches_us) == PNG_URI


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/none",
        "/v1/files/bobs",
        "/v1/files/old",
        "/v1/files/",
        "/elsewhere",
        "/artifacts/x/y",
        f"/artifacts/{'t' * 43}/a.png",
        "/v1/files/bobs/download?owner=bob&expiry=99999999999&signature=x",
    ],
)
@pytest.mark.parametrize("capabilities", [BOTH, DATA])
async def test_foreign_missing_and_expired_files_are_all_not_found(
    room: Room, path: str, capabilities: Capabilities
) -> None:
    await room.upload("bobs", owner="bob")
    await room.upload("old")
    room.uploads.rows["old"] = msgspec.structs.replace(room.uploads.rows["old"], expires_at=START)
    with pytest.raises(InputRefused, match="input/image: file not found") as caught:
        await room.fit(PUBLIC + path, capabilities)
    assert caught.value.verdict is Verdict.FINAL
    assert room.server.requests == []


async def test_our_output_link_is_good_as_an_input(room: Room) -> None:
    kept = await room.artifacts.keep(PNG, owner="ada", name="o.png", content_type="image/png", is_output=True)
    link = room.artifacts.link(kept.token, kept.name)
    assert await room.fit(link) == link
    assert await room.fit(link, DATA) == PNG_URI


@pytest.mark.parametrize(
    "capabilities", [taking("data", max_inline_bytes=100), taking("url", "data", max_inline_bytes=100)]
)
async def test_file_too_large_to_inline_is_for_another_provider_and_names_both_sizes(
    room: Room, capabilities: Capabilities
) -> None:
    url = await room.upload("f1")
    for value in (url, PNG_URI):
        with pytest.raises(InputUnfit, match=rf"{len(PNG_URI)} bytes inline, and the provider at most 100") as caught:
            await room.fit(value, capabilities, reaches_us=False)
        assert caught.value.verdict is Verdict.FAIL_OVER


async def test_file_for_a_provider_that_takes_only_urls_it_cannot_reach_is_unfit(room: Room) -> None:
    url = await room.upload("f1")
    for value in (url, PNG_URI):
        with pytest.raises(InputUnfit, match="cannot reach ours"):
            await room.fit(value, URLS, reaches_us=False)
    with pytest.raises(InputUnfit, match="takes no files"):
        await room.fit(url, NONE)


async def test_data_uri_within_the_limit_stays(room: Room) -> None:
    assert await room.fit(PNG_URI, DATA) is PNG_URI
    assert await room.fit(PNG_URI, taking("url", "data", max_inline_bytes=len(PNG_URI))) is PNG_URI


@pytest.mark.parametrize("capabilities", [URLS, taking("url", "data", max_inline_bytes=100)])
async def test_data_uri_becomes_a_link_where_only_that_is_taken(room: Room, capabilities: Capabilities) -> None:
    link = await room.fit(PNG_URI, capabilities)
    token = link.removeprefix(f"{PUBLIC}/artifacts/").partition("/")[0]
    opened = await room.artifacts.open(token)
    assert opened is not None
    assert await asyncio.to_thread(opened.path.read_bytes) == PNG
    assert link.endswith("/input.png")
    assert await room.fit(PNG_URI, capabilities) == link
    room.clock.advance(86_000)
    later = await room.fit(PNG_URI, capabilities)
    assert later != link, "a link near its end is not handed out again"


@pytest.mark.parametrize("text", ["data:image/png;base64,A", "data:image/png;base64,AA,AA"])
async def test_malformed_data_uri_that_must_be_read_is_refused(room: Room, text: str) -> None:
    with pytest.raises(InputRefused, match="not base64"):
        await room.fit(text, URLS)


async def test_stranger_s_url_stays_where_urls_are_taken_and_is_inlined_elsewhere(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG, "content-type: image/png; x=y"))
    assert await room.fit(url) == url
    assert room.server.requests == []
    assert await room.fit(url, DATA) == PNG_URI


async def test_url_that_is_a_prompt_stays_a_prompt(room: Room) -> None:
    assert await room.fit("https://a.example/", DATA, file_keys=("mask",)) == "https://a.example/"
    url = room.server.put("/a.png", file(PNG, "content-type: image/png"))
    assert await room.fit([url], DATA, file_keys=("image",)) == [PNG_URI]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://169.254.169.254/latest", "http://localhost/", "http://[::1]/", "http://a:b@c/"],
)
async def test_forbidden_address_is_refused_before_anything_is_dialled(room: Room, url: str) -> None:
    with pytest.raises(InputRefused, match="could not be fetched"):
        await room.fit(url, DATA)


async def test_stranger_s_file_that_is_missing_is_refused_and_one_too_large_is_unfit(room: Room) -> None:
    with pytest.raises(InputRefused, match="answered 404"):
        await room.fit(room.server.url("/none"), DATA)
    url = room.server.put("/large", file(b"x" * 1000))
    with pytest.raises(InputUnfit, match="larger than 750 bytes"):
        await room.fit(url, taking("data", max_inline_bytes=1000))
    with pytest.raises(InputUnfit, match="takes no files"):
        await room.fit(url, NONE)
