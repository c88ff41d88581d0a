"""The server's edge: how long, and how large, a peer may be before it has said what it wants. Reads no request."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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
