"""
What the gateway costs: the same upstream called directly and through Turnout, in one run, in turn.

`python -m tests.bench.overhead [--count N] [--clients N] [--rounds N] [--profile FILE]`

Prints ratios, the gateway's CPU time per prediction (user + system, of the gateway's process alone: steadier than wall
time on a shared machine) and its peak memory. The store is on, with an fsync before every 201.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import aiohttp
import uvloop

TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = """
[server]
max_in_flight = 20000
[local]
enabled = false
[telemetry]
log_level = "warning"
[providers.bench]
adapter = "replicate"
base_url = "http://127.0.0.1:{port}/v1"
callbacks = false
max_connections = 4000
options = {{ wait = true }}
[[models]]
name = "bench/echo"
[[models.offers]]
provider = "bench"
name = "bench/echo"
price = {{ per_second = "0.0001" }}
"""


class Process:
    """A child whose CPU time and memory can be asked for."""

    def __init__(self, *command: str, folder: str) -> None:
        self.child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_mib(self) -> float:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.child.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(30)


@contextmanager
def peers(profile: str | None) -> Iterator[tuple[Process, str, str, str, float]]:
    """(gateway, its URL, key, the upstream's URL, seconds until ready)."""
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = root
        upstream = Process(sys.executable, "-m", "tests.bench.upstream", folder=folder)
        port = upstream.line().strip()
        Path(folder, "turnout.toml").write_text(CONFIG.format(port=port))
        start = time.monotonic()
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
        if profile:
            command[1:2] = ["-m", "cProfile", "-o", os.path.abspath(profile), "-m"]
        gateway = Process(*command, folder=folder)
        try:
            url = key = ""
            while not (url and key):
                line = gateway.line()
                if not line:
                    raise SystemExit("the gateway did not start")
                url = url or (found[1] if (found := re.search(r"serves at (\S+)/v1", line)) else "")
                key = key or (found[1] if (found := re.search(r"REPLICATE_API_TOKEN=(\S+)", line)) else "")
            yield gateway, url, key, f"http://127.0.0.1:{port}", time.monotonic() - start
        finally:
            gateway.end()
            upstream.end()


async def rush(calls: int, clients: int, call: Callable[[], Awaitable[None]]) -> tuple[float, list[float]]:
    """(wall seconds, each call's seconds), with so many clients in turn."""
    left = iter(range(calls))
    times: list[float] = []

    async def client() -> None:
        for _ in left:
            begun = time.perf_counter()
            await call()
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - begun, times


async def measure(options: argparse.Namespace) -> None:
    with peers(options.profile) as (gateway, url, key, upstream, ready_seconds):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            numbers = count()

            def body() -> str:
                return json.dumps({"version": "bench/echo", "input": {"prompt": f"hello {next(numbers)}"}})

            async def direct() -> None:
                async with session.post(f"{upstream}/v1/predictions", data=body()) as answer:
                    assert (await answer.json())["status"] == "succeeded"

            async def waited() -> None:
                wait = headers | {"prefer": "wait"}
                async with session.post(f"{url}/v1/predictions", data=body(), headers=wait) as answer:
                    got = await answer.json()
                    assert got["status"] == "succeeded", got

            async def polled() -> None:
                async with session.post(f"{url}/v1/predictions", data=body(), headers=headers) as answer:
                    id = (await answer.json())["id"]
                while True:
                    async with session.get(f"{url}/v1/predictions/{id}", headers=headers) as answer:
                        if (await answer.json())["status"] == "succeeded":
                            return
                    await asyncio.sleep(0.05)  # a tenth of what the official clients wait

            async def slow() -> None:
                wait = headers | {"prefer": "wait"}
                late = json.dumps(
                    {"version": "bench/echo", "input": {"seconds": options.slow_seconds, "n": next(numbers)}}
                )
                async with session.post(f"{url}/v1/predictions", data=late, headers=wait) as answer:
                    got = await answer.json()
                    assert got["status"] == "succeeded", got

            await rush(200, 8, waited)  # warm
            rows: dict[str, list[tuple[float, float, float]]] = {}
            for _ in range(options.rounds):
                for name, call in (("direct", direct), ("waited create", waited), ("create + poll", polled)):
                    cpu = gateway.cpu_seconds()
                    wall, times = await rush(options.count, options.clients, call)
                    spent = (gateway.cpu_seconds() - cpu) / options.count
                    rows.setdefault(name, []).append((wall, statistics.median(times), spent))
            cpu = gateway.cpu_seconds()
            _, times = await rush(options.slow, options.slow, slow)
            slow_cpu = (gateway.cpu_seconds() - cpu) / options.slow
            report(rows, options, ready_seconds, gateway.peak_mib(), slow_cpu, max(times))


def report(
    rows: dict[str, list[tuple[float, float, float]]],
    options: argparse.Namespace,
    ready_seconds: float,
    peak_mib: float,
    slow_cpu: float,
    slowest: float,
) -> None:
    print(f"{options.rounds} rounds of {options.count} calls by {options.clients} clients, in turn; medians of rounds")
    base = statistics.median(wall for wall, _, _ in rows["direct"])
    print(f"{'':16}{'calls/s':>10}{'p50 ms':>10}{'x direct':>10}{'gateway CPU us':>16}")
    for name, found in rows.items():
        wall, p50, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        rate = options.count / wall
        shown = f"{cpu * 1e6:16.0f}" if name != "direct" else f"{'-':>16}"
        print(f"{name:16}{rate:10.0f}{p50 * 1e3:10.2f}{wall / base:10.2f}{shown}")
    waited = statistics.median(cpu for _, _, cpu in rows["waited create"])
    print(
        f"{options.slow} slow ones at once ({options.slow_seconds:g} s each): the slowest took {slowest:.2f} s, "
        f"{slow_cpu * 1e6:.0f} us of CPU each, {slow_cpu / waited:.2f} x an instant one"
    )
    print(f"ready to serve after {ready_seconds:.2f} s; peak memory {peak_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--slow-seconds", type=float, default=5.0)
    parser.add_argument("--profile", help="write the gateway's cProfile here")
    uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
