"""
A fixed upstream in Replicate's dialect, on raw asyncio: as cheap as it can be, so that it is not what is measured.

A create is answered at once and finished, or with `?seconds=` in its input held for so long first.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

_ENDED = {
    "id": "0" * 26,
    "model": "bench/echo",
    "version": "0" * 64,
    "input": {},
    "output": "done",
    "logs": "",
    "error": None,
    "status": "succeeded",
    "data_removed": False,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z",
    "completed_at": "2026-01-01T00:00:01Z",
    "metrics": {"predict_time": 1.0},
    "urls": {"get": "http://127.0.0.1/", "cancel": "http://127.0.0.1/"},
}
_BODY = json.dumps(_ENDED).encode()
_ANSWER = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's are not of asyncio's classes
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        seconds = 0.0
        if b'"seconds"' in body:
            seconds = float(json.loads(body)["input"]["seconds"])
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self.reply)
        else:
            self.reply()

    def reply(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent lets go


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
