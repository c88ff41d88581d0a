"""The processes of the demonstration: simulated providers, the gateway, and a receiver of webhooks. Loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx

from gateway.contract.errors import CallbackForged, TurnoutError
from gateway.simulator import SECRET
from providers._signature import verify

HOST = "127.0.0.1"
MODEL = "turnout/upscaler"
STAGE_SECONDS = 30.0
SECRET_NAME = "TURNOUT_DEMO_CALLBACK_SECRET"  # noqa: S105 - the name of a variable


class DemoFailed(TurnoutError):
    """A process of the demonstration did not do its part."""


class Simulated:
    """One simulated provider: what it is said to be, and its price as the gateway's configuration states it."""

    def __init__(self, name: str, *, price: str, queue: float, run: float, error: float, seed: int) -> None:
        self.name = name
        self.price = price  # dollars per prediction
        self.queue_seconds = queue
        self.run_seconds = run
        self.error_rate = error
        self.seed = seed


PROVIDERS = (
    Simulated("thrifty", price="0.0004", queue=0.05, run=0.55, error=0.10, seed=1),
    Simulated("swift", price="0.0020", queue=0.02, run=0.12, error=0.06, seed=2),
    Simulated("steady", price="0.0012", queue=0.05, run=0.35, error=0.0, seed=3),
)

POLICIES = """
[[policies]]
name = "by-cost"
description = "The least expected price."
rank = { by = "cost" }
limits = { deadline_seconds = 60, attempt_seconds = 4, attempts = 5, pay_twice_up_to = "0.01" }

[[policies]]
name = "by-latency"
description = "The least time to a result."
rank = { by = "latency", explore = 0.2 }
limits = { deadline_seconds = 60, attempt_seconds = 4, attempts = 5, pay_twice_up_to = "0.01" }

[[policies]]
name = "by-health"
description = "The best share of successes."
rank = { by = "health", explore = 0.1 }
limits = { deadline_seconds = 60, attempt_seconds = 4, attempts = 5, pay_twice_up_to = "0.01" }
"""


def configuration(addresses: dict[str, str], receiver_port: int) -> str:
    """The gateway's turnout.toml: three providers that sell one model, and the local backend behind them."""
    parts = [
        f'[webhooks]\nallow = ["{HOST}:{receiver_port}"]\nallow_http = true\n',
        '[policies]\nfiles = ["policies.toml"]\ndefault = "by-cost"\n',
        '[telemetry]\nlog_level = "warning"\n',
        "[catalogue]\nenabled = false\n",  # whatever tokens there are, nothing is paid for here
    ]
    parts += [
        f'[providers.{name}]\nadapter = "replicate"\nbase_url = "{address}"\n'
        f'webhook_secret = "env:{SECRET_NAME}"\nhold_seconds = 2\n'
        "options = { max_inline_bytes = 10000000, min_poll_seconds = 0.2 }\n"
        for name, address in addresses.items()
    ]
    parts.append(f'[[models]]\nname = "{MODEL}"\n')
    parts += [
        f'[[models.offers]]\nprovider = "{provider.name}"\nname = "{MODEL}"\n'
        f'price = {{ per_prediction = "{provider.price}" }}\n'
        for provider in PROVIDERS
    ]
    return "\n".join(parts)


