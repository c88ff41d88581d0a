"""Where a bar is measured: simulated providers as it wants them, one gateway, a listener, and perhaps Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from gateway.contract.key import hash_key, new_key
from tests.chaos.bars.holding import RedisRows, Rows, SqliteRows
from tests.chaos.callers import Callers
from tests.chaos.evidence import Kept, opened, read_all
from tests.chaos.gateway import ChaosGateway
from tests.chaos.listener import Listener
from tests.chaos.simulator_process import SimulatorProcess
from tests.redis.server import RedisServer

CONFIG = """
[keys.app]
hash = "{hash}"
scopes = ["predictions", "models", "files", "admin"]
[store]
url = "{store}"
[local]
enabled = false
[catalogue]
enabled = false
[webhooks]
allow = ["{place}"]
allow_http = true
[telemetry]
log_level = "warning"
[policies]
files = ["policy.toml"]
default = "bar"
[server]
max_in_flight = 20000
drain_seconds = 5
lease_seconds = {lease_seconds}
"""
POLICY = """
[[policies]]
name = "bar"
rank = {{ by = "ordered", order = [{order}] }}
limits = {{ attempts = 4, deadline_seconds = 600, pay_twice_up_to = "0" }}
fallback = {{ provider = "" }}
"""


@dataclass(frozen=True)
class Party:
    """A simulated provider: how it behaves, and how the gateway knows it."""

    behaviour: str
    concurrency: int = 0
    price: str = "0.01"


@dataclass
class Bar:
    """One measured bar: what was asked, what was found, and whether that is enough."""

    name: str
    is_met: bool
    said: str
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        return f"{'met   ' if self.is_met else 'MISSED'} {self.name}: {self.said}{'; ' if figures else ''}{figures}"

    def lines(self) -> list[str]:
        """For the page."""
        told = [f"- {name}: {value}" for name, value in self.figures.items()]
        return [f"**{'Met' if self.is_met else 'Missed'}**, {self.name}: {self.said}.", *([""] if told else []), *told]


class Place:
    def __init__(
        self,
        folder: Path,
        parties: Mapping[str, Party],
        *,
        store: str = "sqlite",
        is_fresh: bool = False,
        lease_seconds: float = 30.0,
    ) -> None:
        self.folder = folder
        self._parties = parties
        self._store = store
        self._is_fresh = is_fresh
        self._lease_seconds = lease_seconds
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Place:
        try:
            self._enter(self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def _enter(self, stack: ExitStack) -> None:
        self.listener = stack.enter_context(Listener())
        said = [f"{name},seed={number},{one.behaviour}" for number, (name, one) in enumerate(self._parties.items(), 1)]
        self.simulator = stack.enter_context(SimulatorProcess(self.folder, *said))
        url = "sqlite:///turnout-data/turnout.db"
        self.rows: Rows = SqliteRows(self.folder / "gateway" / "turnout-data" / "turnout.db")
        if self._store == "redis":
            url = stack.enter_context(RedisServer(self.folder / "redis")).url
            self.rows = RedisRows(url)
        self.key = new_key("bar").text
        self.environ = {"SIMULATOR_SECRET": self.simulator.secret}
        text = CONFIG.format(
            hash=hash_key(self.key), store=url, place=self.listener.place, lease_seconds=self._lease_seconds
        )
        text += self._offers()
        self.gateway = ChaosGateway(
            self.folder / "gateway",
            text,
            key=self.key,
            environ=self.environ,
            is_fresh=self._is_fresh,
        )
        order = ", ".join(f'"{name}"' for name in self._parties)
        (self.gateway.folder / "policy.toml").write_text(POLICY.format(order=order))
        stack.callback(self.gateway.kill)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def callers(self, count: int, *, hooks: str = "/hook") -> Callers:
        return Callers(lambda: [self.gateway.url], self.listener, key=self.key, count=count, hooks=hooks)

    def control(self, name: str, what: str) -> None:
        """POST …/down or …/up."""
        httpx.post(f"{self.simulator.control_url}/{name}/{what}", trust_env=False, timeout=20).raise_for_status()

    def change(self, name: str, **changes: Any) -> None:
        httpx.patch(f"{self.simulator.control_url}/{name}", json=changes, trust_env=False).raise_for_status()

    async def kept(self) -> dict[str, Kept]:
        """What is in the store, once the gateway has stopped."""
        if self.gateway.is_running:
            await asyncio.to_thread(self.gateway.stop)
        async with opened(self.gateway.folder, self.environ) as store:
            return await read_all(store)

    def _offers(self) -> str:
        lines = ['[[models]]\nname = "acme/echo"']
        lines += [
            f'[[models.offers]]\nprovider = "{name}"\nname = "acme/echo"\nprice = {{ per_prediction = "{one.price}" }}'
            for name, one in self._parties.items()
        ]
        lines += [
            f'[providers.{name}]\nadapter = "replicate"\nbase_url = "{self.simulator.urls[name]}"\n'
            f'webhook_secret = "env:SIMULATOR_SECRET"\nconcurrency = {one.concurrency}'
            for name, one in self._parties.items()
        ]
        return "\n".join(lines) + "\n"


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def per_second(moments: Sequence[float]) -> list[int]:
    """How many fall into each whole second, from the first moment to the last."""
    if not moments:
        return []
    first = min(moments)
    counts = [0] * (int(max(moments) - first) + 1)
    for moment in moments:
        counts[int(moment - first)] += 1
    return counts


def busiest(moments: Sequence[float], *, seconds: float = 1.0) -> int:
    """The most that fall into any window of so long."""
    ordered, most, first = sorted(moments), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
