"""The Cog adapter and the driver against a real Cog server (coglet, from PyPI's `cog`), without Docker."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract.clock import RandomIds
from gateway.contract.errors import AtCapacity, CallbackForged, InputRefused, ModelMissing
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Call, Cancellation
from providers._driver import HttpDriver
from providers.cog import Cog

MODEL = Path(__file__).parent / "cog_model"
WEBHOOK_SECRET = "sesame-for-tests"
READY_SECONDS = 15


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server that is ready. Its schema lies where `cog build` would have put it."""
    folder = tmp_path_factory.mktemp("cog") / "model"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # it starts its worker by name
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "model.py:Runner",
        "WEBHOOK_AUTH_TOKEN": WEBHOOK_SECRET,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its worker with it
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until and process.poll() is None:
            try:
                if client.get(f"{url}/health-check").json()["status"] == "READY":
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    pytest.fail(f"the Cog server did not get ready: {log.read_text()[-2000:]}")


@pytest.fixture
async def idle(server: str) -> AsyncIterator[str]:
    """The same, with its one slot free before and after: what one test breaks off must not meet the next."""
    await until_idle(server)
    yield server
    await until_idle(server)


async def until_idle(url: str) -> None:
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{url}/health-check")).json()["status"] != "READY":
            pass


@asynccontextmanager
async def driving(url: str, **options: Any) -> AsyncIterator[HttpDriver]:
    driver = HttpDriver("cog", Cog(options=options), base_url=url, callback_secrets=(WEBHOOK_SECRET,))
    try:
        yield driver
    finally:
        await driver.aclose()


def call(*, text: str = "one heron", **fields: Any) -> Call:
    input = {"text": text} | fields.pop("input", {})
    return Call(
        **{
            "prediction": "p",
            "attempt": 1,
            "name": "cog",
            "version": None,
            "input": input,
            "idempotency_id": RandomIds().prediction(),
            "callback_url": None,
            "deadline_seconds": 15.0,
        }
        | fields
    )


class Meeting:
    """Where predictions wait until they are let go: says that one is running, and whether it still is."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Guest] = asyncio.Queue()
        self.count = 0
        self.input: dict[str, Any] = {}  # what makes a prediction come here

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Meeting]:
        meeting = cls()
        server = await asyncio.start_server(meeting._arrive, "127.0.0.1", 0)
        meeting.input = {"mode": "meet", "port": server.sockets[0].getsockname()[1]}
        try:
            yield meeting
        finally:
            server.close()

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        await self.arrived.put(Guest(reader, writer))

    async def one(self) -> Guest:
        return await asyncio.wait_for(self.arrived.get(), 10)


class Guest:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def let_go(self) -> None:
        self._writer.write(b".")
        self._writer.close()

    async def left(self) -> bool:
        """The prediction was interrupted: it hung up by itself."""
        gone = await asyncio.wait_for(self._reader.read(), 10) == b""
        self._writer.close()
        return gone


# -- held ------------------------------------------------------------------------------------------------------------


async def test_a_held_submit_ends_with_the_output_the_logs_and_the_time_it_took(idle: str) -> None:
    async with driving(idle) as driver:
        sent = call(text="one heron")
        fact = await driver.submit(sent)
    assert fact.phase is Phase.SUCCEEDED
    assert fact.output == ["ONE", "HERON"]
    assert fact.logs == "asked for one heron\n"
    assert fact.metrics["words"] == 2
    assert fact.metrics["predict_time"] > 0
    assert fact.handle == {"id": sent.idempotency_id}


async def test_a_model_that_raises_is_a_failed_job_and_not_a_failed_request(idle: str) -> None:
    async with driving(idle) as driver:
        fact = await driver.submit(call(input={"mode": "raise"}))
    assert fact.phase is Phase.FAILED
    assert fact.failure is not None
    assert fact.failure.code == "model_failed"
    assert fact.failure.message.endswith("ValueError: CUDA out of memory (pretended)")
    assert not fact.failure.message.startswith("Prediction failed")


@pytest.mark.parametrize(
    ("input", "words"),
    [
        ({"port": 70_000}, "input.port: 70000 is greater"),
        ({"mode": "sing"}, "input.mode: "),
        ({"text": 5}, "input.text:"),
    ],
)
async def test_bad_input_is_refused_with_the_place_and_the_reason(idle: str, input: dict[str, Any], words: str) -> None:
    async with driving(idle) as driver:
        with pytest.raises(InputRefused, match=words):
            await driver.submit(call(input=input))


async def test_input_the_model_does_not_know_is_dropped_as_replicate_does(idle: str) -> None:
    async with driving(idle) as driver:
        assert (await driver.submit(call(input={"seed": 7}))).phase is Phase.SUCCEEDED


async def test_a_repeated_submit_joins_the_run_and_another_finds_no_slot(idle: str) -> None:
    async with driving(idle) as driver, Meeting.open() as meeting:
        sent = call(input=meeting.input)
        first = asyncio.create_task(driver.submit(sent))
        guest = await meeting.one()
        joined = await driver.submit(sent)
        assert joined.phase is Phase.RUNNING
        assert joined.handle == {"id": sent.idempotency_id}
        with pytest.raises(AtCapacity, match="slots"):
            await driver.submit(call())
        guest.let_go()
        assert (await first).phase is Phase.SUCCEEDED
        assert meeting.count == 1


async def test_a_cancel_stops_the_model_and_the_held_submit_says_so(idle: str) -> None:
    async with driving(idle) as driver, Meeting.open() as meeting:
        sent = call(input=meeting.input)
        held = asyncio.create_task(driver.submit(sent))
        guest = await meeting.one()
        handle = {"id": sent.idempotency_id}
        assert await driver.cancel(handle) is Cancellation.REQUESTED
        fact = await held
        assert fact.phase is Phase.CANCELED
        assert fact.failure is None
        assert await guest.left()
        assert await driver.cancel(handle) is Cancellation.TOO_LATE


async def test_hanging_up_stops_the_model(idle: str) -> None:
    async with driving(idle) as driver, Meeting.open() as meeting:
        held = asyncio.create_task(driver.submit(call(input=meeting.input)))
        guest = await meeting.one()
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert await guest.left()


async def test_a_wrong_address_is_a_model_that_is_not_there(idle: str) -> None:
    async with driving(f"{idle}/v1") as driver:
        with pytest.raises(ModelMissing):
            await driver.submit(call())


# -- streamed --------------------------------------------------------------------------------------------------------


async def test_a_stream_tells_the_words_as_they_come_and_ends_as_the_held_answer_does(idle: str) -> None:
    facts: list[Fact] = []

    async def keep(fact: Fact) -> None:
        facts.append(fact)

    async with driving(idle, stream=True) as driver:
        fact = await driver.submit(call(text="a b c", stream=True), on_fact=keep)
    assert fact.phase is Phase.SUCCEEDED
    assert fact.output == ["A", "B", "C"]
    assert fact.metrics["words"] == 3
    grown = [seen.output or [] for seen in facts]
    assert all(seen == ["A", "B", "C"][: len(seen)] for seen in grown)
    assert [len(seen) for seen in grown] == sorted(len(seen) for seen in grown)


async def test_a_repeated_submit_joins_a_stream_from_its_beginning(idle: str) -> None:
    joined = asyncio.Event()

    async def note(fact: Fact) -> None:
        joined.set()

    async with driving(idle, stream=True) as driver, Meeting.open() as meeting:
        sent = call(text="a b", input=meeting.input, stream=True)
        first = asyncio.create_task(driver.submit(sent))
        guest = await meeting.one()
        second = asyncio.create_task(driver.submit(sent, on_fact=note))
        await asyncio.wait_for(joined.wait(), 10)
        guest.let_go()
        assert (await first).output == (await second).output == ["A", "B"]
        assert meeting.count == 1


# -- in the background, with callbacks -------------------------------------------------------------------------------


class Callbacks:
    """A receiver of callbacks: keeps each as it came, and answers 200."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[str, dict[str, str], bytes]] = asyncio.Queue()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._receive, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/cb/token"
        finally:
            server.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await self.received.put((head[0], headers, body))

    async def one(self) -> tuple[str, dict[str, str], bytes]:
        return await asyncio.wait_for(self.received.get(), 10)


