"""The only composition root: a configuration becomes a gateway, part by part (`assembly`), and a server round it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

import uvloop
from litestar import Litestar

from gateway.api import application
from gateway.assembly.front import open_front, open_operations, recalled
from gateway.assembly.ground import open_ground
from gateway.assembly.keeping import open_keeping
from gateway.assembly.routing import open_routing
from gateway.assembly.work import open_work, start_work, watch_work
from gateway.commission import READY, Commission, read_commission
from gateway.config.load import Loaded
from gateway.contract.key import KeyRecord
from gateway.drain import REQUEST_SHARE, on_end_of_input
from gateway.edge import EdgeServer, bind
from gateway.reception import address_of, greet, keys_of, made_key
from gateway.telemetry.export import secrets_of
from gateway.telemetry.logs import setup
from gateway.telemetry.redaction import Redaction


def serve(loaded: Loaded, *, host: str | None = None, port: int | None = None) -> int:
    """`turnout serve`: until SIGTERM or SIGINT, then drains. Raises ConfigurationError before anything is started."""
    section = loaded.config.server
    host = host or section.host
    keys, made = keys_of(loaded, host)
    with bind(host, section.port if port is None else port, place=loaded.place) as listener:
        address = address_of(host, listener.getsockname()[1])
        public_url = (section.public_url or address).rstrip("/")

        def up() -> None:
            greet(address, public_url, made, dashboard=loaded.config.dashboard.enabled)

        _run(_serve(loaded, listener, public_url=public_url, keys=keys, up=up))
    return 0


def work(loaded: Loaded) -> int:
    """One of the processes of `turnout serve --workers N`: as `serve`, and until whoever started it is gone."""
    commission = read_commission(sys.stdin.fileno())
    keys = made_key(commission.key_hash) if commission.key_hash else keys_of(loaded, commission.host)[0]
    public_url = (loaded.config.server.public_url or commission.address).rstrip("/")

    def up() -> None:
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()

    with socket.socket(fileno=commission.listener) as listener:
        _run(_serve(loaded, listener, public_url=public_url, keys=keys, up=up, commission=commission))
    return 0


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _serve(
    loaded: Loaded,
    listener: socket.socket,
    *,
    public_url: str,
    keys: Mapping[str, KeyRecord],
    up: Callable[[], None],
    commission: Commission | None = None,
) -> None:
    telemetry = loaded.config.telemetry
    redaction = Redaction((*loaded.secret_values, *secrets_of(os.environ)))
    worker = commission.number if commission is not None else None
    setup(level=telemetry.log_level, format=telemetry.log_format, redaction=redaction, worker=worker)
    async with running(loaded, public_url=public_url, keys=keys, redaction=redaction, commission=commission) as gateway:
        request_seconds = REQUEST_SHARE * loaded.config.server.drain_seconds
        server = EdgeServer(gateway.app, up=up, begin_drain=gateway.begin_drain, request_seconds=request_seconds)
        if commission is not None:
            await on_end_of_input(lambda: server.drain(0.0))
        # What was made at the start stays; young garbage is nearly all there is, and dies by its reference counts.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        gc.enable()
        await server.serve(sockets=[listener])


class Gateway(NamedTuple):
    """A composed gateway: `app` speaks ASGI, `begin_drain` is the first word of an end."""

    app: Litestar
    begin_drain: Callable[[], None]


@contextlib.asynccontextmanager
async def running(
    loaded: Loaded,
    *,
    public_url: str,
    keys: Mapping[str, KeyRecord],
    redaction: Redaction,
    commission: Commission | None = None,
) -> AsyncIterator[Gateway]:
    """Everything a gateway consists of, started in order and ended in the reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        ground = await open_ground(loaded, stack, public_url=public_url, redaction=redaction, commission=commission)
        keeping = open_keeping(ground, stack)
        routing = await open_routing(ground, stack)
        work = open_work(ground, keeping, routing, stack)
        watch_work(ground, routing, work)
        # What was before this start is read before the work, which changes it, begins.
        repeats = await recalled(ground, keys)
        operations = await open_operations(ground, keeping, routing, work)
        drain = await start_work(ground, keeping, work, stack)
        context = await open_front(ground, keeping, work, stack, keys=keys, repeats=repeats, operations=operations)
        yield Gateway(application(context), drain.begin)
