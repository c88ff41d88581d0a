"""Every file of an output ends in our keeping, or the result is lost aloud; over real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.artifact.collect import Collector, Trust
from gateway.artifact.fetch import Fetcher
from gateway.artifact.folder import Artifacts
from gateway.contract.errors import ResultLost
from gateway.net.target import Guard
from gateway.testing import ManualClock
from tests.unit.artifact.fakes import (
    PNG,
    PUBLIC,
    START,
    FileServer,
    artifacts_in,
    attempt,
    file,
    prediction,
    serving_files,
)

PNG_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Room:
    def __init__(self, folder: Path, server: FileServer, **options: Any) -> None:
        self.clock = ManualClock(START)
        self.pauses: list[float] = []
        self.server = server
        self.artifacts: Artifacts = artifacts_in(folder, self.clock)

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        self.fetcher = Fetcher(Guard(allow_http=True), self.clock, pause=pause, **options)
        self.collector = Collector(self.artifacts, self.fetcher)

    async def collect(
        self, output: Any, *, trusted: tuple[str, ...] | None = None, number: int = 1, **asked: Any
    ) -> Any:
        direct = (self.server.host,) if trusted is None else ()
        return await self.collector.collect(
            prediction(**asked), attempt(number), output, trusted_hosts=trusted or (), direct_hosts=direct
        )

    async def content(self, link: str) -> bytes:
        token = link.removeprefix(f"{PUBLIC}/artifacts/").partition("/")[0]
        opened = await self.artifacts.open(token)
        assert opened is not None
        return await asyncio.to_thread(opened.path.read_bytes)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with serving_files() as server:
        room = Room(tmp_path, server)
        yield room
        await room.fetcher.aclose()


async def test_files_at_any_depth_become_our_links_and_all_else_stays(room: Room) -> None:
    url = room.server.put("/out/image 0.png", file(PNG, "content-type: image/png")).replace(" ", "%20")
    room.server.put("/out/image%200.png", file(PNG))
    output = {
        "images": [{"url": url, "seed": 7}, PNG_URI],
        "text": "see https://a.example/ for more",
        "n": [1.5, None, True, {}],
    }
    before = str(output)
    got = await room.collect(output)
    assert str(output) == before
    assert got["images"][0]["url"].endswith("/image_0.png")
    assert got["images"][1].endswith("/output.png")
    assert await room.content(got["images"][0]["url"]) == PNG
    assert await room.content(got["images"][1]) == PNG
    got["images"] = output["images"]
    assert got == output


async def test_depth_beyond_the_interpreter_s_recursion_is_walked(room: Room) -> None:
    output: Any = PNG_URI
    for _ in range(5000):
        output = [output]
    got = await room.collect(output)
    for _ in range(5000):
        got = got[0]
    assert await room.content(got) == PNG


@pytest.mark.parametrize(
    "output", ["text", ["a", "b"], None, 3, {"a": "https://x.example/"}, "data: and so on", ["http://x y"]]
)
async def test_output_without_files_is_handed_back_as_it_is(room: Room, output: Any) -> None:
    assert await room.collect(output, file_output=False) is output


async def test_repeat_gives_the_same_links_and_fetches_nothing_twice(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG))
    first = await room.collect([url, PNG_URI, url])
    assert await room.collect([url, PNG_URI, url]) == first
    assert first[0] == first[2]
    assert room.server.requests == ["/a.png"]
    assert await room.collect([url, PNG_URI, url], number=2) != first


async def test_repeat_after_the_provider_forgot_the_file_still_works(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG), file(b"", status="404 Not Found"))
    assert await room.collect(url) == await room.collect(url)


async def test_trusted_host_is_collected_from_even_where_no_file_was_declared(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG))
    assert (await room.collect(url, file_output=False)).startswith(PUBLIC)


async def test_our_own_links_are_left_alone(room: Room) -> None:
    link = await room.collect(PNG_URI)
    assert await room.collect({"echo": link}) == {"echo": link}


@pytest.mark.parametrize(
    "status", ["404 Not Found", "410 Gone", "403 Forbidden", "401 Unauthorized", "204 No Content", "206 Partial"]
)
async def test_file_that_is_gone_is_a_lost_result_at_once(room: Room, status: str) -> None:
    url = room.server.put("/a.png", file(b"", status=status))
    with pytest.raises(ResultLost, match=f"/x/0 could not be had: the server answered {status[:3]}"):
        await room.collect({"x": [url]})
    assert (len(room.server.requests), room.pauses) == (1, [])


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def stop_half_way(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    writer.close()


async def test_broken_transfers_are_tried_again_from_the_start(room: Room, tmp_path: Path) -> None:
    url = room.server.put("/a.png", stop_half_way, file(b"", status="503 Away"), file(PNG))
    assert await room.content(await room.collect(url)) == PNG
    assert room.pauses == [0.2, 1.0]
    assert list((tmp_path / "drafts").iterdir()) == []


async def test_broken_off_half_way_it_leaves_nothing_and_the_repeat_gives_the_same_links(
    room: Room, tmp_path: Path
) -> None:
    """As a drain does: one file is here, the other is half here, and whoever goes on with it copies only the second."""
    is_half_here = asyncio.Event()

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100000\r\n\r\n" + PNG[:20])
        await writer.drain()
        is_half_here.set()
        await asyncio.sleep(60)

    whole = room.server.put("/a.png", file(PNG))
    half = room.server.put("/b.png", stall, file(PNG))
    first = await room.collect([whole])
    copying = asyncio.create_task(room.collect([whole, half]))
    async with asyncio.timeout(5):
        await is_half_here.wait()
    copying.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({copying})
    assert copying.cancelled()
    assert list((tmp_path / "drafts").iterdir()) == []

    links = await room.collect([whole, half])
    assert links[:1] == first
    assert [await room.content(link) for link in links] == [PNG, PNG]
    assert room.server.requests == ["/a.png", "/b.png", "/b.png"]


@pytest.mark.parametrize(
    "answer", [hang_up, stop_half_way, file(b"", status="500 Broken"), file(b"", status="429 Many")]
)
async def test_three_failures_in_a_row_are_a_lost_result_and_leave_nothing(
    room: Room, tmp_path: Path, answer: Any
) -> None:
    url = room.server.put("/a.png", answer)
    with pytest.raises(ResultLost):
        await room.collect(url)
    assert len(room.server.requests) == 3
    assert await asyncio.to_thread(lambda: [place.name for place in tmp_path.iterdir()]) == ["drafts"]


async def test_file_too_large_is_refused_by_its_length_and_by_its_bytes(room: Room) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    for path, answer in (("/told", file(b"x" * 1_000_001)), ("/untold", endless)):
        with pytest.raises(ResultLost, match="larger than 1000000 bytes"):
            await room.collect(room.server.put(path, answer))
    with pytest.raises(ResultLost, match="more than 1000000 bytes"):
        await room.collect("data:image/png;base64," + "A" * 1_400_000)


async def test_compressed_answer_is_refused_and_identity_was_asked_for(room: Room) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 10_000_000))
    url = room.server.put("/a", file(bomb, "content-encoding: gzip, gzip"))
    with pytest.raises(ResultLost, match="compressed"):
        await room.collect(url)
    head = room.server.heads[0].lower()
    assert "accept-encoding: identity\r\n" in head
    assert "authorization" not in head


async def test_slow_sender_is_given_up(room: Room) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            room.clock.advance(1)
            writer.write(b"x" * 500)
            await writer.drain()
            await asyncio.sleep(0.001)

    with pytest.raises(ResultLost, match="slower than 1000 bytes a second"):
        await room.collect(room.server.put("/a", slow))


async def test_sender_that_never_ends_is_cut_at_the_deadline(tmp_path: Path) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nx")
        await writer.drain()
        await asyncio.Event().wait()

    async with serving_files() as server:
        room = Room(tmp_path, server, total_seconds=0.2)
        with pytest.raises(ResultLost, match=r"within 0\.2 s"):
            await room.collect(server.put("/a", silent))
        await room.fetcher.aclose()
    assert await asyncio.to_thread(lambda: list((tmp_path / "drafts").iterdir())) == []


async def test_only_the_trusted_origin_is_dialled_without_the_guard(room: Room) -> None:
    url = room.server.put("/a.png", file(PNG))
    for trusted in ((), ("127.0.0.1:1",), ("127.0.0.1",), (".0.0.1",), ("localhost",)):
        with pytest.raises(ResultLost, match="not on the public internet"):
            await room.collect(url, trusted=trusted)
    assert room.server.requests == []


async def test_redirects_are_checked_and_counted(room: Room) -> None:
    room.server.put("/b", file(PNG))
    for n in range(5):
        room.server.put(f"/{n}", file(b"", f"location: /{n + 1}" if n < 4 else "location: /b", status="302 Found"))
    assert await room.content(await room.collect(room.server.url("/2"))) == PNG
    with pytest.raises(ResultLost, match="more than 3 times"):
        await room.collect(room.server.url("/1"), number=2)
    for location in (
        "http://169.254.169.254/x",
        "file:///etc/passwd",
        "http://a:b@127.0.0.1/",
        "//[::1]/",
        "http://[",
        "unix:/x",
    ):
        url = room.server.put("/away", file(b"", f"location: {location}", status="307 Moved"))
        with pytest.raises(ResultLost):
            await room.collect(url, number=2)


async def test_stranger_s_redirect_does_not_lead_back_to_the_trusted_origin(tmp_path: Path) -> None:
    async with serving_files() as inside, serving_files() as stranger:
        inside.put("/secret", file(PNG))
        url = stranger.put("/a", file(b"", f"location: {inside.url('/secret')}", status="302 Found"))
        clock = ManualClock(START)
        fetcher = Fetcher(Guard([stranger.host], allow_http=True), clock)
        collector = Collector(artifacts_in(tmp_path, clock), fetcher)
        with pytest.raises(ResultLost):
            await collector.collect(prediction(), attempt(), url, trusted_hosts=(), direct_hosts=(inside.host,))
        await fetcher.aclose()
    assert (stranger.requests, inside.requests) == (["/a"], [])


async def test_html_is_not_kept_as_html(room: Room) -> None:
    url = room.server.put("/page.html", file(b"<script>alert(1)</script>", "content-type: text/html"))
    link = await room.collect(url)
    opened = await room.artifacts.open(link.split("/")[-2])
    assert opened is not None
    assert opened.content_type == "application/octet-stream"


async def test_malformed_data_uri_is_lost_as_a_file_and_kept_as_a_text(room: Room) -> None:
    with pytest.raises(ResultLost, match="malformed"):
        await room.collect("data:image/png;base64,AA,AA")
    assert await room.collect(["data:image/png;base64,AA,AA"], file_output=False) == ["data:image/png;base64,AA,AA"]


async def test_one_lost_file_stops_the_others(room: Room) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    urls = [room.server.put(f"/{n}", silent) for n in range(5)] + [room.server.url("/none")]
    async with asyncio.timeout(5):
        with pytest.raises(ResultLost):
            await room.collect(urls)


async def test_files_on_their_way_are_bounded(tmp_path: Path) -> None:
    now = peak = 0

    async def counted(writer: asyncio.StreamWriter) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.005)
        now -= 1
        await file(PNG)(writer)

    async with serving_files() as server:
        room = Room(tmp_path, server, max_in_flight=3)
        links = await room.collect([server.put(f"/{n}.png", counted) for n in range(12)])
        await room.fetcher.aclose()
    assert len(set(links)) == 12
    assert peak == 3


async def test_a_vendors_name_that_leads_inside_is_not_followed(room: Room) -> None:
    """The vendor is trusted with its files, not with saying which of our machines we ask."""
    url = room.server.put("/a.png", file(PNG))
    with pytest.raises(ResultLost):
        await room.collect(url, trusted=(room.server.host,))
    assert room.server.requests == []
    assert (await room.collect(url)).startswith(PUBLIC)


@pytest.mark.parametrize(
    ("host", "url", "covered"),
    [
        ("replicate.delivery", "https://replicate.delivery/a", True),
        ("replicate.delivery", "https://x.replicate.delivery/a", False),
        ("replicate.delivery", "https://replicate.delivery:8443/a", False),
        (".replicate.delivery", "https://x.replicate.delivery/a", True),
        (".replicate.delivery", "https://xreplicate.delivery/a", False),
        ("cog.internal:5000", "http://Cog.Internal:5000/a", True),
        ("[::1]:9000", "http://[::1]:9000/a", True),
        ("[::1]", "http://[::1]/a", True),
    ],
)
def test_trusted_and_direct_hosts_mean_what_they_say(host: str, url: str, covered: bool) -> None:
    for trust, is_direct in ((Trust((host,)), False), (Trust((), (host,)), True)):
        if is_direct and host.startswith("."):
            continue
        assert trust.covers(url) is covered
        assert trust.covers("https://evil.example/" + host) is False
        assert trust.covers("https://[") is False
        assert bool(trust.direct) is is_direct
