"""A real redis-server in a folder of its own, on loopback: started, killed, frozen, started again on what it kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis

START_SECONDS = 10.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", "")


def program() -> str:
    """
    Where it is. There is nothing to show without one, so that a missing server is an error and no reason to skip.

    TURNOUT_REDIS_SERVER names another one, such as valkey-server.
    """
    named = os.environ.get("TURNOUT_REDIS_SERVER")
    found = shutil.which(named) if named else shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise RuntimeError(f"there is no {named or 'redis-server'} on the PATH: apt-get install redis-server")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """
    `with RedisServer(folder) as server:` it answers inside, at `server.url`, and is gone after.

    `options` are redis-server's own, after DURABLE, whose later words win. The port outlives a kill.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> RedisServer:
        command = [program(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *DURABLE, *self._options], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return self
                except redis.ConnectionError:  # BusyLoading, too, while it reads its log
                    if time.monotonic() > until or self._process.poll() is not None:
                        self.kill()
                        raise AssertionError(f"it does not answer:\n{self.log[-3000:]}") from None
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A blocking client for the test's own eyes; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL. What it had written to its log is there at the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: its sockets take what is sent, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def log(self) -> str:
        return (self.folder / "redis.log").read_text(errors="replace")

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
