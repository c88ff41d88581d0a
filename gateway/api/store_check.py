"""Whether the store takes writes: asked at most once a second, however many want to know. Answers no request."""

from __future__ import annotations

import asyncio
import math

from gateway.contract.clock import Clock
from gateway.contract.errors import StoreError
from gateway.store.protocol import Store

CHECK_SECONDS = 1.0  # most that one check may take
FRESH_SECONDS = 1.0


class StoreCheck:
    """A check commits to the disk, and whoever asks needs no key: hence one at a time, and an answer that keeps."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._fresh_until = -math.inf
        self._asking: asyncio.Task[bool] | None = None

    async def passes(self) -> bool:
        """False while the store cannot be written within a second."""
        asking = self._asking
        if asking is None or (asking.done() and self._clock.monotonic() >= self._fresh_until):
            asking = self._asking = asyncio.create_task(self._ask(), name="turnout-store-check")
        return await asyncio.shield(asking)  # whoever leaves does not take the answer from the others

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._store.check()
        except (StoreError, TimeoutError):
            return False
        finally:
            self._fresh_until = self._clock.monotonic() + FRESH_SECONDS
        return True
