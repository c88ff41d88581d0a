"""
The points of one gateway process: before and after each verb of its store that writes, each send, and each reply.

They are found by wrapping what the gateway is put together from, so that a new verb is a new point. Each is counted and
written down as it is passed; at the n-th of one name the process dies, at once and with nothing tidied up.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

# Verbs of a store that change nothing: dying before one is dying after what came before it.
READS = frozenset(
    {
        "get",
        "list_predictions",
        "search_predictions",
        "find_attempt",
        "find_stream",
        "events",
        "ledger",
        "maybes",
        "deliveries",
        "next_delivery_at",
        "backlog",
        "get_file",
        "list_files",
        "aged",
        "audit",
        "last_audit",
        "check",
        "follow",
        "aclose",
    }
)
# Methods of a driver that send nothing.
SILENT = frozenset({"read_callback", "credentials_for", "aclose"})
_IDS = re.compile(r"/(?:cb|stream|files|artifacts)/.*|/[0-9a-z]{26}(?=/|$)")


class Points:
    def __init__(self, path: str, crash_at: str) -> None:
        name, _, number = crash_at.rpartition(":")
        self._crash_name, self._crash_number = name, int(number or 0)
        self._counts: Counter[str] = Counter()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hit(self, name: str) -> None:
        self._counts[name] += 1
        os.write(self._file, f"{name}\n".encode())  # what is written by a process that is killed stays written
        if name == self._crash_name and self._counts[name] == self._crash_number:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def passing(*args: Any, **named: Any) -> Any:
            self.hit(f"{name}.before")
            try:
                return await call(*args, **named)
            finally:
                self.hit(f"{name}.after")

        return passing


class Wrapped:
    """Something whose coroutines are points; all else is passed on to it."""

    def __init__(self, inner: Any, points: Points, *, kind: str, silent: frozenset[str]) -> None:
        self._inner = inner
        self._points = points
        self._kind = kind
        self._silent = silent

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name.startswith("_") or name in self._silent or not inspect.iscoroutinefunction(value):
            return value
        if name == "apply":
            return functools.partial(self._apply, value)
        wrapped = self._points.around(f"{self._kind}.{name}", value)
        self.__dict__[name] = wrapped
        return wrapped

    async def _apply(self, apply: Callable[..., Awaitable[Any]], id: str, happening: Any, **named: Any) -> Any:
        name = f"{self._kind}.apply.{type(happening).__name__}"
        source = getattr(happening, "source", None)
        if source is not None:
            name += f".{source}"
        return await self._points.around(name, apply)(id, happening, **named)


class Replies:
    """An ASGI application whose answers to writes are points."""

    def __init__(self, app: Any, points: Points) -> None:
        self._app = app
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        name = f"reply.{scope['method']}{_IDS.sub('', scope['path']).replace('/', '.')}"
        if scope["path"].startswith("/cb/"):
            name = "reply.callback"

        async def passing(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._points.hit(f"{name}.before")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._points.hit(f"{name}.after")

        await self._app(scope, receive, passing)


def install(path: str, *, crash_at: str) -> None:
    """Wrap what a gateway is put together from."""
    from gateway import app
    from gateway.artifact.fetch import Fetcher
    from gateway.assembly import ground
    from gateway.delivery.webhook import Sender

    points = Points(path, crash_at)
    open_store, drivers_of, application = ground.open_store, ground.drivers_of, app.application

    async def opened(*args: Any, **named: Any) -> Any:
        return Wrapped(await open_store(*args, **named), points, kind="store", silent=READS)

    ground.open_store = opened
    ground.drivers_of = lambda *args: {  # type: ignore[assignment]
        name: Wrapped(driver, points, kind="send", silent=SILENT) for name, driver in drivers_of(*args).items()
    }
    app.application = lambda context: Replies(application(context), points)  # type: ignore[assignment, return-value]
    Sender.send = points.around("send.deliver", Sender.send)  # type: ignore[method-assign]
    Fetcher.fetch = points.around("send.fetch", Fetcher.fetch)  # type: ignore[method-assign, assignment]
