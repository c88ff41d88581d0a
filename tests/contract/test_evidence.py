"""What the driver says left, against what a peer on a real socket really read. `NotSent` is a promise: not one byte."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.contract.errors import (
    Evidence,
    NotSent,
    OutcomeUnknown,
    PollFailed,
    PoolExhausted,
    ProviderFailure,
    SendWithheld,
)
from providers import _transport
from providers._driver import HttpDriver
from tests.unit.providers.echo_adapter import EchoAdapter, a_call

JOB = b'{"id": "j1", "status": "queued"}'
OK = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(JOB), JOB)

NOTHING, LEFT, BEGAN, WHOLE = Evidence


class Connection:
    """One connection as the peer has it. `read` is every byte that came, whatever it belongs to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read = b""
        self.came = asyncio.Event()  # the first byte
        self._whole = 0  # requests that were read to their end, which was at this byte:
        self._end = 0
        self._loop = asyncio.get_running_loop()

    @property
    def requests(self) -> int:
        """How many were read, if only a byte of the last one."""
        return self._whole + (len(self.read) > self._end)

    async def take(self, most: int = 65_536) -> bytes:
        piece = await self._loop.sock_recv(self.sock, most)
        self.read += piece
        self.came.set()
        return piece

    async def request(self) -> None:
        """Read on until one more request is whole."""
        while True:
            head, found, body = self.read[self._end :].partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if found and len(body) >= length:
                self._whole += 1
                self._end += len(head) + len(found) + length
                return
            if not await self.take():
                raise ConnectionError("the client has gone")

    async def send(self, piece: bytes) -> None:
        await self._loop.sock_sendall(self.sock, piece)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Connection], Awaitable[None]]


