"""A TCP balancer of thirty lines: whole connections, to the backends whose /readyz says so. Reads no request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

import httpx

PROBE_SECONDS = 0.3


class Balancer:
    """`with Balancer(urls) as balancer:` `balancer.url` is one address for all of them."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._places = [urlsplit(url).netloc for url in urls]
        self._ready = set(self._places)
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.url = ""

    def __enter__(self) -> Balancer:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> str:
        self._probing = asyncio.ensure_future(self._probe())
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self) -> None:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
            while True:
                for place in self._places:
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(f"http://{place}/readyz", headers={"connection": "close"})).is_success:
                            self._ready.add(place)
                            continue
                    self._ready.discard(place)
                await asyncio.sleep(PROBE_SECONDS)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = next(self._turns)
        places = [place for place in self._places if place in self._ready]
        for place in [*places[turn % max(1, len(places)) :], *places]:
            host, port = place.split(":")
            try:
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
            except OSError:
                continue  # it has just gone; the next one
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
            return
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()
