"""
Concurrent callers of one or more gateways: careful ones that send a key and insist, and careless ones that do not.

They keep what they were told, and judge nothing of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from tests.chaos.judge import Asked
from tests.chaos.listener import Listener

PAUSE_SECONDS = 0.05
TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})


class Callers:
    """`urls` gives the gateways' addresses, without /v1; any of them is asked."""

    def __init__(
        self,
        urls: Callable[[], Sequence[str]],
        listener: Listener,
        *,
        key: str,
        count: int,
        model: str = "acme/echo",
        careless: float = 0.0,
        seed: int = 0,
        hooks: str = "/hook",
    ) -> None:
        self.asked: dict[int, Asked] = {}
        self.statuses: Counter[str] = Counter()  # of every create that was tried
        self.unreadable: list[str] = []  # ids that were accepted and not found right after
        self.submitted_at: dict[int, float] = {}
        self._urls = urls
        self._listener = listener
        self._headers = {"authorization": f"Bearer {key}"}
        self._count = count
        self._model = model
        self._careless = careless
        self._draw = random.Random(seed)
        self._hooks = hooks

    @property
    def accepted(self) -> list[Asked]:
        return [one for one in self.asked.values() if one.id]

    async def post_all(self, *, clients: int = 16, pause_seconds: float = 0.0) -> None:
        numbers = iter(range(self._count))
        async with self._client() as client:
            await asyncio.gather(*(self._post_some(client, numbers, pause_seconds) for _ in range(clients)))

    async def read_ends(self, *, seconds: float, clients: int = 16) -> int:
        """Until every accepted prediction has ended, as the API shows it. How many have not, when the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with self._client() as client:
            while left := [one for one in self.accepted if not one.shown]:
                # Whose webhook has come is over; the others are asked about as well, a little later.
                ready = [one for one in left if self._listener.told(one.hook)] or left
                waiting = iter(ready)
                await asyncio.gather(*(self._look_at_some(client, waiting, until) for _ in range(clients)))
                if loop.time() > until:
                    return len([one for one in self.accepted if not one.shown])
                await asyncio.sleep(0.2)
        return 0

    async def read(self, client: httpx.AsyncClient, path: str) -> httpx.Response | None:
        """One answer below 500, or None."""
        try:
            answer = await client.get(self._url() + path)
        except httpx.HTTPError:
            return None
        return answer if answer.status_code < 500 else None

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=40)
        return httpx.AsyncClient(headers=self._headers, trust_env=False, timeout=10, limits=limits)

    def _url(self) -> str:
        return self._draw.choice(list(self._urls()))

    async def _post_some(self, client: httpx.AsyncClient, numbers: Iterator[int], pause_seconds: float) -> None:
        for number in numbers:
            is_careless = self._draw.random() < self._careless
            self.asked[number] = await self._post(client, number, is_careless=is_careless)
            one = self.asked[number]
            if one.id and self._draw.random() < 0.1:
                answer = await self.read(client, f"/v1/predictions/{one.id}")
                if answer is not None and answer.status_code != 200:
                    self.unreadable.append(one.id)
            await asyncio.sleep(self._draw.uniform(0, 2 * pause_seconds))

    async def _post(self, client: httpx.AsyncClient, number: int, *, is_careless: bool) -> Asked:
        hook = f"{self._hooks}/{number}"
        body = {
            "version": self._model,
            "input": {"n": number},
            "webhook": f"{self._listener.url}{hook}",
            "webhook_events_filter": ["completed"],
        }
        headers = {} if is_careless else {"idempotency-key": f"{self._hooks}-{number}"}
        one = Asked(number=number, id="", hook=hook)
        while True:
            try:
                answer = await client.post(self._url() + "/v1/predictions", json=body, headers=headers)
            except httpx.HTTPError as error:
                self.statuses[type(error).__name__] += 1
                if is_careless:
                    return one
            else:
                self.statuses[str(answer.status_code)] += 1
                if answer.status_code == 201:
                    self.submitted_at[number] = asyncio.get_running_loop().time()
                    return replace(one, id=answer.json()["id"])
                if answer.status_code < 500 or answer.status_code not in (503, 504):
                    self.statuses[f"unexpected {answer.status_code}: {answer.text[:200]}"] += 1
                if is_careless:
                    return replace(one, is_refused=answer.status_code == 503)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look_at_some(self, client: httpx.AsyncClient, waiting: Iterator[Asked], until: float) -> None:
        loop = asyncio.get_running_loop()
        for one in waiting:
            if loop.time() > until:
                return
            answer = await self.read(client, f"/v1/predictions/{one.id}")
            if answer is None:
                await asyncio.sleep(PAUSE_SECONDS)
            elif answer.status_code != 200:
                self.unreadable.append(one.id)
            elif (shown := answer.json())["status"] in TERMINAL:
                self.asked[one.number] = replace(one, shown=_short(shown))


def _short(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shown[name] for name in ("status", "output", "error", "created_at", "completed_at")}
