"""The scenarios: which trouble befalls the processes of a scene while the callers call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.chaos.judge import Verdict
from tests.chaos.kills.scene import Options, Scene

Scenario = Callable[[Path, Options], Verdict]

KILL_SECONDS = 2.0  # a gateway lives so long
REDIS_KILL_SECONDS = 5.0
MOST_DOWN_SECONDS = 2.0
PAUSE_LEASE_SECONDS = 5.0  # of those that are frozen: so that it can be slept through many times


def gateway(folder: Path, options: Options) -> Verdict:
    """kill -9 of a gateway every two seconds of its life; of several each in its turn."""

    async def kill(scene: Scene, over: asyncio.Event) -> None:
        draw, number = random.Random(options.seed), 0
        while not await _waited(over, KILL_SECONDS * draw.uniform(0.5, 1.5)):
            await asyncio.to_thread(scene.kill, scene.gateways[number % len(scene.gateways)])
            number += 1

    return _play(folder, options, kill)


def redis(folder: Path, options: Options) -> Verdict:
    """kill -9 of redis-server every five seconds, down for up to two."""

    async def kill(scene: Scene, over: asyncio.Event) -> None:
        draw, server = random.Random(options.seed), scene.redis
        assert server is not None, "this scenario is Redis' own"
        while not await _waited(over, REDIS_KILL_SECONDS * draw.uniform(0.5, 1.5)):
            scene.trouble()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(draw.uniform(0, MOST_DOWN_SECONDS))
            await asyncio.to_thread(server.start)
            scene.trouble()

    return _play(folder, replace(options, store="redis", gateways=max(options.gateways, 2)), kill)


def pause(folder: Path, options: Options) -> Verdict:
    """SIGSTOP of one of two gateways for three leases, then SIGCONT; each in its turn."""
    lease = min(options.lease_seconds, PAUSE_LEASE_SECONDS)

    async def freeze(scene: Scene, over: asyncio.Event) -> None:
        draw, number = random.Random(options.seed), 0
        while not await _waited(over, lease * draw.uniform(0.5, 1.0)):
            one = scene.gateways[number % 2]
            number += 1
            scene.trouble()
            one.freeze()
            await asyncio.sleep(3 * lease)
            one.thaw()
            scene.trouble()

    return _play(folder, replace(options, store="redis", gateways=2, lease_seconds=lease), freeze)


def _play(folder: Path, options: Options, trouble: Callable[[Scene, asyncio.Event], object]) -> Verdict:
    async def play() -> Verdict:
        with Scene(folder, options) as scene:
            return await scene.play(lambda over: asyncio.create_task(trouble(scene, over)))  # type: ignore[arg-type]

    return asyncio.run(play())


async def _waited(over: asyncio.Event, seconds: float) -> bool:
    """False when the time has passed; True as soon as it is over."""
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    return True
