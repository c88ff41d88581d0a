"""Carries the replicas' bulletins once a second, beside all requests: none waits for it. Decides nothing by them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.contract.errors import StoreError
from gateway.routing.bulletin import LIFETIME_SECONDS, Bulletins
from gateway.store.protocol import Store

log = logging.getLogger("turnout.engine")

TOPIC = "signals"
EXCHANGE_SECONDS = 1.0


class Exchange:
    """
    `acts` is called in each round in which there is anybody else: what ops did there is to be done here.

    While the store is out nothing is heard, and what was heard fades within its lifetime.
    """

    def __init__(
        self, store: Store, worker: str, bulletins: Bulletins, *, acts: Callable[[], Awaitable[object]]
    ) -> None:
        self._store = store
        self._worker = worker
        self._bulletins = bulletins
        self._acts = acts
        self._is_out = False
        self.others = 0  # replicas heard of in the last round

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.step()
                self._is_out = False
            except StoreError as error:
                self.others = 0
                if not self._is_out:
                    log.warning("nothing is heard of other replicas: %s", error)
                self._is_out = True
            except Exception:
                log.exception("a round of the exchange failed")
            await asyncio.sleep(EXCHANGE_SECONDS)

    async def step(self) -> None:
        bodies = await self._store.exchange(
            TOPIC, self._worker, self._bulletins.own(), lifetime_seconds=LIFETIME_SECONDS
        )
        self.others = self._bulletins.learn(bodies)
        if self.others:
            await self._acts()
