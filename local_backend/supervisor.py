"""Starts the model server, watches it and starts it again: the gateway's end of the child process. Routes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import local_backend
from gateway.contract.clock import Clock
from gateway.contract.errors import ConfigurationError
from gateway.contract.observer import Observer
from local_backend.address import MAX_SOCKET_PATH, Address, bind, read_address
from local_backend.package import BUNDLED
from local_backend.probe import probe

_log = logging.getLogger("turnout.local")

# All that the child is told of our environment: what finds programs and CUDA, and nothing that may be a secret.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LANG", "LC_ALL")
_LINE_BYTES = 4_096


class Timing(msgspec.Struct, kw_only=True, frozen=True):
    """How patient the supervisor is. Seconds."""

    start_seconds: float = 120.0  # until the child must be ready
    probe_every_seconds: float = 2.0
    probe_seconds: float = 5.0  # until one probe must be answered
    probes: int = 2  # that must fail in a row before the child counts as hung
    stop_seconds: float = 5.0  # between asking it to end and ending it
    first_delay_seconds: float = 0.2
    most_delay_seconds: float = 30.0
    stable_seconds: float = 60.0  # who lived so long begins anew with the first delay


class Backoff:
    """Delays between starts: each twice the last, from the first to the most, until a life was long enough."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._delay = timing.first_delay_seconds

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait before the next start, after a child that was ready for `lived_seconds`."""
        if lived_seconds >= self._timing.stable_seconds:
            self._delay = self._timing.first_delay_seconds
        delay = self._delay
        self._delay = min(delay * 2, self._timing.most_delay_seconds)
        return delay


class LocalBackend:
    """
    The local backend as the gateway holds it.

    `packages` are folders beside the bundled one. `listen` is empty for a Unix socket in a private folder, or
    `unix:/path`, or `tcp://127.0.0.1:port`; with port 0 one is chosen now, and kept over restarts. `threads`,
    `max_queue` and `memory_bytes` as in `[local]`. Raises ConfigurationError for an address that cannot be.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        listen: str = "",
        packages: Sequence[str | Path] = (),
        device: str = "auto",
        threads: int = 0,
        max_queue: int = 64,
        memory_bytes: int = 0,
        observer: Observer | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._clock = clock
        self._observer = observer or Observer()
        self._timing = timing or Timing()
        self._reservation: socket.socket | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="turnout-local-"))
        try:
            self._address = self._choose_address(listen)
        except ConfigurationError:
            self._remove_folder()
            raise
        self._arguments = [
            *("--listen", self._address.listen),
            *("--packages", str(BUNDLED), *(os.path.abspath(path) for path in packages)),
            *("--device", device, "--threads", str(threads)),
            *("--max-queue", str(max_queue), "--memory-bytes", str(memory_bytes), "--with-stdin"),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._state = "stopped"
        self._device: str | None = None
        self._starts = 0
        self._health: dict[str, Any] = {}

    # -- what the gateway asks ---------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """`unix:/path` or `http://host:port`, the same over restarts. Paths of the API begin with `/v1` below it."""
        return self._address.url

    @property
    def listen(self) -> str:
        """The same as `[local] listen` would have it: by this another process finds it."""
        return self._address.listen

    @property
    def is_ready(self) -> bool:
        """Up and answering, as far as is known: a crash is noticed at once, a hang at the next probes."""
        return self._ready.is_set()

    @property
    def state(self) -> str:
        """starting, ready, crashed, hung, stopped: what observers hear too."""
        return self._state

    @property
    def device(self) -> str | None:
        """`cuda` or `cpu`, as the child found it to be; None before it was ever ready."""
        return self._device

    @property
    def health(self) -> Mapping[str, Any]:
        """What the child said of itself at the last probe: device, queue, running, batches, batched, memory_bytes."""
        return self._health

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Begin to start the child, and return at once: the gateway serves without it until it is ready."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_alive(), name="local backend")

    async def wait_ready(self, seconds: float) -> bool:
        """Whether the child was ready within `seconds`."""
        try:
            await asyncio.wait_for(self._ready.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """End the child, politely first. Runs that are going on are lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None
        self._become("stopped")
        self._remove_folder()

    # -- one life after another --------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        backoff = Backoff(self._timing)
        while True:
            lived_seconds = 0.0
            try:
                lived_seconds = await self._live()
            except OSError as error:
                _log.error("the local backend cannot be started: %s", error)
                self._become("crashed")
            delay = backoff.after(lived_seconds)
            _log.warning("the local backend is started again in %.1f s", delay)
            await asyncio.sleep(delay)

    async def _live(self) -> float:
        """One child, from its start to its end. Returns for how many seconds it was ready."""
        self._become("starting")
        process = self._process = await self._spawn()
        stderr, stdout = process.stderr, process.stdout
        assert stderr is not None  # noqa: S101 - both are pipes, see _spawn
        assert stdout is not None  # noqa: S101
        logs = asyncio.create_task(_pass_on(stderr))
        ready_at: float | None = None
        try:
            if await self._await_ready(stdout):
                ready_at = self._clock.monotonic()
                await self._watch(process)
        finally:
            self._ready.clear()
            await self._end(process)
            await asyncio.wait((logs,), timeout=self._timing.stop_seconds)  # its last words say why
            logs.cancel()
        if self._state != "hung":
            _log.error("the local backend ended with %s", _describe_exit(process.returncode))
            self._become("crashed")
        return 0.0 if ready_at is None else self._clock.monotonic() - ready_at

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._starts += 1
        for old in self._folder.glob("work-*"):
            shutil.rmtree(old, ignore_errors=True)  # copies of packages that a killed child left
        work = self._folder / f"work-{self._starts}"
        work.mkdir(mode=0o700)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {
            "TMPDIR": str(work),
            # The child runs the code that we run, wherever that was imported from; never what lies in its folder.
            "PYTHONPATH": str(Path(local_backend.__file__).parent.parent),
            "PYTHONSAFEPATH": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "local_backend", *self._arguments),
            stdin=asyncio.subprocess.PIPE,  # never written to: it closes when we end, however we end
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=work,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is for us: what is still running shall end well
        )

    async def _await_ready(self, stdout: asyncio.StreamReader) -> bool:
        try:
            line = await asyncio.wait_for(stdout.readline(), self._timing.start_seconds)
            said = json.loads(line)
            self._device = str(said["device"])
        except TimeoutError:
            _log.error("the local backend was not ready within %.0f s", self._timing.start_seconds)
            self._become("hung")
            return False
        except (ValueError, KeyError, TypeError):  # it ended, or said something else
            return False
        _log.info("the local backend is ready on %s", self._device)
        self._health = {"device": self._device}
        self._ready.set()
        self._become("ready")
        return True

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Return when the child is gone, or answers no more."""
        failed = 0
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                await asyncio.wait((ended,), timeout=self._timing.probe_every_seconds)
                if ended.done():
                    return
                health = await probe(self._address, self._timing.probe_seconds)
                self._health, failed = (self._health, failed + 1) if health is None else (health, 0)
                if failed >= self._timing.probes:
                    _log.error("the local backend does not answer; it is ended")
                    self._become("hung")
                    process.kill()
                    return
        finally:
            ended.cancel()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Make sure that the child is gone. Must not be interrupted halfway: an orphan would hold its memory."""
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._timing.stop_seconds)
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _become(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._observer.local_backend_changed(state)

    # -- address and folder ------------------------------------------------------------------------------------------

    def _choose_address(self, listen: str) -> Address:
        if not listen:
            path = str(self._folder / "http.sock")
            if len(os.fsencode(path)) > MAX_SOCKET_PATH:
                raise ConfigurationError(
                    f"[local] listen: {path} is too long for a socket; "
                    'set TMPDIR to a shorter folder, or listen = "tcp://127.0.0.1:0"'
                )
            return Address(path=path)
        address = read_address(listen)
        if not address.is_private:
            raise ConfigurationError(f"[local] listen = {listen!r}: is reachable from other machines; use 127.0.0.1")
        if address.path or address.port:
            return address
        # Bound and never listening, it holds the number for the child; SO_REUSEADDR lets both of us bind it.
        self._reservation, chosen = bind(address)
        return chosen

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


async def _pass_on(stream: asyncio.StreamReader) -> None:
    """The child's standard error into our log, line by line, however long its lines are."""
    rest = b""
    while chunk := await stream.read(_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) >= _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _repeat(line)
    if rest:
        _repeat(rest)


def _repeat(line: bytes) -> None:
    text = line.decode(errors="replace").rstrip()
    level = text.partition(" ")[0]
    if level not in ("INFO", "WARNING"):
        level = "ERROR"  # the reason for which it did not start, or a library's own cry
    _log.log(logging.getLevelNamesMapping()[level], "%s", text.removeprefix(f"{level} "))


def _describe_exit(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
