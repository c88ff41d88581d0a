"""A TCP proxy that passes requests on and cuts the first replies off, as a broken connection does."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class CuttingProxy:
    """
    The first `cuts` connections that carry a POST to `path` are closed once the whole request has gone through.

    `when` is "forwarded" (before the server has answered) or "answered" (its answer has come, and is thrown away).
    """

    def __init__(self, upstream: str, *, path: str, cuts: int, when: str) -> None:
        host, _, port = upstream.removeprefix("http://").rpartition(":")
        self._upstream = (host, int(port))
        self._line = f"POST {path} ".encode()
        self._left = cuts
        self._when = when
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept)]
        self.cut = 0
        self.posted = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A close alone would not wake the thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        """One request for each connection: the answer says close, so clients do not expect more."""
        with peer, contextlib.suppress(OSError), socket.create_connection(self._upstream) as server:
            peer.settimeout(10)
            server.settimeout(10)
            request = _whole_request(peer)
            is_cut = self._is_to_be_cut(request)
            if is_cut and self._when == "forwarded":
                # Corked, the request and the end of the connection arrive as one: no answer can come in between.
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                server.sendall(request)
                return
            server.sendall(request)
            while chunk := server.recv(65_536):
                if is_cut:
                    return
                peer.sendall(chunk)

    def _is_to_be_cut(self, request: bytes) -> bool:
        with self._lock:
            if not request.startswith(self._line):
                return False
            self.posted += 1
            if self._left == 0:
                return False
            self._left -= 1
            self.cut += 1
            return True


def _whole_request(peer: socket.socket) -> bytes:
    """With `connection: close` put in, so that the server ends the answer by closing."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += _more(peer)
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    length = next((int(one.split(b":")[1]) for one in headers if one.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += _more(peer)
    kept = [one for one in headers if not one.lower().startswith(b"connection:")]
    return b"\r\n".join([line, *kept, b"connection: close"]) + b"\r\n\r\n" + body


def _more(peer: socket.socket) -> bytes:
    chunk = peer.recv(65_536)
    if not chunk:
        raise ConnectionError("the client left")
    return chunk
