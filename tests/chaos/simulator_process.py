"""A real `turnout simulator` in a process of its own, and its books. Survives whatever happens to a gateway."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.waiting import until

START_SECONDS = 15.0


class SimulatorProcess:
    """`with SimulatorProcess(folder, "one,median=0.3") as simulator:` it serves inside."""

    def __init__(self, folder: Path, *providers: str) -> None:
        self.urls: dict[str, str] = {}  # with /v1
        self.control_url = ""
        self.secret = ""  # signs its callbacks
        self._said = folder / "simulator.log"
        self._command = [sys.executable, "-m", "gateway", "simulator"]
        for provider in providers:
            self._command += ["--provider", provider]

    def __enter__(self) -> SimulatorProcess:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self._said.open("wb") as out:
            self._process = subprocess.Popen(self._command, env=kept, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        said = until(self._greeting, seconds=START_SECONDS, or_else=self._said.read_text)
        self.urls = dict(re.findall(r"^(\S+) +(http://\S+/v1)", said, re.MULTILINE))
        self.control_url = re.findall(r"^control +(\S+)", said, re.MULTILINE)[0]
        self.secret = re.findall(r"whsec_\S+", said)[0]
        return self

    def _greeting(self) -> str:
        """Empty while it is not whole."""
        ended, said = self._process.poll() is not None, self._said.read_text()
        assert not ended, said
        return said if "GET …/books" in said else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def books(self, name: str) -> list[dict[str, Any]]:
        """Every job that provider ever started, in order."""
        answer = httpx.get(f"{self.control_url}/{name}/books", trust_env=False, timeout=10)
        return list(answer.raise_for_status().json())
