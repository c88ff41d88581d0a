"""One simulated provider: its jobs, its callbacks, and Replicate's HTTP dialect over them, as an ASGI application."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import httpx
import msgspec

from gateway.contract.clock import RandomIds
from gateway.simulator.behaviour import Behaviour, Dice, Fate
from gateway.simulator.job import Job
from providers._transport import make_transport

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_BODY_BYTES = 64_000_000
_MOST_WAIT_SECONDS = 60
_COMMENT_SECONDS = 15.0
_CALLBACK_TRIES = 4
_MAX_CONNECTIONS = 100  # of one provider, to those it calls back
_KEEP_SECONDS = 15.0
_CALLBACK_EVENTS = ("start", "output", "logs", "completed")
_FORGED = "whsec_" + base64.b64encode(b"somebody else who wants to be us").decode()
_PAGE = 100  # jobs in a listing
_FIELDS = frozenset({"version", "input", "webhook", "webhook_events_filter", "stream", "webhook_completed"})


class Cut(Exception):
    """The connection is to be broken without an answer."""


class BodyRefused(ValueError):
    """The body of a create is not one; the message says why, for its caller."""


class Provider:
    """`base` is its address without `/v1`, known once it listens. `cut` breaks the connection of a scope."""

    def __init__(self, name: str, behaviour: Behaviour, *, secret: str, cut: Callable[[Scope], None]) -> None:
        self.name = name
        self.behaviour = behaviour
        self.base = ""
        self.secret = secret
        self.jobs: dict[str, Job] = {}
        self._cut = cut
        self.is_down = False
        self._dice = Dice(behaviour.seed)
        # Never seeded: after a restart an old handle must not find somebody else's job.
        self._ids = RandomIds()
        # httpx's own pool works with the square of what is on its way: hundreds of callbacks at once would be its end.
        transport = make_transport(max_connections=_MAX_CONNECTIONS, keep_alive_seconds=_KEEP_SECONDS)
        self._client = httpx.AsyncClient(transport=transport, timeout=10, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._running = 0
        self._room = asyncio.Event()
        self._is_cold = True

    def change(self, changes: dict[str, Any]) -> None:
        """Raises ConfigurationError. Jobs that were started keep their fate."""
        before, self.behaviour = self.behaviour, self.behaviour.changed(changes)
        self._room.set()
        if before.seed != self.behaviour.seed:
            self._dice = Dice(self.behaviour.seed)

    def go_down(self) -> None:
        """It is gone: what runs is lost, and nobody is told."""
        self.is_down = True
        for task in self._tasks:
            task.cancel()
        for job in self.jobs.values():
            if not job.is_terminal:
                job.end("failed", error="Prediction interrupted; please retry (code: PA)")
                self._runs[job.id].cancel()

    def come_up(self) -> None:
        """The next job starts cold."""
        self.is_down = False
        self._is_cold = True

    async def aclose(self) -> None:
        self.go_down()
        tasks = [*self._tasks, *self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _start(self, body: dict[str, Any], fate: Fate, model: str, idempotency_key: str | None) -> Job:
        id = self._ids.prediction()
        job = Job(id, body, fate, model=model, base=self.base, idempotency_key=idempotency_key)
        self.jobs[job.id] = job
        self._runs[job.id] = asyncio.create_task(self._drive(job))
        return job

    async def _drive(self, job: Job) -> None:
        behaviour = self.behaviour
        cold, self._is_cold = behaviour.slow_start if self._is_cold else 0.0, False
        await asyncio.sleep(job.fate.queue_seconds + cold)
        async with self._slot():
            running = asyncio.create_task(job.run(behaviour, self._client))
            try:
                if "start" in job.events:
                    await asyncio.sleep(0)
                    self._call_back(job)
                await running
            finally:
                running.cancel()
        self._call_back(job)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the jobs that run at once; the capacity is looked up anew, for it may change meanwhile."""
        while self.behaviour.capacity and self._running >= self.behaviour.capacity:
            self._room.clear()
            await self._room.wait()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._room.set()

    def cancel(self, job: Job) -> None:
        if job.is_terminal:
            return
        job.cancel(self.behaviour)
        self._runs[job.id].cancel()
        self._call_back(job)

    def _call_back(self, job: Job) -> None:
        if job.webhook is None or job.fate.loses_webhook or (job.is_terminal and "completed" not in job.events):
            return
        if self.is_down:
            return
        shown, id, fate = job.shown(), f"msg_{job.id}{job.status[:4]}", job.fate
        if fate.is_forged:
            lie = shown | {"status": "failed" if job.status == "succeeded" else "succeeded", "output": "forged"}
            self._send(self._deliver(job.webhook, id, msgspec.json.encode(lie), is_final=False, secret=_FORGED))
        for _ in range(fate.callbacks):
            body = msgspec.json.encode(shown)
            self._send(self._deliver(job.webhook, id, body, job.is_terminal, delay=fate.callback_seconds))

    def _send(self, delivery: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(delivery)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(
        self, url: str, id: str, body: bytes, is_final: bool, *, delay: float = 0.0, secret: str = ""
    ) -> None:
        await asyncio.sleep(delay)
        for number in range(_CALLBACK_TRIES if is_final else 1):
            now = int(time.time())
            headers = {
                "content-type": "application/json",
                "webhook-id": id,
                "webhook-timestamp": str(now),
                "webhook-signature": _sign(secret or self.secret, id, now, body),
            }
            with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
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
            while (await receive())["type"] != "http.disconnect":
                pass
        except BodyRefused as refused:
            await problem(send, 422, str(refused))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            await problem(send, 400, "the body is not JSON")

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, parts = scope["method"], [part for part in scope["path"].split("/") if part]
        match (method, *parts):
            case ("POST", "v1", "predictions"):
                await self._create(scope, await read_body(receive), send, model="")
            case ("POST", "v1", "models", owner, name, "predictions"):
                await self._create(scope, await read_body(receive), send, model=f"{owner}/{name}")
            case ("GET", "v1", "predictions"):
                await answer(send, 200, self._page(scope["query_string"].decode("latin-1")))
            case (_, "v1", "predictions", id, *_) if id in self.jobs and self._dice.stumbles(self.behaviour):
                await problem(send, 500, "Internal server error")
            case ("GET", "v1", "predictions", id) if id in self.jobs:
                await answer(send, 200, self.jobs[id].shown())
            case ("POST", "v1", "predictions", id, "cancel") if id in self.jobs:
                self.cancel(self.jobs[id])
                await answer(send, 200, self.jobs[id].shown())
            case ("GET", "v1", "webhooks", "default", "secret"):
                await answer(send, 200, {"key": self.secret})
            case ("GET", "v1", "stream", id) if id in self.jobs:
                await self._stream(self.jobs[id], receive, send)
            case ("GET", "v1", "files", id, name) if id in self.jobs and name in self.jobs[id].files:
                await _reply(send, 200, self.jobs[id].files[name], "image/png")
            case _:
                await problem(send, 404, "The requested resource could not be found.")

    def _page(self, query: str) -> dict[str, Any]:
        """Newest first, as Replicate lists; `cursor` is how many are left to show."""
        cursor = re.search(r"(?:^|&)cursor=(\d{1,9})(?:&|$)", query)
        end = min(int(cursor[1]), len(self.jobs)) if cursor else len(self.jobs)
        first = max(0, end - _PAGE)
        jobs = [job.shown() for job in itertools.islice(self.jobs.values(), first, end)]
        following = f"{self.base}/v1/predictions?cursor={first}" if first else None
        return {"next": following, "previous": None, "results": jobs[::-1]}

    async def _create(self, scope: Scope, raw: bytes, send: Send, *, model: str) -> None:
        fate = self._dice.cast(self.behaviour)
        match fate.submit:
            case "cut_before":
                raise Cut
            case "refuse":
                await problem(send, 500, "Internal server error")
                return
            case "throttle":
                seconds = max(1, round(self.behaviour.retry_after))
                detail = f"Request was throttled. Your rate limit resets in ~{seconds}s."
                refusal = {"detail": detail, "status": 429, "retry_after": seconds}
                await answer(send, 429, refusal, {"retry-after": str(seconds)})
                return
        body = _read_create(raw)
        version = str(body.get("version") or "")
        model = model or (version.partition(":")[0] if "/" in version else "simulated/model")
        job = self._start(body, fate, model, _header(scope, b"idempotency-key"))
        if fate.submit == "cut":
            raise Cut
        if fate.submit == "garbage":
            await _reply(send, 201, b'{"id": "', "application/json")
            return
        if fate.submit == "truncate":
            await _break_off(send, job)
            raise Cut
        await asyncio.sleep(fate.answer_seconds)
        seconds = _wait_seconds(_header(scope, b"prefer") or "")
        await self._await_end(job, seconds)
        if self.is_down:
            raise Cut
        await answer(send, 201, job.created(), {"preference-applied": f"wait={seconds}"} if seconds else None)

    async def _await_end(self, job: Job, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while seconds and not job.is_terminal:
                    await job.changed.wait()

    async def _stream(self, job: Job, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            async for text in self._events(job, leaving):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        finally:
            leaving.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, job: Job, leaving: asyncio.Future[None]) -> AsyncIterator[str]:
        yield ": hi\n\n"
        told = 0
        while not leaving.done():
            changed = job.changed
            output = job.output if isinstance(job.output, list) else [job.output] if job.output else []
            for number in range(told, len(output)):
                chunk = output[number]
                text = chunk if isinstance(chunk, str) else msgspec.json.encode(chunk).decode()
                yield _event(job, number, "output", text)
            told = len(output)
            if job.is_terminal:
                break
            news = asyncio.ensure_future(changed.wait())
            done, _ = await asyncio.wait((news, leaving), timeout=_COMMENT_SECONDS, return_when="FIRST_COMPLETED")
            news.cancel()
            if not done:
                yield ": still here\n\n"
        if job.status == "failed":
            yield _event(job, told, "error", msgspec.json.encode({"detail": job.error}).decode())
        reason = {"succeeded": "{}", "failed": '{"reason":"error"}'}.get(job.status, '{"reason":"canceled"}')
        yield _event(job, told + 1, "done", reason)


def _event(job: Job, number: int, name: str, data: str) -> str:
    # Their number is their place: read again, the same event has the same id.
    lines = "".join(f"data: {line}\n" for line in re.split("\r\n|\r|\n", data))
    return f"event: {name}\nid: {int(job.created_at.timestamp())}:{number}\n{lines}\n"


async def _break_off(send: Send, job: Job) -> None:
    """The first half of the answer to a create."""
    body = msgspec.json.encode(job.created())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """Standard Webhooks: https://www.standardwebhooks.com"""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, b".".join((id.encode(), str(timestamp).encode(), body)), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _read_create(raw: bytes) -> dict[str, Any]:
    """Raises BodyRefused where Replicate says 422, and msgspec's errors for what is no JSON."""
    body = msgspec.json.decode(raw)
    if not isinstance(body, dict):
        raise BodyRefused("- Invalid type. Expected: object\n")
    for key in body.keys() - _FIELDS:
        raise BodyRefused(f"- Additional property {key} is not allowed\n")
    if not isinstance(body.get("input"), dict):
        raise BodyRefused("- input is required\n")
    if not isinstance(body.get("webhook"), str | None):
        raise BodyRefused("- webhook: Invalid type. Expected: string\n")
    events = body.get("webhook_events_filter") or []
    if not isinstance(events, list) or any(event not in _CALLBACK_EVENTS for event in events):
        raise BodyRefused("- webhook_events_filter: must be a list of start, output, logs and completed\n")
    return body


async def read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body.extend(message.get("body", b""))
        if not message.get("more_body") or len(body) > _MOST_BODY_BYTES:
            return bytes(body)


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _wait_seconds(prefer: str) -> int:
    found = re.search(r"\bwait(?:=(\d{1,4}))?", prefer)
    if found is None:
        return 0
    return min(_MOST_WAIT_SECONDS, max(1, int(found[1]))) if found[1] else _MOST_WAIT_SECONDS


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