class Peer:
    """Plays `script` on each connection, and remembers what it read."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections: list[Connection] = []
        self.connected = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def read(self) -> bytes:
        return b"".join(connection.read for connection in self.connections)

    @property
    def requests(self) -> int:
        return sum(connection.requests for connection in self.connections)

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            task = asyncio.create_task(self._play(Connection(sock)))
            self._tasks.add(task)

    async def _play(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.connected.set()
        try:
            await self.script(connection)
        except OSError:
            pass
        finally:
            connection.sock.close()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def peer_of(script: Script, *, scheme: str = "http", **options: float) -> AsyncIterator[tuple[HttpDriver, Peer]]:
    peer = Peer(script)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)
        serving = asyncio.create_task(peer.serve(listener))
        base_url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        driver = HttpDriver("acme", EchoAdapter(), base_url=base_url, **options)
        try:
            yield driver, peer
        finally:
            await driver.aclose()
            serving.cancel()
            await peer.aclose()


# -- one fault after the other -----------------------------------------------------------------------------------------


async def reset_on_accept(peer: Connection) -> None:
    peer.reset()


async def close_on_accept(peer: Connection) -> None:
    pass


async def reset_after_the_head(peer: Connection) -> None:
    while b"\r\n\r\n" not in peer.read:
        await peer.take(1)
    peer.reset()


async def reset_after_the_body(peer: Connection) -> None:
    await peer.request()
    peer.reset()


async def close_after_the_request(peer: Connection) -> None:
    await peer.request()


async def close_half_way_through_the_answer(peer: Connection) -> None:
    await peer.request()
    await peer.send(OK[: -len(JOB) // 2])


async def garbage(peer: Connection) -> None:
    await peer.request()
    await peer.send(bytes(range(256)))


async def interim_answers_without_end(peer: Connection) -> None:
    await peer.request()
    while True:
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50)
        await asyncio.sleep(0.001)


async def stall(peer: Connection) -> None:
    await peer.request()
    await peer.take()


async def stall_in_the_answer(peer: Connection) -> None:
    await peer.request()
    await peer.send(OK[:-4])
    await peer.take()


FAULTS: tuple[tuple[Script, Evidence], ...] = (
    (reset_on_accept, LEFT),
    (close_on_accept, LEFT),
    (reset_after_the_head, LEFT),
    (reset_after_the_body, LEFT),
    (close_after_the_request, LEFT),
    (close_half_way_through_the_answer, BEGAN),
    (garbage, BEGAN),
    (interim_answers_without_end, LEFT),
    (stall, LEFT),
    (stall_in_the_answer, BEGAN),
)


@pytest.mark.parametrize(("script", "evidence"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
async def test_what_leaves_and_breaks_off_is_unknown_and_says_how_far_it_came(
    script: Script, evidence: Evidence
) -> None:
    async with peer_of(script, submit_seconds=0.3, poll_seconds=0.3) as (driver, peer):
        with pytest.raises(OutcomeUnknown) as caught:
            await driver.submit(a_call())
        assert caught.value.failure.evidence is evidence
        assert caught.value.failure.maybe_running
        assert len(peer.connections) == 1, "it was sent again"
        with pytest.raises(PollFailed) as failed:
            await driver.poll({"url": "/jobs/j1"})
        assert failed.value.failure.evidence is evidence
        assert len(peer.connections) == 2, "the poll was sent again"


async def test_a_whole_answer_that_refuses_is_no_unknown_and_says_that_it_was_whole() -> None:
    async def refuse(peer: Connection) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\nno")

    async with peer_of(refuse) as (driver, _):
        with pytest.raises(ProviderFailure) as caught:
            await driver.submit(a_call())
        assert not caught.value.failure.maybe_running
        assert caught.value.failure.evidence is WHOLE


# -- nothing left ------------------------------------------------------------------------------------------------------


async def test_who_refuses_the_connection_was_sent_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        driver = HttpDriver("acme", EchoAdapter(), base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(NotSent) as caught:
            await driver.submit(a_call())
        assert caught.value.failure.evidence is NOTHING
        await driver.aclose()


@pytest.mark.parametrize("seconds", [0.05, 0.4])  # our own deadline first, and the connector's
async def test_who_never_answers_the_handshake_was_sent_nothing(seconds: float) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the backlog is full: the next SYN stays without answer
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        base_url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        driver = HttpDriver("acme", EchoAdapter(), base_url=base_url, submit_seconds=seconds)
        with pytest.raises(NotSent) as caught:
            await driver.submit(a_call())
        assert caught.value.failure.evidence is NOTHING
        await driver.aclose()
        for filler in fillers:
            filler.close()


async def hang_in_the_handshake(peer: Connection) -> None:
    while await peer.take():
        pass


async def break_the_handshake(peer: Connection) -> None:
    await peer.take()
    await peer.send(b"HTTP/1.1 400 no TLS here\r\n\r\n")


@pytest.mark.parametrize("script", [hang_in_the_handshake, break_the_handshake, reset_on_accept, close_on_accept])
async def test_a_tls_handshake_that_fails_sends_nothing_of_the_request(script: Script) -> None:
    async with peer_of(script, scheme="https", submit_seconds=0.5) as (driver, peer):
        with pytest.raises(NotSent) as caught:
            await driver.submit(a_call())
        assert caught.value.failure.evidence is NOTHING
        assert b"POST" not in peer.read


async def test_a_certificate_nobody_vouches_for_ends_it_before_the_request(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_self_signed(tmp_path))
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    driver = HttpDriver("acme", EchoAdapter(), base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(NotSent) as caught:
        await driver.submit(a_call())
    assert caught.value.failure.evidence is NOTHING
    assert b"".join(read) == b""
    await driver.aclose()
    server.close()


async def test_who_waits_for_a_free_connection_until_its_time_is_over_has_sent_nothing() -> None:
    async with peer_of(stall, max_connections=1, submit_seconds=0.4) as (driver, peer):
        first = asyncio.create_task(driver.submit(a_call()))
        await peer.connected.wait()
        with pytest.raises(PoolExhausted) as caught:
            await driver.submit(a_call(deadline_seconds=0.1))
        assert caught.value.failure.evidence is NOTHING
        with pytest.raises(OutcomeUnknown):
            await first
        assert peer.read.count(b"POST") == 1


async def test_what_may_not_be_sent_any_more_when_the_connection_stands_is_not_sent() -> None:
    asked: list[int] = []

    async def answer(peer: Connection) -> None:
        await peer.request()
        await peer.send(OK)

    async with peer_of(answer) as (driver, peer):

        def may_send() -> bool:
            asked.append(len(peer.read))
            return False

        with pytest.raises(SendWithheld) as caught:
            await driver.submit(a_call(), may_send=may_send)
        assert caught.value.failure.evidence is NOTHING
        assert caught.value.failure.blame == "local"
        assert asked == [0], "asked once, and before anything had left"
        assert peer.read == b""
        await driver.submit(a_call(), may_send=lambda: True)
        assert peer.read.count(b"POST") == 1


# -- our own deadline --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_deadline_while_a_large_body_is_written_leaves_it_unknown() -> None:
    async def read_a_little(peer: Connection) -> None:
        await peer.take(1_000)
        await asyncio.Event().wait()

    async with peer_of(read_a_little, submit_seconds=0.3) as (driver, peer):
        with pytest.raises(OutcomeUnknown) as caught:
            await driver.submit(a_call(input={"image": "x" * 40_000_000}))
        assert caught.value.failure.evidence is LEFT
        assert peer.read != b""


async def test_a_submit_that_is_canceled_while_it_waits_is_sent_once() -> None:
    async with peer_of(stall) as (driver, peer):
        submit = asyncio.create_task(driver.submit(a_call()))
        await peer.connected.wait()
        await peer.connections[0].came.wait()
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        assert peer.read.count(b"POST") == 1


# -- all of it at random -----------------------------------------------------------------------------------------------


class Whim:
    """Breaks off after a random number of bytes, at a random moment, in a random way."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def __call__(self, peer: Connection) -> None:
        draw = self._random
        while draw.random() < 0.6:
            await peer.request()
            await peer.send(OK)
        await asyncio.sleep(draw.choice((0, 0, 0.0005, 0.002)))
        bytes_left = draw.choice((0, 1, 50, 150, 10_000))
        while bytes_left > 0 and (piece := await peer.take(bytes_left)):
            bytes_left -= len(piece)
        if draw.random() < 0.3:
            await peer.send(OK[: draw.randrange(len(OK))])
        if draw.random() < 0.5:
            peer.reset()


