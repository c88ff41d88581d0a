"""The driver over real sockets: peers that refuse, break off, crawl, lie and flood. No mock stands between."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.errors import NotSent, OutcomeUnknown, PollFailed, PoolExhausted, ProviderFailure
from gateway.contract.fact import Fact, Phase
from providers import _line
from providers._driver import HttpDriver
from tests.unit.providers.echo_adapter import EchoAdapter, a_call

JOB = b'{"id": "j1", "status": "queued"}'
OK = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(JOB), JOB)

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        """One whole request; raises IncompleteReadError when the client has gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        return head + await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Upstream:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.all_gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        read = peer.request

        async def request() -> bytes:
            found = await read()
            self.requests.append(found)
            return found

        peer.request = request  # type: ignore[method-assign]
        self.connections += 1
        self.open += 1
        self.all_gone.clear()
        try:
            await self.script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.all_gone.set()


@asynccontextmanager
async def upstream(
    script: Script, *, adapter: EchoAdapter | None = None, **options: Any
) -> AsyncIterator[tuple[HttpDriver, Upstream]]:
    served = Upstream(script)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    driver = HttpDriver("acme", adapter or EchoAdapter(), base_url=f"http://127.0.0.1:{port}/v1", **options)
    try:
        yield driver, served
    finally:
        await driver.aclose()
        server.close()


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


# -- nothing was sent ------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        driver = HttpDriver("acme", EchoAdapter(), base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(NotSent, match=r"^it could not be reached \(ConnectError: Connection refused\)$"):
            await driver.submit(a_call())
        with pytest.raises(PollFailed):
            await driver.poll({"url": "/jobs/j1"})
        await driver.aclose()


async def test_a_connection_that_is_never_answered_is_not_sent() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        place = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the backlog is full: the next SYN stays without answer
            filler.setblocking(False)
            filler.connect_ex(place)
        driver = HttpDriver("acme", EchoAdapter(), base_url=f"http://127.0.0.1:{place[1]}", submit_seconds=0.6)
        with pytest.raises(NotSent, match="ConnectTimeout"):
            await driver.submit(a_call())
        await driver.aclose()
        for filler in fillers:
            filler.close()


async def test_a_missing_socket_file_is_not_sent() -> None:
    driver = HttpDriver("local", EchoAdapter(), base_url="unix:/nonexistent/model.sock")
    with pytest.raises(NotSent):
        await driver.submit(a_call())
    await driver.aclose()


async def test_a_tls_handshake_that_fails_is_not_sent() -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 no TLS here\r\n\r\n")

    async with upstream(plain) as (driver, served):
        port = driver.trusted_hosts[0].rpartition(":")[2]
        tls = HttpDriver("acme", EchoAdapter(), base_url=f"https://127.0.0.1:{port}")
        with pytest.raises(NotSent):
            await tls.submit(a_call())
        await tls.aclose()
        assert served.requests == []


async def test_with_all_connections_in_use_nothing_is_sent_and_the_provider_is_not_to_blame() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        taken.set()
        await peer.request()

    taken = asyncio.Event()
    async with upstream(silent, max_connections=1, submit_seconds=0.3) as (driver, served):
        first = asyncio.ensure_future(driver.submit(a_call()))
        await taken.wait()
        with pytest.raises(PoolExhausted) as caught:
            await driver.submit(a_call(deadline_seconds=0.2))
        assert caught.value.failure.blame == "local"
        with pytest.raises(OutcomeUnknown):
            await first
        assert len(served.requests) == 1


# -- sent, and no valid answer ---------------------------------------------------------------------------------------


async def reset_at_once(peer: Peer) -> None:
    await peer.reader.read(1)
    peer.reset()


async def reset_after_the_request(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def close_without_answer(peer: Peer) -> None:
    await peer.request()


async def close_in_the_head(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK[:30])


async def close_in_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK[:-5])


async def reset_in_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK[:-5])
    await asyncio.sleep(0.05)  # let the head arrive on its own
    peer.reset()


async def close_in_a_chunk(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(JOB), JOB))


async def garbage(peer: Peer) -> None:
    await peer.request()
    await peer.send(bytes(range(256)) * 40)


async def an_answer_of_another_protocol(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n")


async def chunks_with_a_wrong_size(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", JOB)


async def silence(peer: Peer) -> None:
    await peer.request()
    await peer.request()


async def a_crawling_head(peer: Peer) -> None:
    await peer.request()
    for byte in OK:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.1)


async def a_crawling_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK[: -len(JOB)])
    for byte in JOB:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.1)


