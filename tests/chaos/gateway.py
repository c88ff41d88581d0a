"""
A gateway that is told how to misbehave: the real `turnout serve`, forked from one that has imported everything.

A start costs a third of a second that way, so that hundreds of crashes fit into a minute. What the environment asks for
(`tests.chaos.entry`) is patched in after the fork. With `is_fresh` it is an interpreter of its own, as in production.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, cast

from tests.chaos import entry
from tests.e2e.gateway_process import GatewayProcess

KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")


class ChaosGateway(GatewayProcess):
    """As its base; `plan` is what `tests.chaos.entry` understands, and may be changed between two starts."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        key: str = "",
        environ: Mapping[str, str] | None = None,
        plan: Mapping[str, str] | None = None,
        is_fresh: bool = False,
    ) -> None:
        super().__init__(folder, config, key=key, environ=environ)
        self.plan = dict(plan or {})
        self.is_fresh = is_fresh

    def freeze(self) -> None:
        """SIGSTOP: it holds what it holds, and knows nothing of the time that passes."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def await_end(self, *, seconds: float) -> int | None:
        """Its exit code; None if it still runs then."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _spawn(
        self, arguments: list[str], environ: dict[str, str], out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        environ = environ | self.plan
        if self.is_fresh:
            root = Path(__file__).resolve().parents[2]
            command = [sys.executable, "-m", "tests.chaos.entry" if self.plan else "gateway", *arguments]
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environ | {"PYTHONPATH": str(root)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        process = _context().Process(
            target=entry.run, args=(str(self.folder), out.name, err.name, arguments, environ), daemon=True
        )
        process.start()
        return cast("subprocess.Popen[bytes]", _Forked(process))


class _Forked:
    """What `GatewayProcess` uses of a Popen."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("turnout serve", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_made: list[Any] = []


def _context() -> ForkServerContext:
    if not _made:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["gateway.app", "tests.chaos.entry"])
        _made.append(context)
    return cast("ForkServerContext", _made[0])
