"""A real `turnout serve` in a folder of its own: started, awaited, restarted, killed. Judges none of its answers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from tests.waiting import until

START_SECONDS = 40.0
STOP_SECONDS = 30.0
_ADDRESS = re.compile(r"serves at (http://\S+)/v1")
_KEY = re.compile(r"REPLICATE_API_TOKEN=(\S+)")


class GatewayProcess:
    """
    `with GatewayProcess(folder, config) as gateway:` it is ready inside, and has drained and ended with 0 after.

    `url` has no /v1 and outlives a restart: the port that was found free first is asked for again. `key` is what the
    process printed, and a new one after each start; with keys in `config` it is empty, unless `key` was given.
    """

    def __init__(
        self, folder: Path, config: str = "", *, key: str = "", environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.url = ""
        self.key = key
        self._key_is_given = bool(key)
        self._environ = dict(environ or {})
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(config)

    def configure(self, config: str) -> None:
        """Holds from the next start."""
        (self.folder / "config.toml").write_text(config)

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it wrote to stderr, over all starts."""
        path = self.folder / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, *, seconds: float = START_SECONDS) -> GatewayProcess:
        """Returns when /readyz says so; raises AssertionError, with the log, if that takes longer than `seconds`."""
        if self.is_running:
            raise RuntimeError("it runs already")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        arguments = ["serve", "--config", "config.toml", "--port", str(self._port)]
        # Files, not pipes: nobody has to read them for the process to go on.
        with (self.folder / "stdout.log").open("wb") as out, (self.folder / "stderr.log").open("ab") as err:
            self._process = self._spawn(arguments, kept | self._environ, out, err)
        try:
            self._await_ready(seconds)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM: it drains, and ends with 0."""
        self.ask_to_stop()
        self.wait(seconds=seconds)

    def ask_to_stop(self) -> None:
        self._running().send_signal(signal.SIGTERM)

    def wait(self, *, seconds: float = STOP_SECONDS) -> None:
        """It was asked to end; with 0 it has."""
        process = self._process
        if process is None:
            return
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds} s of SIGTERM:\n{self.log[-4000:]}") from None
        assert code == 0, f"it ended with {code}:\n{self.log[-4000:]}"

    def kill(self) -> None:
        """SIGKILL: nothing is drained. Does nothing to one that has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """On the same store and at the same address; stopped first if it still runs."""
        if self.is_running:
            self.stop()
        self.start()

    def client(self, *, key: str | None = None, seconds: float = 15.0) -> httpx.Client:
        """A client with this key, which the caller closes."""
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=seconds, trust_env=False)

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        elif self.is_running:
            self.stop()

    def _spawn(
        self, arguments: list[str], environ: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"it does not run:\n{self.log[-4000:]}")
        return self._process

    def _await_ready(self, seconds: float) -> None:
        with httpx.Client(timeout=2, trust_env=False) as client:
            until(
                lambda: self._running() and self._read_greeting() and self._is_ready(client),
                seconds=seconds,
                or_else=lambda: f"it did not get ready:\n{self.log[-4000:]}",
            )

    def _read_greeting(self) -> bool:
        said = (self.folder / "stdout.log").read_text()
        address = _ADDRESS.search(said)
        if address is None or not said.endswith("\n"):
            return False
        self.url = address[1]
        self._port = int(self.url.rpartition(":")[2])
        if not self._key_is_given:
            key = _KEY.search(said)
            self.key = key[1] if key is not None else ""
        return True

    def _is_ready(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False
