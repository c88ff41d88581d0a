"""One simulated provider: its jobs, its callbacks, and Replicate's HTTP dialect over them, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import msgspec

from gateway.contract.clock import SeededIds
from gateway.delivery.webhook import Signer
from gateway.simulator.behaviour import Behaviour, Dice
from gateway.simulator.job import Job

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_BODY_BYTES = 64_000_000
_CALLBACK_TRIES = 4


class Cut(Exception):
    """The connection is to be broken without an answer."""


class Provider:
    """`base` is its address without `/v1`, known once it listens. `cut` breaks the connection of a scope."""

    def __init__(self, name: str, behaviour: Behaviour, *, secret: str, cut: Callable[[Scope], None]) -> None:
        self.name = name
        self.behaviour = behaviour
        self.base = ""
        self.secret = secret
        self.jobs: dict[str, Job] = {}
        self._cut = cut
        self._dice = Dice(behaviour.seed)
        self._ids = SeededIds(behaviour.seed)
        self._signer = Signer((secret,))
        self._client = httpx.AsyncClient(timeout=10, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._slots: asyncio.Semaphore | None = None
        self._is_cold = True

    def change(self, changes: dict[str, Any]) -> None:
        """Raises ConfigurationError. Jobs that were started keep their fate."""
        before, self.behaviour = self.behaviour, self.behaviour.changed(changes)
        if before.capacity != self.behaviour.capacity:
            self._slots = None
        if before.seed != self.behaviour.seed:
            self._dice = Dice(self.behaviour.seed)

    def chill(self) -> None:
        """The next job starts cold."""
        self._is_cold = True

    async def aclose(self) -> None:
        tasks = [*self._tasks, *self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _start(self, body: dict[str, Any], model: str) -> Job:
        fate = self._dice.cast(self.behaviour)
        job = Job(self._ids.prediction(), body, fate, model=model, base=self.base)
        if fate.submit in ("refuse", "throttle", "cut_before"):
            return job
        self.jobs[job.id] = job
        self._runs[job.id] = asyncio.create_task(self._drive(job))
        return job

    async def _drive(self, job: Job) -> None:
        behaviour = self.behaviour
        cold, self._is_cold = behaviour.slow_start if self._is_cold else 0.0, False
        await asyncio.sleep(job.fate.queue_seconds + cold)
        if behaviour.capacity and self._slots is None:
            self._slots = asyncio.Semaphore(behaviour.capacity)
        async with self._slots if behaviour.capacity and self._slots else contextlib.nullcontext():
            running = asyncio.create_task(job.run(behaviour, self._client))
            try:
                if "start" in job.events:
                    await asyncio.sleep(0)
                    self._call_back(job)
                await running
            finally:
                running.cancel()
        self._call_back(job)

    def cancel(self, job: Job) -> None:
        if job.is_terminal:
            return
        job.cancel(self.behaviour)
        self._runs[job.id].cancel()
        self._call_back(job)

    def _call_back(self, job: Job) -> None:
        if job.webhook is None or job.fate.loses_webhook or (job.is_terminal and "completed" not in job.events):
            return
        body = msgspec.json.encode(job.shown())
        task = asyncio.create_task(self._deliver(job.webhook, f"msg_{job.id}{job.status[:4]}", body, job.is_terminal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, url: str, id: str, body: bytes, is_final: bool) -> None:
        for number in range(_CALLBACK_TRIES if is_final else 1):
            now = int(time.time())
            headers = {
                "content-type": "application/json",
                "webhook-id": id,
                "webhook-timestamp": str(now),
                "webhook-signature": self._signer.sign(id, now, body),
            }
            with contextlib.suppress(httpx.HTTPError):
                if (await self._client.post(url, content=body, headers=headers)).is_success:
                    return
            await asyncio.sleep(0.2 * 2**number)

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except Cut:
            self._cut(scope)
        except (msgspec.DecodeError, UnicodeDecodeError):
            await problem(send, 400, "the body is not JSON")

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, parts = scope["method"], [part for part in scope["path"].split("/") if part]
        match (method, *parts):
            case ("POST", "v1", "predictions"):
                await self._create(scope, await read_body(receive), send, model="")
            case ("POST", "v1", "models", owner, name, "predictions"):
                await self._create(scope, await read_body(receive), send, model=f"{owner}/{name}")
            case ("GET", "v1", "predictions"):
                jobs = [job.shown() for job in reversed(self.jobs.values())][:100]
                await answer(send, 200, {"next": None, "previous": None, "results": jobs})
            case ("GET", "v1", "predictions", id) if id in self.jobs:
                await answer(send, 200, self.jobs[id].shown())
            case ("POST", "v1", "predictions", id, "cancel") if id in self.jobs:
                self.cancel(self.jobs[id])
                await answer(send, 200, self.jobs[id].shown())
            case ("GET", "v1", "webhooks", "default", "secret"):
                await answer(send, 200, {"key": self.secret})
            case ("GET", "stream", id) if id in self.jobs:
                await self._stream(self.jobs[id], send)
            case ("GET", "files", id, name) if id in self.jobs and name in self.jobs[id].files:
                await _reply(send, 200, self.jobs[id].files[name], "image/png")
            case _:
                await problem(send, 404, "The requested resource could not be found.")

    async def _create(self, scope: Scope, raw: bytes, send: Send, *, model: str) -> None:
        body = msgspec.json.decode(raw)
        if not isinstance(body, dict) or not isinstance(body.get("input", {}), dict):
            await problem(send, 422, "input must be an object")
            return
        version = str(body.get("version") or "")
        model = model or (version.partition(":")[0] if "/" in version else "simulated/model")
        job = self._start(body, model)
        match job.fate.submit:
            case "cut" | "cut_before":
                raise Cut
            case "refuse":
                await problem(send, 500, "Internal server error")
            case "throttle":
                seconds = max(1, round(self.behaviour.retry_after))
                detail = f"Request was throttled. Your rate limit resets in ~{seconds}s."
                body = {"detail": detail, "status": 429, "retry_after": seconds}
                await answer(send, 429, body, {"retry-after": str(seconds)})
            case "garbage":
                await _reply(send, 201, b'{"id": "', "application/json")
            case "accept":
                await self._await_end(job, _wait_seconds(scope))
                await answer(send, 201, job.shown())

    async def _await_end(self, job: Job, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while seconds and not job.is_terminal:
                    await job.changed.wait()

    async def _stream(self, job: Job, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        told, number = 0, 0

        async def event(name: str, data: str) -> None:
            nonlocal number
            lines = "".join(f"data: {line}\n" for line in data.split("\n"))
            text = f"event: {name}\nid: {int(time.time())}:{number}\n{lines}\n"
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            number += 1

        while True:
            changed = job.changed
            output = job.output if isinstance(job.output, list) else [job.output] if job.output else []
            for chunk in output[told:]:
                await event("output", chunk if isinstance(chunk, str) else msgspec.json.encode(chunk).decode())
            told = len(output)
            if job.is_terminal:
                break
            await changed.wait()
        if job.status == "failed":
            await event("error", msgspec.json.encode({"detail": job.error}).decode())
        reason = {"succeeded": "{}", "failed": '{"reason":"error"}'}.get(job.status, '{"reason":"canceled"}')
        await event("done", reason)
        await send({"type": "http.response.body", "body": b""})


async def read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body.extend(message.get("body", b""))
        if not message.get("more_body") or len(body) > _MOST_BODY_BYTES:
            return bytes(body)


def _wait_seconds(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == b"prefer" and value.startswith(b"wait"):
            number = value.partition(b"=")[2]
            return float(number) if number.isdigit() else 60.0
    return 0.0


async def problem(send: Send, status: int, detail: str) -> None:
    await answer(send, status, {"detail": detail, "status": status})


async def answer(send: Send, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    await _reply(send, status, msgspec.json.encode(body), "application/json", headers)


async def _reply(
    send: Send, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> None:
    fields = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
