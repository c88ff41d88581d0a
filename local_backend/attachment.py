"""A local backend that another process of this machine supervises: asked how it is, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.contract.observer import Observer
from local_backend.address import read_address
from local_backend.probe import probe

PROBE_EVERY_SECONDS = 2.0
FIRST_PROBE_SECONDS = 0.2  # until it is up
PROBE_SECONDS = 5.0


class AttachedBackend:
    """`listen` as the supervisor has it: `unix:/path` or `tcp://127.0.0.1:port`. Raises ConfigurationError."""

    def __init__(self, listen: str, *, observer: Observer | None = None, tells_starts: bool = True) -> None:
        self._address = read_address(listen)
        self._observer = observer or Observer()
        self._tells_starts = tells_starts  # of several who ask one backend one counts
        self._health: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return self._address.url

    @property
    def is_ready(self) -> bool:
        """As the last probe found it."""
        return self._health is not None

    @property
    def health(self) -> Mapping[str, Any]:
        return self._health or {}

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="local backend")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            was_ready, self._health = self.is_ready, await probe(self._address, PROBE_SECONDS)
            if self.is_ready and not was_ready and self._tells_starts:
                self._observer.local_backend_changed("starting")
            if self.is_ready is not was_ready:
                self._observer.local_backend_changed("ready" if self.is_ready else "crashed")
            await asyncio.sleep(PROBE_EVERY_SECONDS if self.is_ready else FIRST_PROBE_SECONDS)
