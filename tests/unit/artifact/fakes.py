"""Artifacts in a temporary folder, a clock that stands still, and a file server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.artifact.folder import Artifacts
from gateway.contract.attempt import Attempt
from gateway.contract.clock import RandomIds
from gateway.contract.prediction import Prediction, Request
from gateway.testing import ManualClock
from tests.serving import serving

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET = b"s" * 32
PUBLIC = "https://turnout.example"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def artifacts_in(folder: Path, clock: ManualClock, **options: Any) -> Artifacts:
    given: dict[str, Any] = {"public_url": PUBLIC, "signing_secret": SECRET, "max_file_bytes": 1_000_000} | options
    return Artifacts(folder, ids=RandomIds(), clock=clock, **given)


def prediction(*, file_output: bool = True, owner: str = "ada") -> Prediction:
    return Prediction(
        id="p" * 26,
        owner=owner,
        request=Request(model="a/b", version="0" * 64, is_pinned=False, input={}, file_output=file_output),
        created_at=START,
        deadline_at=START,
        stream_token="s",
    )


def attempt(number: int = 1) -> Attempt:
    return Attempt(
        number=number,
        offer="a/b@x",
        provider="x",
        remote="b",
        version="0" * 64,
        token_hash="",
        begun_at=START,
        deadline_at=START,
    )


Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


def file(content: bytes, *headers: str, status: str = "200 OK") -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + content)

    return serve


class FileServer:
    def __init__(self) -> None:
        self.files: dict[str, list[Serve]] = {}  # per path one answer after the other, the last for ever
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def put(self, path: str, *answers: Serve) -> str:
        self.files[path] = list(answers)
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    path = head.split(" ")[1].partition("?")[0]
                    self.requests.append(path)
                    self.heads.append(head)
                    answers = self.files.get(path, [file(b"none", status="404 Not Found")])
                    await answers[min(self.requests.count(path), len(answers)) - 1](writer)
                    await writer.drain()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving_files() -> AsyncIterator[FileServer]:
    server = FileServer()
    async with serving(server.serve) as server.port:
        yield server
