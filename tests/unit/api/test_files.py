"""Uploads in the forms of all three clients, their rows, signed downloads, and output files by link."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api.fakes import PUBLIC, World

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


def part(name: str, content: bytes, *, filename: str | None = None, type: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"' + (
        f'; filename="{filename}"' if filename is not None else ""
    )
    kind = f"\r\nContent-Type: {type}" if type else ""
    return f"--frontier\r\n{head}{kind}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


async def send(world: World, body: bytes, kind: str = "multipart/form-data; boundary=frontier") -> httpx.Response:
    return await world.alice.post("/v1/files", content=body, headers={"content-type": kind})


FORMS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "python 1.x": (
        form(part("content", PNG, filename="a.png", type="image/png"), part("metadata", b'{"k": 1}')),
        {"k": 1},
        "a.png",
    ),
    "python 1.x, bare": (form(part("content", PNG, filename="a.png", type="image/png")), {}, "a.png"),
    "npm": (
        form(
            part("content", PNG, filename="a.png", type="image/png"),
            part("metadata", b"{}", filename="blob", type="application/json"),
        ),
        {},
        "a.png",
    ),
    "npm, metadata first": (
        form(
            part("metadata", b'{"k":[1]}', filename="blob", type="application/json"),
            part("content", PNG, filename="a.png", type="image/png"),
        ),
        {"k": [1]},
        "a.png",
    ),
    "python 2.x": (
        form(
            part("metadata[k]", b"v"),
            part("filename", b"b.png"),
            part("type", b"image/png"),
            part("content", PNG, filename="upload", type="application/octet-stream"),
        ),
        {"k": "v"},
        "b.png",
    ),
}


@pytest.mark.parametrize("client", FORMS)
async def test_the_upload_forms_of_all_clients_are_read(world: World, client: str) -> None:
    body, metadata, name = FORMS[client]
    reply = await send(world, body)
    assert reply.status_code == 201, reply.text
    md5 = hashlib.md5(PNG).hexdigest()
    id = reply.json()["id"]
    assert reply.json() == {
        "id": id,
        "name": name,
        "content_type": "image/png",
        "size": len(PNG),
        "etag": md5,
        "checksums": {"sha256": hashlib.sha256(PNG).hexdigest(), "md5": md5},
        "metadata": metadata,
        "created_at": "2026-01-02T03:04:05.678Z",
        "expires_at": "2026-01-03T03:04:05.678Z",
        "urls": {"get": f"{PUBLIC}/v1/files/{id}"},
    }
    assert (await world.alice.get(f"/v1/files/{id}")).json() == reply.json()
    assert world.store.files[id].owner == "alice"


async def test_an_upload_that_comes_in_small_pieces_is_the_same(world: World) -> None:
    body, _, _ = FORMS["npm"]

    async def drip() -> Any:
        for begin in range(0, len(body), 7):
            yield body[begin : begin + 7]

    reply = await world.alice.post(
        "/v1/files", content=drip(), headers={"content-type": "multipart/form-data; boundary=frontier"}
    )
    assert reply.json()["checksums"]["sha256"] == hashlib.sha256(PNG).hexdigest()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.png", "y.png"),
        ("", "file"),
        ("..", "file"),
        ("a\x07b.png", "ab.png"),
        ("ü.png", "ü.png"),
    ],
)
async def test_a_file_name_is_a_name_and_not_a_path(world: World, name: str, shown: str) -> None:
    reply = await send(world, form(part("content", b"x", filename=name)))
    assert reply.json()["name"] == shown
    assert reply.json()["content_type"] == "application/octet-stream"


CONTENT = part("content", b"x", filename="x")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "multipart/form-data; boundary=frontier", 400),
        (b"rubbish", "multipart/form-data; boundary=frontier", 400),
        (form(CONTENT)[:-6], "multipart/form-data; boundary=frontier", 400),
        (part("content", b"x", filename="x")[:60], "multipart/form-data; boundary=frontier", 400),
        (form(part("metadata", b"{}")), "multipart/form-data; boundary=frontier", 422),
        (form(CONTENT, CONTENT), "multipart/form-data; boundary=frontier", 422),
        (form(CONTENT, part("metadata", b"[]")), "multipart/form-data; boundary=frontier", 422),
        (form(CONTENT, part("metadata", b"{")), "multipart/form-data; boundary=frontier", 422),
        (form(CONTENT, part("metadata", b"\xff")), "multipart/form-data; boundary=frontier", 400),
        (form(CONTENT, part("metadata", b"[" * 50_000)), "multipart/form-data; boundary=frontier", 422),
        (form(CONTENT, part("metadata", b'"' + b"x" * 70_000 + b'"')), "multipart/form-data; boundary=frontier", 413),
        (form(CONTENT, part("filename", b"x" * 256)), "multipart/form-data; boundary=frontier", 422),
        (
            form(CONTENT, *[part(f"f{number}", b"x") for number in range(200)]),
            "multipart/form-data; boundary=frontier",
            413,
        ),
        (form(part("content", b"x" * 50_001, filename="x")), "multipart/form-data; boundary=frontier", 413),
        (form(CONTENT), "multipart/form-data", 415),
        (form(CONTENT), "multipart/form-data; boundary=" + "x" * 300, 415),
        (form(CONTENT), 'multipart/form-data; boundary=""', 415),
        (b"{}", "application/json", 415),
        (form(CONTENT), "", 415),
    ],
)
async def test_a_broken_upload_is_a_problem_and_leaves_nothing(
    world: World, body: bytes, kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await send(world, body, kind)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == status
    assert world.store.files == {}
    assert world.files.kept == {}
    assert caplog.records == []


async def test_a_file_too_large_is_told_as_replicate_does(tmp_path: Path) -> None:
    world = World(tmp_path, max_file_bytes=1_000_000)
    reply = await send(world, form(part("content", b"x" * 1_000_001, filename="x")))
    assert reply.json()["detail"] == "Files must be less than 1MB in size"


async def upload(world: World, content: bytes = PNG, **named: str) -> str:
    reply = await send(world, form(part("content", content, filename="a.png", type="image/png", **named)))
    return str(reply.json()["id"])


async def test_files_are_listed_newest_first_and_deleted_with_their_bytes(world: World) -> None:
    ids = [await upload(world) for _ in range(3)]
    listed = (await world.alice.get("/v1/files")).json()
    assert [one["id"] for one in listed["results"]] == ids[::-1]
    assert (listed["next"], listed["previous"]) == (None, None)
    deleted = await world.alice.delete(f"/v1/files/{ids[0]}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert not {"content-type", "content-length"} & set(deleted.headers)
    assert (await world.alice.delete(f"/v1/files/{ids[0]}")).status_code == 404
    assert len(world.files.kept) == 2


async def test_an_expired_file_is_not_found(world: World) -> None:
    id = await upload(world)
    world.clock.advance(86_400)
    for reply in (
        await world.alice.get(f"/v1/files/{id}"),
        await world.nobody.get(f"/v1/files/{id}/download", params=link(world, id, seconds=9)),
    ):
        assert reply.status_code == 404
        assert reply.json()["detail"] == "File not found"
    assert (await world.alice.get("/v1/files")).json()["results"] == []


def link(world: World, id: str, *, owner: str = "alice", seconds: float = 60) -> dict[str, str]:
    expiry = int(world.clock.now().timestamp() + seconds)
    return {"owner": owner, "expiry": str(expiry), "signature": world.files.sign_download(id, owner, expiry)}


async def test_a_signed_link_downloads_without_a_key(world: World) -> None:
    id = await upload(world)
    reply = await world.nobody.get(f"/v1/files/{id}/download", params=link(world, id))
    assert reply.status_code == 200
    assert reply.content == PNG
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''a.png"


async def test_a_link_that_was_changed_in_anything_is_a_404(world: World) -> None:
    id, other = await upload(world), await upload(world)
    good = link(world, id)
    late = link(world, id, seconds=-1)
    for path, query in [
        (id, {**good, "signature": "x"}),
        (id, {**good, "expiry": str(int(good["expiry"]) + 1)}),
        (id, {**good, "owner": "bob"}),
        (id, link(world, id, owner="bob")),
        (other, good),
        (id, late),
        (id, {}),
        (id, {**good, "expiry": "x"}),
        (id, {**good, "expiry": "9" * 5000}),
        (id, {**good, "expiry": "-1"}),
    ]:
        reply = await world.nobody.get(f"/v1/files/{path}/download", params=query)
        assert reply.status_code == 404, query
        assert reply.json()["detail"] == "File not found"


async def kept(world: World, content: bytes = PNG, *, name: str = "out.png", type: str = "image/png") -> str:
    token = (await world.files.keep(content, owner="alice", name=name, content_type=type)).token
    return f"/artifacts/{token}/{name}"


async def test_an_output_is_read_without_a_key_and_cannot_do_harm(world: World) -> None:
    reply = await world.nobody.get(await kept(world))
    assert reply.status_code == 200
    assert reply.content == PNG
    assert reply.headers["content-length"] == str(len(PNG))
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"].startswith("inline;")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(
    "type", ["text/html", "image/svg+xml", "application/xhtml+xml", "application/octet-stream", "IMAGE/SVG+XML"]
)
async def test_what_is_no_plain_medium_is_offered_for_saving(world: World, type: str) -> None:
    reply = await world.nobody.get(await kept(world, b"<script>", name='a"\r\n;.html'.replace("\r\n", ""), type=type))
    assert reply.headers["content-disposition"].startswith("attachment; filename*=UTF-8''a%22%3B.html")


@pytest.mark.parametrize(
    ("range", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=10-", 10, len(PNG) - 1),
        ("bytes=-5", len(PNG) - 5, len(PNG) - 1),
        ("bytes=0-999999", 0, len(PNG) - 1),
        ("bytes=-999999", 0, len(PNG) - 1),
    ],
)
async def test_a_single_range_is_served(world: World, range: str, first: int, last: int) -> None:
    reply = await world.nobody.get(await kept(world), headers={"range": range})
    assert reply.status_code == 206
    assert reply.content == PNG[first : last + 1]
    assert reply.headers["content-range"] == f"bytes {first}-{last}/{len(PNG)}"


@pytest.mark.parametrize("range", ["bytes=0-1,3-4", "items=0-1", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "x"])
async def test_any_other_range_gets_the_whole(world: World, range: str) -> None:
    reply = await world.nobody.get(await kept(world), headers={"range": range})
    assert (reply.status_code, reply.content) == (200, PNG)


@pytest.mark.parametrize("range", [f"bytes={len(PNG)}-", "bytes=-0"])
async def test_a_range_outside_of_the_file_is_a_416(world: World, range: str) -> None:
    reply = await world.nobody.get(await kept(world), headers={"range": range})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(PNG)}"


async def test_validators_and_head_work(world: World) -> None:
    path = await kept(world)
    head = await world.nobody.head(path)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(PNG)))
    etag = head.headers["etag"]
    same = await world.nobody.get(path, headers={"if-none-match": f'"x", W/{etag}'})
    assert (same.status_code, same.content) == (304, b"")
    stale = await world.nobody.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert stale.status_code == 200
    fresh = await world.nobody.get(path, headers={"range": "bytes=0-1", "if-range": etag})
    assert fresh.status_code == 206


async def test_an_empty_file_is_served(world: World) -> None:
    path = await kept(world, b"")
    reply = await world.nobody.get(path)
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")
    assert (await world.nobody.get(path, headers={"range": "bytes=0-0"})).status_code == 416


@pytest.mark.parametrize(
    "path", ["/artifacts/x/y", "/artifacts/" + "t" * 43 + "/y", "/artifacts/..%2f..%2fetc/passwd", "/artifacts"]
)
async def test_an_unknown_link_is_a_404(world: World, path: str) -> None:
    assert (await world.nobody.get(path)).status_code == 404
