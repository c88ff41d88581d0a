"""A real server of somebody else's, in a process of its own: started within bounds, awaited, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.waiting import until

START_SECONDS = 90.0


class PeerProcess:
    """
    `with PeerProcess(["-m", "a.server"], …) as peer:` it answers at `peer.url` + `ready` inside.

    Python runs it with nothing but `packages` on its path. `port` was free when it was made, and is for the command or
    the files in `folder` to name.
    """

    def __init__(self, arguments: list[str], *, packages: Path, folder: Path, ready: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-S", *arguments]
        self._packages = packages
        self.folder = folder
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "peer.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        kept: Mapping[str, str] = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with (self.folder / "peer.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={**kept, "PYTHONPATH": str(self._packages), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it may have children of its own
            )
        try:
            self._await_ready(self._process)
        except BaseException:
            self._end(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(self._process)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        with httpx.Client(timeout=2, trust_env=False) as client:

            def is_ready() -> bool:
                if process.poll() is not None:
                    raise AssertionError(f"the peer ended with {process.returncode}:\n{self.log[-3000:]}")
                try:
                    return client.get(self.url + self._ready).status_code == 200
                except httpx.TransportError:
                    return False

            until(is_ready, seconds=START_SECONDS, or_else=lambda: f"the peer was not ready:\n{self.log[-3000:]}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """The process group that was started here, and nothing else."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """For servers that cannot say which one they were given."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
