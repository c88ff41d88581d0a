"""The workers of one machine show each other their metrics, so that whichever is asked answers for all. Counts none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.telemetry.merge import LABEL, merged

ANSWER_SECONDS = 2.0
MOST_BYTES = 64_000_000
_UP = "turnout_worker_up"


class Siblings:
    """Worker `number` of `count`, over sockets in `folder`, which is private to them. `render` makes our own page."""

    def __init__(self, folder: Path, *, number: int, count: int, render: Callable[[], Awaitable[bytes]]) -> None:
        self._folder = folder
        self._number = number
        self._count = count
        self._render = render
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        path = self._path(self._number)
        path.unlink(missing_ok=True)  # of one that was killed
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path(self._number).unlink(missing_ok=True)

    async def scrape(self) -> bytes:
        """The pages of all who answer in time; who does not is named, and its numbers are missing."""
        found = await asyncio.gather(*(self._page(number) for number in range(self._count)))
        pages = {str(number): page for number, page in enumerate(found) if page is not None}
        up = [f"# HELP {_UP} Whether a worker of this machine answered this scrape.", f"# TYPE {_UP} gauge"]
        up += [f'{_UP}{{{LABEL}="{number}"}} {float(page is not None)}' for number, page in enumerate(found)]
        return "".join(f"{line}\n" for line in up).encode() + merged(pages)

    async def _page(self, number: int) -> bytes | None:
        if number == self._number:
            return await self._render()
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    size = int.from_bytes(await reader.readexactly(8))
                    return await reader.readexactly(min(size, MOST_BYTES))
                finally:
                    writer.close()
        return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            page = await self._render()
            writer.write(len(page).to_bytes(8) + page)
            await writer.drain()
        except OSError:
            pass  # whoever asked has gone
        finally:
            writer.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"worker-{number}.sock"