class Child:
    """A process of ours that says on its first lines where it can be reached."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, arguments: Sequence[str], *, folder: Path, log: str) -> Child:
        path = folder / log
        with path.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                *arguments,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                env={**os.environ, SECRET_NAME: SECRET},
            )
        return cls(process, path)

    async def read(self, pattern: str) -> re.Match[str]:
        """The first match on its standard output. Raises DemoFailed with its last words if it ends before."""
        output = self._process.stdout
        assert output is not None  # noqa: S101 - it is a pipe, see start
        try:
            async with asyncio.timeout(STAGE_SECONDS):
                while line := (await output.readline()).decode():
                    found = re.search(pattern, line)
                    if found:
                        return found
        except TimeoutError:
            pass
        last = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise DemoFailed("a process of the demonstration did not start: " + " / ".join(last))

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(20):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


class Receiver:
    """Takes webhooks on a socket of its own and verifies each with the secret that the gateway hands out."""

    def __init__(self) -> None:
        self.secret = ""
        self.port = 0
        self.verified: dict[str, list[str]] = {}  # by prediction: ids of genuine deliveries of its end
        self.forged = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in fields}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status = "204 No Content" if self._take(headers, body) else "401 Unauthorized"
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    def _take(self, headers: dict[str, str], body: bytes) -> bool:
        try:
            id = verify(headers, body, secrets=(self.secret,), now=datetime.now(UTC))
        except CallbackForged:
            self.forged += 1
            return False
        prediction = json.loads(body)
        if prediction["status"] in ("succeeded", "failed", "canceled", "aborted"):
            self.verified.setdefault(prediction["id"], []).append(id)
        return True


class Stage:
    """Everything that runs during the demonstration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.receiver = Receiver()
        self.url = ""
        self.key = ""
        self.simulator_url = ""
        self._children: list[Child] = []
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)

    async def raise_curtain(self) -> None:
        """Start everything; raises DemoFailed if a part does not come up."""
        await self.receiver.start()
        simulator = await self._start(_simulator_arguments(), "simulator.log")
        addresses = {}
        for provider in PROVIDERS:
            found = await simulator.read(rf"{provider.name}\b.*?(http://\S+?/v1)\b")
            addresses[provider.name] = found[1]
        control = await simulator.read(r"(http://\S+?)/control")
        self.simulator_url = control[1]
        (self.folder / "policies.toml").write_text(POLICIES)
        (self.folder / "turnout.toml").write_text(configuration(addresses, self.receiver.port))
        gateway = await self._start(["serve", "--port", "0"], "gateway.log")
        self.url = (await gateway.read(r"serves at (http://\S+)/v1"))[1]
        self.key = (await gateway.read(r"REPLICATE_API_TOKEN=(\S+)"))[1]
        self.client.headers["authorization"] = f"Bearer {self.key}"
        self.receiver.secret = (await self.client.get(f"{self.url}/v1/webhooks/default/secret")).json()["key"]
        await self._await_local()

    async def lower_curtain(self) -> None:
        await self.client.aclose()
        for child in reversed(self._children):
            await child.stop()
        await self.receiver.stop()

    async def kill(self, name: str) -> None:
        """The provider is gone: connections to it are refused."""
        (await self.client.post(f"{self.simulator_url}/control/{name}/down")).raise_for_status()

    async def breakers(self) -> dict[str, str]:
        """Provider → closed, probing, open, as the gateway's metrics have it."""
        text = (await self.client.get(f"{self.url}/metrics")).text
        words = {"0": "closed", "1": "probing", "2": "open"}
        found = re.findall(r'turnout_breaker_state\S*\{[^}]*offer="[^"@]*@([^"#]+)[^}]*\} (\d)', text)
        return {name: words.get(value, "closed") for name, value in found}

    async def _start(self, arguments: Sequence[str], log: str) -> Child:
        child = await Child.start(arguments, folder=self.folder, log=log)
        self._children.append(child)
        return child

    async def _await_local(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + STAGE_SECONDS
        while loop.time() < until:
            text = (await self.client.get(f"{self.url}/metrics")).text
            if re.search(r"turnout_local_backend_up\S* 1", text):
                return
            await asyncio.sleep(0.1)
        raise DemoFailed("the local backend did not become ready; see `turnout doctor`")


def _simulator_arguments() -> list[str]:
    arguments = ["simulator", "--host", HOST, "--port", "0"]
    for provider in PROVIDERS:
        arguments += [
            "--provider",
            f"{provider.name},price={provider.price},queue={provider.queue_seconds},median={provider.run_seconds},"
            f"error={provider.error_rate},seed={provider.seed}",
        ]
    return arguments
