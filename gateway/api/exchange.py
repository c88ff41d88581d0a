"""One request and its reply over plain ASGI: headers, body within bounds, sending. Knows no resource."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from litestar.types import HTTPScope, Receive, Send

from gateway.api.refusal import BodyTimedOut, invalid
from gateway.contract.errors import TooLarge
from gateway.contract.key import KeyRecord

if TYPE_CHECKING:
    from gateway.api.context import Context

JSON_TYPE = b"application/json"
# uvicorn has no deadline for a body: a peer that sends half of one would stay for ever.
BODY_SECONDS = 15.0
LEAST_BYTES_PER_SECOND = 1_000
MOST_QUERY_FIELDS = 64
STALLED_SEND_SECONDS = 30.0
_TURNS = 4  # read the end, close the transport, tell the protocol, and one to spare

Headers = tuple[tuple[bytes, bytes], ...]
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Disconnected(Exception):
    """The peer is gone: there is nobody to answer."""


class Reply:
    """An answer: whole as `body`, or as it comes from `stream` (then `length` is its length, if that is known)."""

    __slots__ = ("body", "content_type", "headers", "length", "status", "stream")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: bytes = JSON_TYPE,
        headers: Headers = (),
        stream: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.stream = stream
        self.length = length

    def start(self) -> Any:
        headers = [_NOSNIFF, *self.headers]
        if self.status != 204:  # which has no content that could have a type
            headers.insert(0, (b"content-type", self.content_type))
        if self.stream is None and self.length is None and self.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(self.body)))
        elif self.length is not None:
            headers.append((b"content-length", b"%d" % self.length))
        return {"type": "http.response.start", "status": self.status, "headers": headers}


class Exchange:
    """One HTTP request. `key` is set once the caller is known."""

    __slots__ = ("_receive", "context", "key", "method", "params", "path", "scope", "token")

    def __init__(
        self, context: Context, scope: HTTPScope, receive: Receive, *, path: str, params: dict[str, str]
    ) -> None:
        self.context = context
        self.scope = scope
        self._receive = receive
        self.method: str = str(scope["method"])
        self.path = path
        self.params = params
        self.key: KeyRecord | None = None
        self.token = ""  # the caller's own key, to be kept out of everything

    @property
    def owner(self) -> str:
        if self.key is None:
            raise RuntimeError("asked who the caller is on a route that does not ask for a key")
        return self.key.name

    def header(self, name: bytes) -> str | None:
        """The first of that (lower case) name."""
        for key, value in self.scope["headers"]:
            if key == name:
                return value.decode("latin-1")
        return None

    def headers(self) -> dict[str, str]:
        """All of them, the last of a name winning."""
        return {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in self.scope["headers"]}

    def query(self) -> dict[str, str]:
        """Of a name given twice the last value. Raises InputInvalid for more than 64."""
        text = self.scope["query_string"]
        if not text:
            return {}
        try:
            return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_QUERY_FIELDS))
        except ValueError:
            raise invalid("array_max_items", "", f"The query may have at most {MOST_QUERY_FIELDS} parameters") from None

    async def body(self, limit_bytes: int) -> bytes:
        """Raises TooLarge, BodyTimedOut, Disconnected."""
        self.refuse_declared_over(limit_bytes)
        whole = b""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit_bytes:
                raise TooLarge(f"The body must be less than {shown_size(limit_bytes)} in size")
            if not whole:
                whole = chunk  # nearly always the only one
            else:
                parts.append(chunk)
        return b"".join((whole, *parts)) if parts else whole

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; a peer slower than a kilobyte per second is given up. Raises BodyTimedOut."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        size = 0
        more = True
        while more:
            allowed = begun + BODY_SECONDS + size / LEAST_BYTES_PER_SECOND
            try:
                async with asyncio.timeout_at(min(allowed, loop.time() + BODY_SECONDS)):
                    message = cast(Any, await self._receive())
            except TimeoutError:
                raise BodyTimedOut("The body did not arrive in its time") from None
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            if chunk:
                size += len(chunk)
                yield chunk

    def refuse_declared_over(self, limit_bytes: int) -> None:
        declared = self.header(b"content-length")
        if (
            declared
            and declared.isascii()
            and declared.isdigit()
            and (len(declared) > 15 or int(declared) > limit_bytes)
        ):
            raise TooLarge(f"The body must be less than {shown_size(limit_bytes)} in size")

    def is_broken(self) -> bool:
        """
        Is the peer gone? Told without waiting, once the body has been read.

        Whatever `receive` would wait for next can only be the disconnect, so it is begun, and let go if it has to wait.
        """
        # Uvicorn's cycle knows it without being asked; this is looked at for every equal POST under way.
        gone = getattr(getattr(self._receive, "__self__", None), "disconnected", None)
        if isinstance(gone, bool):
            return gone
        waiting = self._receive()
        if not asyncio.iscoroutine(waiting):
            return False
        try:
            waiting.send(None)
        except StopIteration as answer:
            return bool(answer.value["type"] == "http.disconnect")
        waiting.close()
        return False

    async def catch_up(self) -> None:
        """
        Lets `is_broken` know what the kernel knows by now.

        A request that is answered without waiting for anything is answered before the loop has read that its
        connection ended together with it.
        """
        for _ in range(_TURNS):
            if self.is_broken():
                return
            await asyncio.sleep(0)

    async def disconnected(self) -> None:
        """Returns when the peer is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, reply: Reply, send: Send) -> None:
        is_head = self.method == "HEAD"
        await send(reply.start())
        if reply.stream is None or is_head:
            if reply.stream is not None:
                await _close(reply.stream)
            await send({"type": "http.response.body", "body": b"" if is_head else reply.body, "more_body": False})
            return
        await self._pump(reply.stream, send)

    async def _pump(self, stream: AsyncIterator[bytes], send: Send) -> None:
        """Send what comes until it ends, the peer leaves, or it does not read for too long."""

        async def pump() -> None:
            async for chunk in stream:
                # The server's own buffer is bounded: a peer that does not read makes this wait.
                async with asyncio.timeout(STALLED_SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        tasks = [asyncio.ensure_future(pump()), asyncio.ensure_future(self.disconnected())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close(stream)
        error = None if tasks[0].cancelled() else tasks[0].exception()
        # A stalled peer is only let go: the server closes a connection whose answer was not completed.
        if error is not None and not isinstance(error, TimeoutError):
            raise error


async def _close(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):
            await close()


def shown_size(size_bytes: int) -> str:
    """`100MB`, as Replicate writes it."""
    for unit, scale in (("MB", 1_000_000), ("kB", 1_000)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:g}{unit}"
    return f"{size_bytes}B"
