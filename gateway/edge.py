"""The server's edge: the socket, the bounds on peers that never come to the point, the signals. Reads no request."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.contract.errors import ConfigurationError


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


class EdgeServer(uvicorn.Server):
    """Uvicorn, told what a first signal means here: become unready, let waiting callers go, then close."""

    def __init__(self, app: Any, *, begin_drain: Callable[[], None], drain_seconds: float) -> None:
        config = uvicorn.Config(
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
            timeout_graceful_shutdown=max(1, int(drain_seconds)),
        )
        super().__init__(config)
        self._begin_drain = begin_drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal again when it has closed, which would end us before we have drained."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)  # a second one means: now

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._begin_drain()
        super().handle_exit(sig, frame)


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