@pytest.mark.parametrize(("input", "end"), [({}, Phase.SUCCEEDED), ({"mode": "raise"}, Phase.FAILED)])
async def test_a_job_in_the_background_ends_by_callback(idle: str, input: dict[str, Any], end: Phase) -> None:
    callbacks = Callbacks()
    async with driving(idle, callbacks=True) as driver, callbacks.open() as url:
        sent = call(input=input, callback_url=url)
        accepted = await driver.submit(sent)
        assert accepted.phase is Phase.QUEUED
        facts = []
        while not facts or not facts[-1].phase.is_end:
            line, headers, body = await callbacks.one()
            assert line.startswith("POST /cb/token ")
            fact = (await driver.read_callback(headers, body, now=datetime.now(UTC))).fact
            assert fact is not None
            assert fact.handle == accepted.handle == {"id": sent.idempotency_id}
            facts.append(fact)
            with pytest.raises(CallbackForged):
                await driver.read_callback(headers | {"authorization": "Bearer guess"}, body, now=datetime.now(UTC))
    # Cog waits for no answer to what it tells before the end: any of that may come too late, or not at all.
    assert {fact.phase for fact in facts[:-1]} <= {Phase.RUNNING}
    assert facts[-1].phase is end
    assert facts[-1].output == (["ONE", "HERON"] if end is Phase.SUCCEEDED else None)


async def test_a_job_in_the_background_is_canceled_and_calls_back_about_it(idle: str) -> None:
    callbacks = Callbacks()
    async with driving(idle, callbacks=True) as driver, callbacks.open() as url, Meeting.open() as meeting:
        accepted = await driver.submit(call(input=meeting.input, callback_url=url))
        guest = await meeting.one()
        assert accepted.handle is not None
        assert await driver.cancel(accepted.handle) is Cancellation.REQUESTED
        phases = []
        while Phase.CANCELED not in phases:
            _, headers, body = await callbacks.one()
            fact = (await driver.read_callback(headers, body, now=datetime.now(UTC))).fact
            assert fact is not None
            phases.append(fact.phase)
        assert await guest.left()
