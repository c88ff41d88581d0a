"""The only composition root: a configuration becomes a store, providers, an engine, an API, and a server round them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
import os
import random
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from litestar import Litestar

from gateway import __version__
from gateway.api import Context, Repeats, application, recall
from gateway.artifact.collect import Collector
from gateway.artifact.erase import Eraser
from gateway.artifact.fetch import Fetcher
from gateway.artifact.folder import Artifacts
from gateway.artifact.intake import Intake
from gateway.commands.survey import survey
from gateway.commission import READY, Commission, read_commission
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import Clock, RandomIds, SystemClock
from gateway.contract.key import KeyRecord
from gateway.contract.money import parse_dollars
from gateway.contract.observer import Observers
from gateway.contract.prediction import Prediction
from gateway.contract.trace import given
from gateway.dashboard.account import Account
from gateway.dashboard.act import Acts, Forces, replay
from gateway.dashboard.journal import Journal
from gateway.dashboard.operations import Operations
from gateway.dashboard.route import Routes
from gateway.dashboard.shell import Shell
from gateway.dashboard.view import Policies, View
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Sender, new_secret
from gateway.drain import REQUEST_SHARE, Drain, on_end_of_input
from gateway.edge import EdgeServer, bind
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.exchange import Exchange
from gateway.engine.lifecycle import reduce
from gateway.engine.parts import Parts
from gateway.engine.retention import Retention
from gateway.engine.worker import Leasing
from gateway.link import drivers_of, links_of, local_link, start_local
from gateway.net.target import Guard
from gateway.reception import address_of, greet, keys_of, made_key
from gateway.routing.breaker import Breakers
from gateway.routing.bulletin import Bulletins
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.ramp import Ramps
from gateway.routing.signals import Board
from gateway.store.opening import StorePlace, open_store
from gateway.store.protocol import Store
from gateway.telemetry.export import metric_exporters_from, secrets_of, tracing_from
from gateway.telemetry.logs import setup
from gateway.telemetry.metrics import Metrics, Sources
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.sibling import Siblings
from gateway.telemetry.transition import LogObserver
from local_backend.attachment import AttachedBackend
from local_backend.supervisor import LocalBackend

log = logging.getLogger("turnout")

_SWEEP_SECONDS = 600.0


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
    setup(level=telemetry.log_level, format=telemetry.log_format, redaction=redaction)
    async with running(loaded, public_url=public_url, keys=keys, redaction=redaction, commission=commission) as gateway:
        request_seconds = REQUEST_SHARE * loaded.config.server.drain_seconds
        server = EdgeServer(gateway.app, up=up, begin_drain=gateway.begin_drain, request_seconds=request_seconds)
        if commission is not None:
            await on_end_of_input(lambda: server.drain(0.0))
        # What was made at the start stays; young garbage is nearly all there is, and dies by its reference counts.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        await server.serve(sockets=[listener])


class Gateway:
    """A composed gateway: `app` speaks ASGI, `engine` drives predictions, `begin_drain` is the first word of an end."""

    def __init__(
        self,
        app: Litestar,
        engine: Engine,
        store: Store,
        catalog: Catalog,
        local: LocalBackend | AttachedBackend | None,
        begin_drain: Callable[[], None],
    ) -> None:
        self.app = app
        self.engine = engine
        self.store = store
        self.catalog = catalog
        self.local = local
        self.begin_drain = begin_drain


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
    config, ids, draw = loaded.config, RandomIds(), random.random
    place = StorePlace(loaded.store, clock=SystemClock(), draw=draw)
    clock = place.clock  # of all who share the store: not to be read before it is open
    # Whatever may be refused is made before the store is opened and the local backend is started.
    surveyed = survey(loaded, clock=SystemClock())
    catalog = surveyed.catalog
    drivers = drivers_of(loaded, surveyed.adapters, clock)
    endpoint, is_json = config.telemetry.otlp_endpoint, config.telemetry.log_format == "json"
    tracing = tracing_from(os.environ, endpoint=endpoint, version=__version__)
    metrics = Metrics(
        version=__version__,
        instance=_instance(loaded, commission),
        offers=[offer.id for model in catalog.models() for offer in model.offers],
        exporters=metric_exporters_from(os.environ, endpoint=endpoint) if config.telemetry.metrics else (),
    )

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(metrics.aclose)
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)  # it waits for its exporters
        for driver in drivers.values():
            stack.push_async_callback(driver.aclose)

        def snapshot(prediction: Prediction) -> bytes:
            return prediction_bytes(prediction, public_url=public_url, has_page=config.dashboard.enabled)

        with loaded.blaming("store", "url"):
            store = await open_store(place, reduce=reduce, snapshot=snapshot)
        stack.push_async_callback(store.aclose)
        journal = Journal(clock, version=__version__) if config.dashboard.enabled else None
        heard = (metrics if config.telemetry.metrics else None, tracing, LogObserver(transitions=is_json), journal)
        observer = Observers(*(one for one in heard if one is not None))
        secret = base64.b64decode(await store.setting("secret", base64.b64encode(secrets.token_bytes(32)).decode()))
        webhook_secret = await _webhook_secret(loaded, store)
        webhook_secrets = tuple(webhook_secret.split())  # the newest first; while one replaces another there are two
        redaction.add(*webhook_secrets, base64.b64encode(secret).decode())

        own_hosts = (urlsplit(public_url).netloc,)
        guard = Guard(config.webhooks.allow, allow_http=config.webhooks.allow_http, own_hosts=own_hosts)
        with loaded.blaming("artifacts", "path"):
            artifacts = Artifacts(
                loaded.artifacts_path,
                public_url=public_url,
                signing_secret=secret,
                max_file_bytes=config.artifacts.max_file_bytes,
                ids=ids,
                clock=clock,
                observer=observer,
                link_seconds=config.artifacts.link_seconds,
                file_seconds=config.artifacts.file_seconds,
            )
        file_guard = Guard(config.artifacts.allow, allow_http=True, own_hosts=own_hosts)
        fetcher = Fetcher(file_guard, clock)
        stack.push_async_callback(fetcher.aclose)

        local = await start_local(loaded, clock, observer, stack, commission=commission)
        links = links_of(config, drivers, public_url)
        if local is not None:
            links[LOCAL] = local_link(local, surveyed.adapters[LOCAL], clock, stack)

        board = Board(clock)
        breakers = Breakers(clock=clock, draw=draw, observer=observer)
        offers = frozenset(offer.id for model in catalog.models() for offer in model.offers)
        forces = Forces(breakers)

        async def catch_up() -> None:
            await forces.catch_up(store, offers=offers, quietly=journal.forcing if journal is not None else None)

        with journal.forcing() if journal is not None else contextlib.nullcontext():
            await replay(store, breakers, offers=tuple(offers), forces=forces)

        def is_ready(provider: str) -> bool:
            return provider in links and (provider != LOCAL or (local is not None and local.is_ready))

        planner = Planner(
            catalog=lambda: catalog,
            board=board,
            breakers=breakers,
            policies=lambda: loaded.policies.current().policies,
            default=config.policies.default,
            limits={name: section.concurrency for name, section in config.providers.items()},
            ready=is_ready,
            draw=draw,
            ramps=Ramps(clock),
        )
        sender = Sender(guard, webhook_secrets, clock, timeout_seconds=config.webhooks.timeout_seconds)
        stack.push_async_callback(sender.aclose)
        worker_id = ids.prediction()
        outbox = Outbox(
            store,
            sender,
            worker=worker_id,
            clock=clock,
            draw=draw,
            observer=observer,
            schedule_seconds=config.webhooks.schedule_seconds,
            timeout_seconds=config.webhooks.timeout_seconds,
            look=store.get if tracing is not None or is_json or journal is not None else None,
            trace=tracing.delivery_context if tracing is not None else None,
        )
        parts = Parts(
            planner=planner,
            breakers=breakers,
            board=board,
            links=links,
            offer=catalog.offer,
            collector=Collector(artifacts, fetcher),
            intake=Intake(artifacts, fetcher, store, clock),
            observer=observer,
            clock=clock,
            draw=draw,
            secret=secret,
            callback_base=public_url,
            timing=Timing(),
            traceparent=tracing.attempt_context if tracing is not None else given,
        )
        engine = Engine(
            store,
            parts,
            ids=ids,
            worker_id=worker_id,
            max_in_flight=config.server.max_in_flight,
            wake_outbox=outbox.wake,
            leasing=Leasing(lease=config.server.lease_seconds),
        )
        bulletins = Bulletins(worker_id, board, breakers, clock, knows=offers.__contains__)
        exchange = Exchange(store, worker_id, bulletins, acts=catch_up)
        account = Account(store, clock)
        loaded.policies.observer = observer
        metrics.observe(
            Sources(
                now=clock.now,
                held=engine.open_predictions,
                delivering=outbox.in_hand,
                receivers=outbox.receivers,
                double_bill_nanos=lambda: account.latest.nanos,
                headroom=lambda: {
                    name: driver.headroom for name, driver in drivers.items() if driver.headroom is not None
                },
                policy_version=lambda: loaded.policies.current().version,
                local_backend=lambda: _local_health(local, commission),
            )
        )
        repeats = Repeats()
        if loaded.store_path is not None:  # else what is open may be another process' own, which is answering for it
            await recall(repeats, store, owners=list(keys), at=clock.now(), now=clock.monotonic())

        routes = Routes(
            catalog,
            board,
            breakers,
            providers=list(links),
            limits={name: section.concurrency for name, section in config.providers.items()},
            is_ready=is_ready,
            headroom=lambda name: drivers[name].headroom if name in drivers else None,
        )
        operations = None
        if journal is not None:
            operations = await _operations(
                loaded,
                journal,
                routes,
                engine,
                store,
                breakers,
                outbox,
                artifacts,
                public_url,
                clock,
                forces,
                commission,
            )

        delivering = asyncio.create_task(outbox.run(), name="turnout-outbox")
        stack.push_async_callback(_end, delivering)
        await engine.start()
        drain = Drain(engine, outbox, clock, seconds=config.server.drain_seconds)
        stack.push_async_callback(drain.end)
        retention = Retention(
            store, Eraser(artifacts), clock=clock, draw=draw, data_seconds=config.retention.data_seconds
        )
        for work in (account.run(), loaded.policies.run(), _sweep(artifacts, clock), retention.run(), exchange.run()):
            stack.push_async_callback(_end, asyncio.create_task(work))

        scrape: Callable[[], Awaitable[bytes]] | None = metrics.scrape if config.telemetry.metrics else None
        if scrape is not None and commission is not None:
            scrape = await _siblings(commission, scrape, stack)
        context = Context(
            engine=engine,
            store=store,
            models=catalog,
            files=artifacts,
            keys=keys,
            server=config.server,
            webhook_secret=webhook_secrets[0],
            clock=clock,
            ids=ids,
            check_url=guard.check_url,
            check_input_url=file_guard.check_literal,
            observer=observer,
            metrics=scrape,
            policies=lambda: loaded.policies.current().names,
            public_url=public_url,
            allow_http_webhooks=config.webhooks.allow_http,
            metrics_key=config.telemetry.metrics_key,
            max_file_bytes=config.artifacts.max_file_bytes,
            file_seconds=config.artifacts.file_seconds,
            repeats=repeats,
            is_shared=loaded.store_path is None,
            operations=operations,
            receivers=outbox,
            shell=Shell(public_url=public_url) if operations is not None else None,
        )
        yield Gateway(application(context), engine, store, catalog, local, drain.begin)


# -- the parts --------------------------------------------------------------------------------------------------------


async def _operations(
    loaded: Loaded,
    journal: Journal,
    routes: Routes,
    engine: Engine,
    store: Store,
    breakers: Breakers,
    outbox: Outbox,
    artifacts: Artifacts,
    public_url: str,
    clock: Clock,
    forces: Forces,
    commission: Commission | None,
) -> Operations:
    """What the dashboard shows and does, with the last hour read back from the store."""
    budget = loaded.config.dashboard.budget_per_hour

    def policies() -> Policies:
        current = loaded.policies.current()
        return Policies(current.names, current.version)

    view = View(
        journal,
        routes,
        clock=clock,
        version=" on ".join(filter(None, (__version__, _instance(loaded, commission)))),
        policies=policies,
        open_predictions=engine.open_predictions,
        is_draining=lambda: engine.is_draining,
        budget_nanos=parse_dollars(budget) if budget else None,
    )
    acts = Acts(
        store,
        engine,
        breakers,
        journal,
        offers=routes.offers,
        retry_receiver=outbox.retry,
        clock=clock,
        forces=forces,
    )
    operations = Operations(store, view, journal, acts, artifacts, engine=engine, clock=clock, base=public_url)
    await operations.refill()
    return operations


async def _webhook_secret(loaded: Loaded, store: Store) -> str:
    configured = loaded.secrets.get("webhooks.secret")
    return configured.reveal() if configured is not None else await store.setting("webhook_secret", new_secret())


def _local_health(local: LocalBackend | AttachedBackend | None, commission: Commission | None) -> Mapping[str, Any]:
    """Of one that several workers share the first tells the figures: whoever adds theirs up counts them once."""
    if local is None:
        return {}
    if commission is not None and commission.number > 0:
        return {"device": local.health.get("device")}
    return local.health


def _instance(loaded: Loaded, commission: Commission | None) -> str:
    """Which of those who share the store this is; empty where nobody can."""
    if loaded.store_path is not None:
        return ""
    by = f", worker {commission.number} of {commission.count}" if commission is not None else ""
    return f"{socket.gethostname()}{by}"


async def _siblings(
    commission: Commission, render: Callable[[], Awaitable[bytes]], stack: contextlib.AsyncExitStack
) -> Callable[[], Awaitable[bytes]]:
    siblings = Siblings(Path(commission.folder), number=commission.number, count=commission.count, render=render)
    await siblings.start()
    stack.push_async_callback(siblings.aclose)
    return siblings.scrape


async def _sweep(artifacts: Artifacts, clock: Clock) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await artifacts.sweep(clock.now())
        except OSError as error:
            log.warning("expired files could not be removed: %s", error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=5.0)
