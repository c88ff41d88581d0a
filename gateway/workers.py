"""`turnout serve` by several processes that share one address: starts them, watches them, ends them. Serves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.commission import READY, Commission, write_commission
from gateway.config.load import Loaded
from gateway.contract.clock import SystemClock
from gateway.edge import bind
from gateway.link import local_backend_of
from gateway.reception import address_of, greet, keys_of
from gateway.telemetry.logs import setup
from gateway.telemetry.redaction import Redaction
from local_backend.supervisor import LocalBackend

log = logging.getLogger("turnout")

START_SECONDS = 60.0
STABLE_SECONDS = 30.0  # a worker that lived so long is started again at once
FIRST_PAUSE_SECONDS = 0.2
MOST_PAUSE_SECONDS = 30.0
SPARE_SECONDS = 10.0  # beyond its drain, until a worker that does not end is ended
_WRONG = 2  # the exit code for a configuration that is wrong


def crew_of(loaded: Loaded, *, host: str | None, port: int | None, count: int, config: Path | None) -> Crew:
    """
    Bound to the address, and nobody started. Raises ConfigurationError.

    Every worker reads the configuration and the secrets by itself: what is made here keeps none of them.
    """
    section = loaded.config.server
    setup(level=loaded.config.telemetry.log_level, format=loaded.config.telemetry.log_format, redaction=Redaction(()))
    host = host or section.host
    keys, made = keys_of(loaded, host)
    listener = bind(host, section.port if port is None else port, place=loaded.place)
    folder = Path(tempfile.mkdtemp(prefix="turnout-"))
    address = address_of(host, listener.getsockname()[1])
    public_url = (section.public_url or address).rstrip("/")
    local = local_backend_of(loaded, SystemClock()) if loaded.config.local.enabled else None
    first = Commission(
        number=0,
        count=count,
        host=host,
        address=address,
        listener=listener.fileno(),
        folder=str(folder),
        key_hash=keys["default"].hash if made is not None else "",
        local=local.listen if local is not None else "",
    )
    has_dashboard = loaded.config.dashboard.enabled

    def welcome() -> None:
        greet(address, public_url, made, dashboard=has_dashboard, workers=count)

    return Crew(first, listener, local, command_of(config), welcome, drain_seconds=section.drain_seconds)


def command_of(config: Path | None) -> tuple[str, ...]:
    told = () if config is None else ("--config", str(config))
    return (sys.executable, "-m", "gateway", "serve", "--as-worker", *told)


class Crew:
    """
    The first worker is started alone: what is wrong with all is said once. `welcome` is called when all are ready.

    They are in sessions of their own: a terminal's Ctrl-C reaches them through us, once.
    """

    def __init__(
        self,
        first: Commission,
        listener: socket.socket,
        local: LocalBackend | None,
        command: Sequence[str],
        welcome: Callable[[], None],
        *,
        drain_seconds: float,
    ) -> None:
        self._first = first
        self._listener = listener
        self._local = local
        self._command = command
        self._welcome = welcome
        self._drain_seconds = drain_seconds
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._codes: dict[int, int] = {}  # of workers that ended before they were ready

    def run(self) -> int:
        """Until SIGTERM or SIGINT; 0 if all have drained."""
        try:
            return asyncio.run(self._run())
        finally:
            self._listener.close()
            shutil.rmtree(self._first.folder, ignore_errors=True)

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)
        if self._local is not None:
            await self._local.start()
        try:
            return await self._serve()
        finally:
            if self._local is not None:
                await self._local.aclose()

    async def _serve(self) -> int:
        lives: dict[int, asyncio.Task[None]] = {}
        for numbers in (range(1), range(1, self._first.count)):
            if not await self._start(numbers, lives):
                if not self._stopping.is_set():
                    log.error("a worker cannot be started; the others are ended")
                    code = _WRONG if _WRONG in self._codes.values() else 1
                    self._stop()
                    await self._end(lives)
                    return code
                return await self._end(lives)
        self._welcome()
        await self._stopping.wait()
        return await self._end(lives)

    async def _start(self, numbers: Iterable[int], lives: dict[int, asyncio.Task[None]]) -> bool:
        """Whether all of these are ready. False too if we are to stop."""
        ready = {number: asyncio.Event() for number in numbers}
        lives |= {number: asyncio.create_task(self._live(number, event)) for number, event in ready.items()}
        told = [asyncio.create_task(event.wait()) for event in ready.values()]
        stop = asyncio.create_task(self._stopping.wait())
        ends: set[asyncio.Task[Any]] = {stop, *(lives[number] for number in ready)}
        until = asyncio.get_running_loop().time() + START_SECONDS
        try:
            for one in told:
                left = until - asyncio.get_running_loop().time()
                await asyncio.wait({one, *ends}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
                if not one.done() or any(end.done() for end in ends):
                    return False
            return True
        finally:
            for task in (*told, stop):
                task.cancel()

    # -- one worker ------------------------------------------------------------------------------------------------

    async def _live(self, number: int, ready: asyncio.Event) -> None:
        """One worker's lives, one after another; a first one that did not get ready is the last."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            begun = loop.time()
            process = await self._spawn(number)
            answer = await process.stdout.readline() if process.stdout is not None else b""
            if answer == READY:
                ready.set()
            code = await process.wait()
            self._processes.pop(number, None)
            if not ready.is_set() and self._stopping.is_set() and code == -signal.SIGTERM:
                return  # it had not even begun to listen for signals
            if self._stopping.is_set() or not ready.is_set():
                self._codes[number] = code
                return
            if loop.time() - begun >= STABLE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.error("worker %d ended with %s; it is started again in %.1f s", number, _described(code), pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def _spawn(self, number: int) -> asyncio.subprocess.Process:
        commission = replace(self._first, number=number)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,  # it closes when we end, however we end
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._first.listener,),
            start_new_session=True,
        )
        self._processes[number] = process
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(write_commission(commission))
        if self._stopping.is_set():  # asked to end while it was started
            _send(process, signal.SIGTERM)
        return process

    # -- the end ---------------------------------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("a second signal: the workers are ended now")
            for process in self._processes.values():
                _send(process, signal.SIGKILL)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stop(number)

    def _stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._stopping.set()
        for process in self._processes.values():
            _send(process, number)

    async def _end(self, lives: dict[int, asyncio.Task[None]]) -> int:
        # From now on whoever comes is for the workers that still accept.
        self._listener.close()
        _, late = await asyncio.wait(lives.values(), timeout=self._drain_seconds + SPARE_SECONDS)
        for process in list(self._processes.values()) if late else ():
            log.error("a worker did not end in its time; it is killed")
            _send(process, signal.SIGKILL)
        if late:
            await asyncio.wait(late, timeout=SPARE_SECONDS)
        return int(bool(late) or any(self._codes.values()))


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _described(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
