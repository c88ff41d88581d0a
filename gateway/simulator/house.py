"""The simulated providers under one roof: a port for each, and one to control them by."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.contract.errors import ConfigurationError
from gateway.simulator.behaviour import Behaviour
from gateway.simulator.provider import Provider, Receive, Scope, Send, answer, problem, read_body

# Signs every simulated callback: put it into `webhook_secret` to have them believed.
SECRET = "whsec_" + "c2ltdWxhdGVkLXByb3ZpZGVycy1zaWduLXdpdGgtdGhpcw=="


class Door:
    """One application on one port, which can be shut and opened again; shut, it refuses and breaks connections."""

    def __init__(self, app: Any) -> None:
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # a caller's word for its address must not decide whose connection is cut
            timeout_keep_alive=75,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self.host = ""
        self.port = 0

    @property
    def is_open(self) -> bool:
        return self._server is not None

    async def open(self, host: str, port: int) -> None:
        """Raises ConfigurationError if the port cannot be had."""
        listening, self._held = self._held or _bind(host, port), None
        self.host, self.port = host, listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: HttpToolsProtocol(config=self._config, server_state=self._state, app_state={}),
            sock=listening,
            backlog=1024,
        )

    async def shut(self) -> None:
        """Break what is open and refuse what comes. The port stays ours: bound, and not listening."""
        if self._server is None:
            return
        await self._leave()
        self._held = _bind(self.host, self.port)

    async def aclose(self) -> None:
        """For good; returns when the last request has been let go."""
        await self._leave()
        if self._held is not None:
            self._held.close()

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._state.connections):
            _break(connection.transport)
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=1.0)

    def cut(self, scope: Scope) -> None:
        """Break the connection a request came by, as a crash would: with a reset, not with an end."""
        for connection in list(self._state.connections):
            transport = connection.transport
            if transport.get_extra_info("peername")[:2] == tuple(scope["client"]):
                _break(transport)


class Simulator:
    """
    `async with Simulator({"cheap": Behaviour(price="0.0004")}) as simulator: simulator.url("cheap")`.

    Ports are chosen by the system unless `port` is given: then that is the control's, and the providers' follow it.
    """

    def __init__(
        self, providers: Mapping[str, Behaviour], *, host: str = "127.0.0.1", port: int = 0, secret: str = SECRET
    ) -> None:
        self.providers: dict[str, Provider] = {}
        self.secret = secret
        self._doors: dict[str, Door] = {}
        self._host = host
        self._port = port
        self._control = Door(self._command)
        for name, behaviour in providers.items():
            self._add(name, behaviour)

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Raises ConfigurationError if a port cannot be had; then nothing is left open."""
        try:
            await self._control.open(self._host, self._port)
            for number, (name, door) in enumerate(self._doors.items(), start=1):
                await door.open(self._host, self._port + number if self._port else 0)
                self.providers[name].base = f"http://{self._host}:{door.port}"
        except ConfigurationError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        for provider in self.providers.values():
            await provider.aclose()
        for door in (*self._doors.values(), self._control):
            await door.aclose()

    def url(self, name: str) -> str:
        """The provider's address, with `/v1`."""
        return f"{self.providers[name].base}/v1"

    @property
    def control_url(self) -> str:
        return f"http://{self._host}:{self._control.port}/control"

    async def down(self, name: str) -> None:
        """As a machine that dies: connections are refused, those that stand are broken, its running jobs are lost."""
        self.providers[name].go_down()
        await self._doors[name].shut()

    async def up(self, name: str) -> None:
        """On the same port as before."""
        self.providers[name].come_up()
        if not self._doors[name].is_open:
            await self._doors[name].open(self._host, 0)

    def books(self, name: str) -> list[dict[str, Any]]:
        """Every job it ever started, in order."""
        return [job.booked() for job in self.providers[name].jobs.values()]

    def _add(self, name: str, behaviour: Behaviour) -> None:
        async def enter(scope: Scope, receive: Receive, send: Send) -> None:
            await self.providers[name](scope, receive, send)

        door = self._doors[name] = Door(enter)
        self.providers[name] = Provider(name, behaviour, secret=self.secret, cut=door.cut)

    async def _command(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, parts = scope["method"], [part for part in scope["path"].split("/") if part]
        match (method, *parts):
            case ("GET", "control"):
                everything = {name: self._shown(name) for name in self.providers}
                await answer(send, 200, everything)
            case ("GET", "control", name) if name in self.providers:
                await answer(send, 200, self._shown(name))
            case ("PATCH", "control", name) if name in self.providers:
                await self._change(name, await read_body(receive), send)
            case ("POST", "control", name, "down") if name in self.providers:
                await self.down(name)
                await answer(send, 200, self._shown(name))
            case ("POST", "control", name, "up") if name in self.providers:
                await self.up(name)
                await answer(send, 200, self._shown(name))
            case ("GET", "control", name, "books") if name in self.providers:
                await answer(send, 200, self.books(name))
            case _:
                await problem(send, 404, f"the control knows /control/NAME of {', '.join(self.providers)}")

    async def _change(self, name: str, raw: bytes, send: Send) -> None:
        try:
            changes = msgspec.json.decode(raw, type=dict[str, Any])
            self.providers[name].change(changes)
        except (msgspec.MsgspecError, UnicodeDecodeError, ConfigurationError) as error:
            await problem(send, 422, str(error))
            return
        await answer(send, 200, self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        behaviour = msgspec.to_builtins(self.providers[name].behaviour)
        return {"url": self.url(name), "up": self._doors[name].is_open, "behaviour": behaviour}


def _bind(host: str, port: int) -> socket.socket:
    # The protocol is named, or asyncio would not turn Nagle's algorithm off: 40 ms for every answer in two parts.
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"simulator: cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        ) from None
    bound.setblocking(False)
    return bound


def _break(transport: Any) -> None:
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