ROUNDS = 1_500


async def play(seed: int) -> Counter[str]:
    """Submits to a peer of whims; raises AssertionError when more of them came than are said to have left."""
    draw = random.Random(seed)
    said: Counter[str] = Counter()
    async with peer_of(Whim(seed)) as (driver, peer):
        for round in range(ROUNDS):
            seconds, body = draw.choice((0.0002, 0.001, 0.003, 0.05)), "x" * draw.choice((10, 10, 100_000))
            try:
                await driver.submit(a_call(input={"prompt": body}, deadline_seconds=seconds))
                outcome = "answered"
            except NotSent as error:
                outcome = "not sent" if error.evidence is NOTHING else "not sent, and it does not say so"
            except OutcomeUnknown as error:
                outcome = f"unknown, {error.evidence}"
            said[outcome] += 1
            left = said.total() - said["not sent"]
            assert peer.requests <= left, f"round {round}: {peer.requests} came, and {left} are said to have left"
            await asyncio.sleep(draw.choice((0, 0, 0.0005, 0.002)))
        print(f"\nseed {seed}, {ROUNDS} submits, {peer.requests} came: {dict(sorted(said.items()))}")
    return said


async def test_not_sent_is_never_said_where_the_peer_read_a_byte_of_it() -> None:
    """Kept connections that close as they are used again, and deadlines that pass at any moment, are all in it."""
    said = await play(4)
    assert not said["not sent, and it does not say so"]
    assert said["not sent"] > 20, said
    assert said[f"unknown, {LEFT}"] > 100, said
    assert said[f"unknown, {BEGAN}"] > 5, said
    assert said["answered"] > 100, said


async def test_who_calls_a_broken_connection_not_sent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: nobody notes that bytes leave, and so a ReadError counts as a ConnectError."""

    async def look_away(*_: object) -> None:
        return None

    monkeypatch.setattr(_transport, "_note_leaving", look_away)
    with pytest.raises(AssertionError, match="are said to have left"):
        await play(4)


def _self_signed(folder: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(folder / "certificate.pem"), str(folder / "key.pem")
