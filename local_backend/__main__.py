"""`python -m local_backend`: one model server, from its arguments to its end. Prints one JSON line when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from gateway.contract.clock import RandomIds, SystemClock
from gateway.contract.errors import ConfigurationError
from local_backend.address import bind, read_address
from local_backend.application import Application
from local_backend.kinds.open import open_kind
from local_backend.package import BUNDLED, find, load
from local_backend.server import ModelServer
from local_backend.session import choose_device, default_threads, runtime_version

_log = logging.getLogger("local_backend")


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_backend", description="Serve ONNX packages.")
    parser.add_argument("--listen", default="tcp://127.0.0.1:0", help="unix:/path or tcp://host:port")
    parser.add_argument("--packages", nargs="*", default=[str(BUNDLED)], metavar="DIR", help="folders of packages")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="per model; 0: one per core")
    parser.add_argument("--max-queue", type=int, default=64, help="predictions waiting; beyond it 503")
    parser.add_argument("--memory-bytes", type=int, default=0, help="limit of the address space (CPU only); 0: none")
    parser.add_argument("--token-file", type=Path, help="clients must send this token; needed off this machine")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input ends, as a child should")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # Libraries print to standard output, whose one line is ours: from here on they print to standard error.
    ready = os.dup(1)
    os.dup2(2, 1)
    if options.memory_bytes > 0:
        resource.setrlimit(resource.RLIMIT_AS, (options.memory_bytes, options.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    private = Path(tempfile.mkdtemp(prefix="turnout-local-"))
    if options.with_stdin:
        _end_with_parent(private, options.listen.partition("unix:")[2])
    try:
        asyncio.run(_serve(options, private, ready))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return 0


def _tidy(private: Path, socket_path: str) -> None:
    shutil.rmtree(private, ignore_errors=True)
    if socket_path:
        Path(socket_path).unlink(missing_ok=True)


def _end_with_parent(private: Path, socket_path: str) -> None:
    """End, and tidy up, when the parent is gone, even by kill -9: its end of our stdin closes with it."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        _tidy(private, socket_path)
        with contextlib.suppress(OSError):
            here = Path.cwd()
            here.rmdir()
            here.parent.rmdir()
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


async def _serve(options: argparse.Namespace, private: Path, ready: int) -> None:
    address = read_address(options.listen)
    token = _read_token(options.token_file)
    if token is None and not address.is_private:
        raise ConfigurationError(f"{options.listen}: is reachable from other machines; give a --token-file")
    device = choose_device(options.device)
    threads = options.threads if options.threads > 0 else default_threads()
    packages = [load(folder, into=private) for folder in find(options.packages)]

    bound, address = bind(address)
    opened = functools.partial(open_kind, device=device, threads=threads)
    server = ModelServer(packages, opened, max_queue=options.max_queue, clock=SystemClock(), ids=RandomIds())
    application = Application(server, address=address.url, device=device, token=token)
    line = {"address": address.url, "device": device, "runtime": runtime_version(), "pid": os.getpid()}
    try:
        await _listen(application, bound, ready, line)
    finally:
        await server.aclose()
        _tidy(private, address.path)


async def _listen(application: Any, bound: socket.socket, ready: int, line: dict[str, Any]) -> None:
    config = uvicorn.Config(
        application,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        # Longer than any client keeps an idle connection: it must be the client who closes.
        timeout_keep_alive=300,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    bound.listen(1_024)  # from now on a connection is queued, not refused
    os.write(ready, json.dumps(line).encode() + b"\n")
    os.close(ready)
    await server.serve(sockets=[bound])


class _Server(uvicorn.Server):
    """uvicorn's, but a signal ends it and is not raised again afterwards: there is tidying up to do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        raise ConfigurationError(f"--token-file {path}: cannot be read; name a file with the token") from None
    if len(token) < 16:
        raise ConfigurationError(f"--token-file {path}: holds under 16 characters; write a longer token")
    return token


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A worker's thread may be deep in a native call: the interpreter's own ending would wait for it, or crash in it.
    os._exit(code)
