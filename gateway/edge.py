"""The server's edge: the socket, the bounds on peers that never come to the point, the signals. Reads no request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.contract.errors import ConfigurationError

UNREADY_SECONDS = 2.0  # whoever asked /readyz a moment ago still sends

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EdgeProtocol(HttpToolsProtocol):
    """
    Uvicorn's protocol with the two bounds it lacks.

    A head has `head_seconds` to arrive whole, from connecting or from its first byte, and may take `most_head_bytes`;
    then the connection is closed. The rest of a body whose request was answered already counts as a head. What cannot
    be parsed gets a problem body like every other refusal.
    """

    head_seconds: ClassVar[float] = 15.0
    most_head_bytes: ClassVar[int] = 65_536

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        # Uvicorn's types do not say that there is no cycle before the first request.
        if self._head_timer is None and (not self.cycle or self.cycle.response_complete):  # type: ignore[truthy-bool]
            self._expect_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.most_head_bytes and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is larger than {self.most_head_bytes} bytes")

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()
        if isinstance(self.config, EdgeConfig) and self.config.is_draining:
            self.cycle.keep_alive = False  # answered, and told to come back by another connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode({"title": "Bad request", "detail": msg, "status": 400})
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class EdgeConfig(uvicorn.Config):
    is_draining = False


class EdgeServer(uvicorn.Server):
    """
    Uvicorn, told what a signal means here.

    The first SIGTERM: `begin_drain` at once, so that /readyz says it; UNREADY_SECONDS later nothing is accepted any
    more, and open requests have `request_seconds` to end. Until then whoever still comes is served, and told to
    connect anew. SIGINT is somebody at a keyboard, whom no balancer sent: there is no grace. A second signal of either
    kind ends the process there and then.
    """

    def __init__(
        self, app: Any, *, up: Callable[[], None], begin_drain: Callable[[], None], request_seconds: float
    ) -> None:
        self._edge = EdgeConfig(
            app,
            http=EdgeProtocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(request_seconds)),
        )
        super().__init__(self._edge)
        self._up = up
        self._begin_drain = begin_drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """`up` is called when it serves, and minds signals."""
        await super().startup(sockets)
        self._up()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal again when it has closed, which would end us before we have drained."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)  # what is left to do may be cut off as well

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._edge.is_draining:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
        self.drain(UNREADY_SECONDS if sig == signal.SIGTERM else 0.0)

    def drain(self, seconds: float) -> None:
        """Become unready now, and stop to accept after `seconds`."""
        if self._edge.is_draining:
            return
        self._edge.is_draining = True
        self._begin_drain()
        for connection in self.server_state.connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None:
                cycle.keep_alive = False
        asyncio.get_running_loop().call_later(seconds, setattr, self, "should_exit", True)


def bind(host: str, port: int, *, place: str) -> socket.socket:
    """A listening socket; port 0 takes any. Raises ConfigurationError, with `place` to say where the address stands."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"{place}: server: cannot listen on {host}:{port} ({error.strerror}); "
            "end what listens there, or choose another with --port (0 takes any)"
        ) from None
    return listener
