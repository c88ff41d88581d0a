"""What befalls the gateways, their store and their network: kills, freezes, drains, outages; until a given time."""

from __future__ import annotations

import asyncio

from gateway.engine.worker import Leasing
from tests.chaos.universe.fate import WEATHER, Fate
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.network import Network
from tests.chaos.universe.replica import Replica


class Weather:
    """`store_out_until` is what the store's wires ask."""

    def __init__(
        self,
        loop: UniverseLoop,
        fate: Fate,
        network: Network,
        replicas: list[Replica],
        houses: list[str],
        hosts: list[str],
    ) -> None:
        self.store_out_until = 0.0
        self._loop = loop
        self._fate = fate
        self._network = network
        self._replicas = replicas
        self._houses = houses
        self._hosts = hosts
        self._busy: set[str] = set()  # gateways something is happening to

    async def blow(self, until: float) -> None:
        """Until then, and to the end of what was begun."""
        fate = self._fate
        menu = fate.random.choices(WEATHER, k=4)
        acts: list[asyncio.Task[None]] = []
        while self._loop.time() < until:
            await asyncio.sleep(fate.between(1.0, 15.0))
            if self._loop.time() >= until:
                break
            act = fate.random.choice(menu)
            replica = fate.random.choice(self._replicas)
            acts.append(self._loop.world.spawn(self._act(act, replica, until)))
        await asyncio.gather(*acts)
        self._network.clear()
        self.store_out_until = 0.0

    async def _act(self, act: str, replica: Replica, until: float) -> None:
        fate = self._fate
        left = until - self._loop.time()
        if act in ("F20 kill", "F22 freeze", "F25 drain"):
            if replica.name in self._busy:
                return
            fate.count(act)
            self._busy.add(replica.name)
            try:
                await self._strike(act, replica)
            finally:
                self._busy.discard(replica.name)
            return
        fate.count(act)
        if act == "F21 outage":
            self.store_out_until = self._loop.time() + min(left, fate.between(0.1, 12.0))
        elif act == "F23 clock step":
            replica.machine.step_seconds += fate.pick(3_600.0, -3_600.0, 5.0, -5.0)
        elif act == "F23 clock drift":
            replica.machine.drift = fate.pick(0.001, -0.001, 0.02, -0.02)
        elif act == "F28 all providers down":
            seconds = min(left, fate.between(2.0, 30.0))
            for house in self._houses:
                self._network.down_until[house] = self._loop.time() + seconds
        else:
            self._swizzle(left)

    async def _strike(self, act: str, replica: Replica) -> None:
        fate, process = self._fate, replica.process
        assert process is not None
        if act == "F22 freeze":
            seconds = fate.pick(fate.between(1.0, 10.0), fate.between(31.0, 50.0))
            if seconds > Leasing().lease:
                fate.count("F22 freeze beyond the lease")
            process.freeze(seconds)
            await asyncio.sleep(seconds)
            return
        if act == "F20 kill":
            replica.kill()
        else:
            # Now and then whoever stops it has no patience.
            drain = self._loop.world.spawn(replica.drain())
            done, _ = await asyncio.wait({drain}, timeout=fate.pick(60.0, 60.0, fate.between(0.0, 10.0)))
            if not done:
                replica.kill()
                await drain
        await asyncio.sleep(fate.between(0.0, 3.0))
        await replica.start()

    def _swizzle(self, left: float) -> None:
        """A random part of all links is clogged one by one, and released in another order."""
        names = [replica.process.name for replica in self._replicas if replica.process is not None]
        links = [(name, "store") for name in names]
        links += [(name, house) for name in names for house in self._houses]
        links += [(house, name) for name in names for house in self._houses]
        links += [(name, host) for name in names for host in self._hosts]
        for one, other in self._fate.random.sample(links, max(1, len(links) // self._fate.pick(2, 4, 8))):
            self._network.clog(one, other, min(left, self._fate.between(0.5, 25.0)))