async def interim_answers_without_end(peer: Peer) -> None:
    await peer.request()
    while True:
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100)
        await asyncio.sleep(0)


async def headers_without_end(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\n")
    while True:
        await peer.send(b"x-flood: yes\r\n" * 100)


async def one_header_without_end(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\nx-flood: ")
    while True:
        await peer.send(b"y" * 10_000)


async def a_body_without_end(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\n\r\n")
    while True:
        await peer.send(b" " * 65_536)


async def a_length_that_is_a_lie(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\ncontent-length: 99999999999999999999\r\n\r\n")
    while True:
        await peer.send(b" " * 65_536)


async def a_gzip_bomb(peer: Peer) -> None:
    await peer.request()
    bomb = gzip.decompress(BOMB)
    await peer.send(b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb), bomb)


async def a_coding_nobody_asked_for(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 201 Created\r\ncontent-encoding: br\r\ncontent-length: 3\r\n\r\n\x0b\x02\x80")


async def a_switch_of_protocols(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")


BOMB = gzip.compress(gzip.compress(bytes(400_000_000), 9), 9)
BREAKING = (
    reset_at_once,
    reset_after_the_request,
    close_without_answer,
    close_in_the_head,
    close_in_the_body,
    reset_in_the_body,
    close_in_a_chunk,
    garbage,
    an_answer_of_another_protocol,
    chunks_with_a_wrong_size,
    silence,
    a_crawling_head,
    a_crawling_body,
    interim_answers_without_end,
    headers_without_end,
    one_header_without_end,
    a_body_without_end,
    a_length_that_is_a_lie,
    a_gzip_bomb,
    a_coding_nobody_asked_for,
    a_switch_of_protocols,
)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("script", BREAKING, ids=lambda script: script.__name__)
async def test_a_sent_submit_without_valid_answer_is_unknown_bounded_sent_once_and_let_go(
    script: Script, method: str
) -> None:
    adapter = EchoAdapter(method=method)
    async with upstream(script, adapter=adapter, submit_seconds=0.5, max_answer_bytes=1_000_000) as (driver, served):
        tracemalloc.start()
        started = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown) as caught:
            await driver.submit(a_call())
        seconds = asyncio.get_running_loop().time() - started
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await served.all_gone.wait()
    assert served.connections == 1
    assert len(served.requests) == (script is not reset_at_once)
    assert caught.value.failure.maybe_running
    assert seconds < 5
    assert peak < 20_000_000


@pytest.mark.parametrize("script", BREAKING, ids=lambda script: script.__name__)
async def test_a_poll_or_cancel_without_valid_answer_leaves_the_job_alone(script: Script) -> None:
    async with upstream(script, poll_seconds=0.3, max_answer_bytes=1_000_000) as (driver, served):
        with pytest.raises(PollFailed):
            await driver.poll({"url": "/jobs/j1"})
        if script is not a_switch_of_protocols:  # for this adapter any answer to a cancel is one
            with pytest.raises(PollFailed):
                await driver.cancel({"url": "/jobs/j1/cancel"})
        await served.all_gone.wait()
    assert served.connections <= 2


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
async def test_a_submit_that_meets_a_closing_connection_is_unknown_and_never_repeated(method: str) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()  # and gone

    async with upstream(once, adapter=EchoAdapter(method=method)) as (driver, served):
        await driver.submit(a_call())
        with pytest.raises(OutcomeUnknown):
            await driver.submit(a_call())
    assert (served.connections, len(served.requests)) == (1, 2)


async def test_an_idle_connection_is_closed_before_a_submit_can_meet_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _line.SUBMIT_KEEP_ALIVE_SECONDS < 5, "what servers keep at the least: Node's and uvicorn's"
    monkeypatch.setattr(_line, "SUBMIT_KEEP_ALIVE_SECONDS", 0.05)
    async with upstream(answering) as (driver, served):
        await driver.submit(a_call())
        async with asyncio.timeout(5):
            await served.all_gone.wait()
        await driver.submit(a_call())
    assert (served.connections, len(served.requests)) == (2, 2)


# -- valid answers ---------------------------------------------------------------------------------------------------


async def test_connections_are_used_again_and_closed_by_the_peer_without_harm() -> None:
    async def twice_then_close(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(OK)

    async with upstream(twice_then_close) as (driver, served):
        for _ in range(4):
            assert (await driver.submit(a_call())).handle == {"id": "j1"}
            await asyncio.sleep(0.01)  # time for a FIN
    assert (served.connections, len(served.requests)) == (2, 4)


@pytest.mark.parametrize("pieces", [[OK], [bytes([byte]) for byte in OK], [b"HTTP/1.1 100 Continue\r\n\r\n" * 3, OK]])
async def test_an_answer_in_any_pieces_is_read(pieces: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    async with upstream(script) as (driver, _):
        assert (await driver.submit(a_call())).handle == {"id": "j1"}


async def test_a_gzipped_answer_is_read_though_none_was_asked_for() -> None:
    async def script(peer: Peer) -> None:
        body = gzip.compress(JOB)
        assert b"accept-encoding: identity\r\n" in (await peer.request()).lower()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )

    async with upstream(script) as (driver, _):
        assert (await driver.submit(a_call())).handle == {"id": "j1"}


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with upstream(answering) as (driver, _):
        assert (await driver.submit(a_call())).phase is Phase.QUEUED


@pytest.mark.parametrize("path", ["/jobs/arn%3Aaws%2Fx?q=%3A%7E&e=%C3%A9", "/m/@cf/a+b/c:0~d", "/a//b/%2e%2e/c%20d"])
async def test_a_path_is_sent_as_it_is_written(path: str) -> None:
    """A signature was made over it; and an encoded slash or dot is no slash or dot."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with upstream(script) as (driver, served):
        await driver.poll({"url": path})
    assert served.requests[0].split()[1].decode() == f"/v1{path}"


async def test_a_unix_socket_is_spoken_to() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for the 107 bytes of a socket's path
        path = Path(folder) / "model.sock"
        served = Upstream(answering)
        server = await asyncio.start_unix_server(served.serve, path)
        driver = HttpDriver("local", EchoAdapter(), base_url=f"unix:{path}:/v1", credentials={"token": "t" * 20})
        assert (await driver.submit(a_call())).handle == {"id": "j1"}
        assert (await driver.poll({"url": "/jobs/j1"})).handle == {"id": "j1"}
        await driver.aclose()
        server.close()
    assert served.requests[0].startswith(b"POST /v1/jobs HTTP/1.1\r\n")
    assert b"Authorization: Bearer tttttttttttttttttttt\r\n".lower() in served.requests[0].lower()


async def test_held_submits_do_not_keep_a_poll_from_being_sent() -> None:
    async def hold_posts(peer: Peer) -> None:
        if (await peer.request()).startswith(b"POST"):
            arrived.release()
            await peer.request()
        await peer.send(OK)

    arrived, adapter = asyncio.Semaphore(0), EchoAdapter(holds_until_end=True)
    async with upstream(hold_posts, adapter=adapter, max_connections=2, poll_seconds=5) as (driver, served):
        held = [asyncio.ensure_future(driver.submit(a_call())) for _ in range(2)]
        for _ in held:
            await arrived.acquire()
        assert (await driver.poll({"url": "/jobs/j1"})).phase is Phase.QUEUED
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await served.all_gone.wait()  # a cancelled submit has hung up: that is what stops a synchronous provider


async def test_a_stream_over_a_socket_tells_words_before_it_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", b"data: \xe2\x82")
        await peer.send(b"\xac\r", b"\n\r\n")
        await told.wait()
        await peer.send(b"event: done\ndata: {}\n\n")
        await peer.request()  # keeps the connection: the end is the event, not the close

    async def on_fact(fact: Fact) -> None:
        assert fact.output == ["€"]
        told.set()

    told = asyncio.Event()
    async with upstream(script, adapter=EchoAdapter(expects_stream=True)) as (driver, served):
        fact = await driver.submit(a_call(), on_fact=on_fact)
        assert (fact.phase, fact.output) == (Phase.SUCCEEDED, ["€"])
        await served.all_gone.wait()


async def test_hundreds_of_breaking_submits_leave_no_connection_and_no_task_behind() -> None:
    scripts = [reset_after_the_request, close_in_the_body, silence, garbage, answering]

    async def script(peer: Peer) -> None:
        await scripts[served.connections % len(scripts)](peer)

    async with upstream(script, submit_seconds=0.3, max_connections=50) as (driver, served):
        before = len(asyncio.all_tasks())
        results = await asyncio.gather(*(driver.submit(a_call()) for _ in range(300)), return_exceptions=True)
        assert all(isinstance(result, Fact | ProviderFailure) for result in results)
        assert {type(result) for result in results} <= {Fact, OutcomeUnknown, PoolExhausted, NotSent}
        await driver.aclose()
        await served.all_gone.wait()
        assert len(asyncio.all_tasks()) <= before
