"""Readers of event streams that break off and come back at random, over a gateway that is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.bars.place import Bar, Party, Place

WORDS = " ".join(f"word{number}" for number in range(12))


class Reader:
    """One reader of one stream: what it saw, by `Last-Event-ID`."""

    def __init__(self, draw: random.Random) -> None:
        self.seen: list[tuple[str, str]] = []  # (id, event)
        self.connections = 0
        self._last = ""
        self._draw = draw

    async def read(self, client: httpx.AsyncClient, url: str, headers: dict[str, str]) -> None:
        while not self.seen or self.seen[-1][1] != "done":
            self.connections += 1
            try:
                await self._read_once(client, url, headers)
            except httpx.HTTPError:
                await asyncio.sleep(0.05)

    async def _read_once(self, client: httpx.AsyncClient, url: str, headers: dict[str, str]) -> None:
        most = self._draw.randint(1, 4)  # events, then it leaves without a word
        last = {"last-event-id": self._last} if self._last else {}
        asked = headers | last | {"accept": "text/event-stream"}
        async with client.stream("GET", url, headers=asked) as answer:
            if answer.status_code != 200:
                await asyncio.sleep(0.05)
                return
            id = event = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    id = line[4:]
                elif line.startswith("event: "):
                    event = line[7:]
                elif not line and id:
                    self.seen.append((id, event))
                    self._last = id
                    id, most = "", most - 1
                    if event == "done" or most <= 0:
                        return


def measure(folder: Path, *, predictions: int = 40, readers: int = 3, kills: int = 4, seed: int = 5) -> Bar:
    return asyncio.run(_measure(folder, predictions, readers, kills, seed))


async def _measure(folder: Path, predictions: int, readers: int, kills: int, seed: int) -> Bar:
    draw = random.Random(seed)
    talker = {"talker": Party("queue=0.05,median=4,sigma=0.3")}
    with Place(folder, talker) as place:
        place.gateway.start()
        headers = {"authorization": f"Bearer {place.key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            made = [await _create(client, place, headers, number) for number in range(predictions)]
            crowd = [(one, Reader(random.Random(draw.random()))) for one in made for _ in range(readers)]
            reading = asyncio.gather(
                *(reader.read(client, place.gateway.url + _path(one), headers) for one, reader in crowd)
            )
            for _ in range(kills):
                await asyncio.sleep(draw.uniform(0.3, 1.0))
                place.gateway.kill()
                await asyncio.to_thread(place.gateway.start)
            async with asyncio.timeout(120):
                await reading
        kept = await place.kept()
    wrong = [
        f"{one['id']}: {reader.seen}"
        for one, reader in crowd
        if not _is_whole(reader.seen, [event.event for event in kept[one["id"]].events])
    ]
    connections = sum(reader.connections for _, reader in crowd)
    events = sum(len(reader.seen) for _, reader in crowd)
    return Bar(
        "readers that reconnect",
        not wrong,
        f"{len(crowd) - len(wrong)} of {len(crowd)} readers saw each event once, in order, done last",
        {"connections": connections, "events": events, "kills": kills} | ({"wrong": wrong[:2]} if wrong else {}),
    )


async def _create(client: httpx.AsyncClient, place: Place, headers: dict[str, str], number: int) -> dict[str, Any]:
    body = {"version": "acme/echo", "input": {"n": number, "prompt": WORDS}, "stream": True}
    answer = await client.post(f"{place.gateway.url}/v1/predictions", json=body, headers=headers)
    return dict(answer.raise_for_status().json())


def _path(made: dict[str, Any]) -> str:
    return "/" + str(made["urls"]["stream"]).split("/", 3)[3]


def _is_whole(seen: Sequence[tuple[str, str]], kept: Sequence[str]) -> bool:
    ids = [id for id, _ in seen]
    numbers = [int(id.rpartition(":")[2]) for id in ids]
    in_order = numbers == sorted(numbers) and len(set(ids)) == len(ids)
    return in_order and [event for _, event in seen] == list(kept) and kept[-1] == "done"
