"""The local backend as a real child process: started, killed, hung, starved, left behind, and lied to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract.clock import SystemClock
from gateway.contract.observer import Observer
from local_backend.supervisor import LocalBackend, Timing
from tests.unit.local_backend.making import (
    COUNT,
    FILL,
    counting,
    data_uri,
    encoded,
    filling,
    opened,
    package,
    picture,
    tensor_package,
)

IMPATIENT = Timing(probe_every_seconds=0.1, probe_seconds=0.5, first_delay_seconds=0.05, stop_seconds=3)
UPSCALE = "/v1/models/turnout/upscaler/predictions"


class Listener(Observer):
    """Hears what the supervisor says, and lets a test wait for it."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self._news = asyncio.Event()

    def local_backend_changed(self, state: str) -> None:
        self.states.append(state)
        self._news.set()

    async def until(self, *states: str) -> None:
        """Until the last states heard are these."""
        while self.states[-len(states) :] != list(states):
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 15)


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """start(**settings): a LocalBackend that is ready, its listener, and a client for it."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(*, timing: Timing = IMPATIENT, **settings: Any) -> tuple[LocalBackend, Listener, Any]:
            listener = Listener()
            backend = LocalBackend(clock=SystemClock(), observer=listener, timing=timing, device="cpu", **settings)
            stack.push_async_callback(backend.aclose)
            await backend.start()
            assert await backend.wait_ready(15)
            client = await stack.enter_async_context(_client(backend.address))
            return backend, listener, client

        yield begin


def _client(address: str) -> httpx.AsyncClient:
    if address.startswith("unix:"):
        transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix:"))
        return httpx.AsyncClient(transport=transport, base_url="http://local", timeout=15)
    return httpx.AsyncClient(base_url=address, timeout=15)


async def _upscales(client: httpx.AsyncClient) -> None:
    body = {"input": {"image": data_uri(encoded(picture(20, 10))), "scale": 4}}
    answer = await client.post(UPSCALE, json=body, headers={"prefer": "wait"})
    assert answer.json()["status"] == "succeeded"
    assert opened(answer.json()["output"]).size == (80, 40)


async def _running(client: httpx.AsyncClient) -> None:
    while (await client.get("/health")).json()["running"] == 0:  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(0)


async def _gone(pid: int) -> bool:
    """Whether a process that is not our child ended within ten seconds."""
    for _ in range(200):
        try:
            state = await asyncio.to_thread(Path(f"/proc/{pid}/stat").read_text)
        except OSError:
            return True
        if state.rpartition(")")[2].split()[0] == "Z":
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize("listen", ["", "tcp://127.0.0.1:0"])
async def test_starting_returns_at_once_and_the_child_serves_when_it_is_ready(listen: str) -> None:
    backend = LocalBackend(clock=SystemClock(), listen=listen, device="cpu", timing=IMPATIENT)
    try:
        assert (backend.is_ready, backend.state, backend.device) == (False, "stopped", None)
        await backend.start()
        assert not backend.is_ready
        assert await backend.wait_ready(15)
        assert (backend.state, backend.device) == ("ready", "cpu")
        async with _client(backend.address) as client:
            await _upscales(client)
    finally:
        pid, folder = backend.pid, backend._folder
        await backend.aclose()
    assert pid is not None
    assert await _gone(pid)
    assert not folder.exists()
    assert (backend.is_ready, backend.state) == (False, "stopped")


@pytest.mark.parametrize("listen", ["", "tcp://127.0.0.1:0"])
async def test_a_child_that_is_killed_comes_back_at_the_same_address(listen: str, start: Start) -> None:
    backend, listener, client = await start(listen=listen)
    address = backend.address
    await _upscales(client)
    first = backend.pid
    os.kill(first, signal.SIGKILL)
    await listener.until("ready", "crashed", "starting", "ready")
    assert backend.address == address
    assert backend.pid != first
    async with _client(address) as fresh:
        await _upscales(fresh)


async def test_a_terminals_interrupt_does_not_reach_the_child(start: Start) -> None:
    backend, _, _ = await start()
    assert os.getpgid(backend.pid) == backend.pid != os.getpgid(0)


async def test_a_killed_child_costs_the_request_that_was_running_and_no_more(tmp_path: Path, start: Start) -> None:
    folder = package(tmp_path / "count", COUNT, {"model.onnx": counting()})
    backend, listener, client = await start(packages=[folder])
    path = "/v1/models/test/count/predictions"
    running = asyncio.ensure_future(client.post(path, json={"input": {"n": 10**12}}, headers={"prefer": "wait"}))
    await _running(client)
    os.kill(backend.pid, signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        await running
    await listener.until("ready", "crashed", "starting", "ready")
    async with _client(backend.address) as fresh:
        answer = await fresh.post(path, json={"input": {"n": 3}}, headers={"prefer": "wait"})
        assert answer.json()["output"] == {"y": 3.0}


async def test_a_child_that_hangs_is_ended_and_started_again(start: Start) -> None:
    backend, listener, _ = await start()
    first = backend.pid
    os.kill(first, signal.SIGSTOP)
    await listener.until("ready", "hung", "starting", "ready")
    assert backend.pid != first
    async with _client(backend.address) as fresh:
        await _upscales(fresh)


async def test_a_long_run_is_stopped_inside_the_graph_and_the_next_one_begins(tmp_path: Path, start: Start) -> None:
    folder = package(tmp_path / "count", COUNT, {"model.onnx": counting()})
    _, _, client = await start(packages=[folder])
    path = "/v1/models/test/count/predictions"
    endless = (await client.post(path, json={"input": {"n": 10**12}})).json()["id"]
    await _running(client)
    assert (await client.post(f"/v1/predictions/{endless}/cancel")).json()["status"] == "canceled"
    answer = await client.post(path, json={"input": {"n": 5}}, headers={"prefer": "wait"})
    assert answer.json()["output"] == {"y": 5.0}
    late = await client.post(path, json={"input": {"n": 10**12}}, headers={"prefer": "wait", "cancel-after": "1s"})
    assert late.json()["status"] == "canceled"


async def test_a_graph_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path, start: Start) -> None:
    folder = package(tmp_path / "fill", FILL, {"model.onnx": filling()})
    _, listener, client = await start(packages=[folder], memory_bytes=4 * 2**30)
    path = "/v1/models/test/fill/predictions"
    greedy = await client.post(path, json={"input": {"shape": [4 * 2**30]}}, headers={"prefer": "wait"})
    assert greedy.json()["status"] == "failed"
    modest = await client.post(path, json={"input": {"shape": [1_000]}}, headers={"prefer": "wait"})
    assert modest.json()["output"] == {"y": 1_000.0}
    assert listener.states == ["starting", "ready"]


async def test_the_child_has_no_secrets_an_empty_folder_and_a_private_socket(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_very_secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/evil")
    backend, _, _ = await start()
    environment = await asyncio.to_thread(Path(f"/proc/{backend.pid}/environ").read_bytes)
    names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    allowed = {"PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LANG", "LC_ALL", "TMPDIR"}
    assert names <= allowed | {"PYTHONPATH", "PYTHONSAFEPATH", "ORT_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM"}
    assert b"r8_very_secret" not in environment
    folder = await asyncio.to_thread(os.readlink, f"/proc/{backend.pid}/cwd")
    # The verified copies, and nothing that a library wrote: ONNX Runtime would keep its telemetry's identifier here.
    assert [name.partition("-")[0] for name in os.listdir(folder)] == ["turnout"]
    socket_path = backend.address.removeprefix("unix:")
    assert os.stat(socket_path).st_mode & 0o077 == 0
    assert os.stat(os.path.dirname(socket_path)).st_mode & 0o077 == 0


async def test_the_child_dies_with_a_gateway_that_was_killed_and_tidies_up() -> None:
    program = textwrap.dedent("""
        import asyncio
        from gateway.contract.clock import SystemClock
        from local_backend.supervisor import LocalBackend

        async def main():
            backend = LocalBackend(clock=SystemClock(), device="cpu")
            await backend.start()
            assert await backend.wait_ready(15)
            print(backend.pid, backend._folder, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """)
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    try:
        assert gateway.stdout is not None
        pid, folder = (await gateway.stdout.readline()).decode().split()
        os.kill(int(pid), 0)  # it lives
    finally:
        gateway.kill()
        await gateway.wait()
    assert await _gone(int(pid))
    assert not await asyncio.to_thread(os.path.exists, folder)


async def test_a_package_that_lies_is_named_and_the_child_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tensor_package(tmp_path / "pack")
    content = bytearray((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").write_bytes(bytes([content[0] ^ 1]) + content[1:])
    listener = Listener()
    caplog.set_level(logging.INFO, "turnout.local")
    backend = LocalBackend(clock=SystemClock(), packages=[folder], device="cpu", observer=listener, timing=IMPATIENT)
    try:
        await backend.start()
        await listener.until("starting", "crashed", "starting")
        assert not backend.is_ready
        assert f"{folder}/model.onnx: its content is not what" in caplog.text
        assert "exit code 2" in caplog.text
        (folder / "model.onnx").write_bytes(content)  # mended: the next start finds it so
        assert await backend.wait_ready(15)
    finally:
        await backend.aclose()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "tcp://0.0.0.0:0"], "--token-file"),
        (["--listen", "nonsense"], "is no address"),
        (["--packages", "/nowhere"], "cannot be read"),
        (["--listen", "tcp://0.0.0.0:0", "--token-file", "/nowhere"], "cannot be read"),
    ],
)
def test_wrong_arguments_end_with_one_line_and_two(arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local_backend", "--device", "cpu", *arguments],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


async def test_standard_output_is_one_line(start: Start) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local_backend", "--device", "auto"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 15)
    assert b'"address": "http://127.0.0.1:' in line
    process.terminate()
    assert await asyncio.wait_for(process.stdout.read(), 10) == b""
    assert await process.wait() == 0


async def test_many_requests_at_once_over_the_socket_all_end(start: Start) -> None:
    _, _, client = await start(max_queue=64)
    await asyncio.gather(*(_upscales(client) for _ in range(40)))
    assert (await client.get("/health")).json()["queue"] == 0
