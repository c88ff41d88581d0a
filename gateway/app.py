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
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import uvloop
from litestar import Litestar

from gateway import __version__
from gateway.api import Context, Repeats, application, recall
from gateway.artifact.collect import Collector
from gateway.artifact.fetch import Fetcher
from gateway.artifact.folder import Artifacts
from gateway.artifact.intake import Intake
from gateway.commands.survey import survey
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import RandomIds, SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.contract.host import is_loopback
from gateway.contract.key import KeyRecord, new_key
from gateway.contract.money import parse_dollars
from gateway.contract.observer import Observers
from gateway.contract.prediction import Prediction
from gateway.contract.trace import given
from gateway.dashboard.act import Acts, replay
from gateway.dashboard.journal import Journal
from gateway.dashboard.operations import Operations
from gateway.dashboard.route import Routes
from gateway.dashboard.shell import Shell
from gateway.dashboard.view import Policies, View
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Sender, new_secret
from gateway.edge import EdgeServer, bind
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.lifecycle import reduce
from gateway.engine.parts import Parts
from gateway.link import drivers_of, links_of, local_link, start_local
from gateway.net.target import Guard
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.store.protocol import Store
from gateway.store.sqlite import SqliteStore
from gateway.telemetry.export import metric_exporters_from, secrets_of, tracing_from
from gateway.telemetry.logs import setup
from gateway.telemetry.metrics import Metrics, Sources
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.transition import LogObserver
from local_backend.supervisor import LocalBackend

log = logging.getLogger("turnout")

_SWEEP_SECONDS = 600.0


def serve(loaded: Loaded, *, host: str | None = None, port: int | None = None) -> int:
    """`turnout serve`: until SIGTERM or SIGINT, then drains. Raises ConfigurationError before anything is started."""
    redaction = Redaction((*loaded.secret_values, *secrets_of(os.environ)))
    setup(level=loaded.config.telemetry.log_level, format=loaded.config.telemetry.log_format, redaction=redaction)
    server = loaded.config.server
    host = host or server.host
    keys, made = _keys(loaded, host)
    listener = bind(host, server.port if port is None else port, place=loaded.place)
    with listener:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with runner:
            runner.run(_serve(loaded, listener, host=host, keys=keys, made=made, redaction=redaction))
    return 0


async def _serve(
    loaded: Loaded,
    listener: socket.socket,
    *,
    host: str,
    keys: Mapping[str, KeyRecord],
    made: str | None,
    redaction: Redaction,
) -> None:
    address = f"http://{'localhost' if host == '::1' else host}:{listener.getsockname()[1]}"
    public_url = (loaded.config.server.public_url or address).rstrip("/")
    async with running(loaded, public_url=public_url, keys=keys, redaction=redaction) as gateway:
        drain_seconds = loaded.config.server.drain_seconds
        server = EdgeServer(gateway.app, begin_drain=gateway.engine.begin_drain, drain_seconds=drain_seconds)
        _greet(address, public_url, made, dashboard=loaded.config.dashboard.enabled)
        # What was made at the start stays; young garbage is nearly all there is, and dies by its reference counts.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        await server.serve(sockets=[listener])


class Gateway:
    """A composed gateway: `app` speaks ASGI, `engine` drives predictions."""

    def __init__(
        self, app: Litestar, engine: Engine, store: Store, catalog: Catalog, local: LocalBackend | None
    ) -> None:
        self.app = app
        self.engine = engine
        self.store = store
        self.catalog = catalog
        self.local = local


@contextlib.asynccontextmanager
async def running(
    loaded: Loaded, *, public_url: str, keys: Mapping[str, KeyRecord], redaction: Redaction
) -> AsyncIterator[Gateway]:
    """Everything a gateway consists of, started in order and ended in the reverse order."""
    config, clock, ids, draw = loaded.config, SystemClock(), RandomIds(), random.random
    # Whatever may be refused is made before the store is opened and the local backend is started.
    surveyed = survey(loaded, clock=clock)
    catalog = surveyed.catalog
    drivers = drivers_of(loaded, surveyed.adapters, clock)
    endpoint, is_json = config.telemetry.otlp_endpoint, config.telemetry.log_format == "json"
    tracing = tracing_from(os.environ, endpoint=endpoint, version=__version__)
    metrics = Metrics(
        version=__version__,
        offers=[offer.id for model in catalog.models() for offer in model.offers],
        exporters=metric_exporters_from(os.environ, endpoint=endpoint) if config.telemetry.metrics else (),
    )
    journal = Journal(clock, version=__version__) if config.dashboard.enabled else None
    heard = (metrics if config.telemetry.metrics else None, tracing, LogObserver(transitions=is_json), journal)
    observer = Observers(*(one for one in heard if one is not None))

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(metrics.aclose)
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)  # it waits for its exporters
        for driver in drivers.values():
            stack.push_async_callback(driver.aclose)

        def snapshot(prediction: Prediction) -> bytes:
            return prediction_bytes(prediction, public_url=public_url, has_page=journal is not None)

        with loaded.blaming("store", "url"):
            store = await SqliteStore.open(
                loaded.store_path, reduce=reduce, snapshot=snapshot, clock=clock, max_queue=config.store.max_queue
            )
        stack.push_async_callback(store.aclose)
        secret = base64.b64decode(await store.setting("secret", base64.b64encode(secrets.token_bytes(32)).decode()))
        webhook_secret = await _webhook_secret(loaded, store)
        redaction.add(webhook_secret, base64.b64encode(secret).decode())

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

        local = await start_local(loaded, clock, observer, stack)
        links = links_of(config, drivers, public_url)
        if local is not None:
            links[LOCAL] = local_link(local, surveyed.adapters[LOCAL], clock, stack)

        board = Board(clock)
        breakers = Breakers(clock=clock, draw=draw, observer=observer)
        with journal.forcing() if journal is not None else contextlib.nullcontext():
            await replay(store, breakers, offers=[offer.id for model in catalog.models() for offer in model.offers])

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
        )
        sender = Sender(guard, (webhook_secret,), clock, timeout_seconds=config.webhooks.timeout_seconds)
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
        )
        loaded.policies.observer = observer
        metrics.observe(
            Sources(
                now=clock.now,
                held=engine.open_predictions,
                delivering=outbox.in_hand,
                receivers=outbox.receivers,
                headroom=lambda: {
                    name: driver.headroom for name, driver in drivers.items() if driver.headroom is not None
                },
                policy_version=lambda: loaded.policies.current().version,
                local_backend=lambda: local.health if local is not None else {},
            )
        )
        repeats = Repeats()
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
                loaded, journal, routes, engine, store, breakers, outbox, artifacts, public_url
            )

        delivering = asyncio.create_task(outbox.run(), name="turnout-outbox")
        stack.push_async_callback(_end, delivering)
        stack.push_async_callback(outbox.drain, 15.0)
        await engine.start()
        stack.push_async_callback(engine.drain, seconds=config.server.drain_seconds)
        for work in (loaded.policies.run(), _sweep(artifacts, clock)):
            stack.push_async_callback(_end, asyncio.create_task(work))

        context = Context(
            engine=engine,
            store=store,
            models=catalog,
            files=artifacts,
            keys=keys,
            server=config.server,
            webhook_secret=webhook_secret,
            clock=clock,
            ids=ids,
            check_url=guard.check_url,
            check_input_url=file_guard.check_literal,
            observer=observer,
            metrics=metrics.scrape if config.telemetry.metrics else None,
            policies=lambda: loaded.policies.current().names,
            public_url=public_url,
            allow_http_webhooks=config.webhooks.allow_http,
            metrics_key=config.telemetry.metrics_key,
            max_file_bytes=config.artifacts.max_file_bytes,
            file_seconds=config.artifacts.file_seconds,
            repeats=repeats,
            operations=operations,
            shell=Shell(public_url=public_url) if operations is not None else None,
        )
        yield Gateway(application(context), engine, store, catalog, local)


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
) -> Operations:
    """What the dashboard shows and does, with the last hour read back from the store."""
    clock, budget = SystemClock(), loaded.config.dashboard.budget_per_hour

    def policies() -> Policies:
        current = loaded.policies.current()
        return Policies(current.names, current.version)

    view = View(
        journal,
        routes,
        clock=clock,
        version=__version__,
        policies=policies,
        open_predictions=engine.open_predictions,
        is_draining=lambda: engine.is_draining,
        budget_nanos=parse_dollars(budget) if budget else None,
    )
    acts = Acts(store, engine, breakers, journal, offers=routes.offers, retry_receiver=outbox.retry, clock=clock)
    operations = Operations(store, view, journal, acts, artifacts, engine=engine, clock=clock, base=public_url)
    await operations.refill()
    return operations


async def _webhook_secret(loaded: Loaded, store: Store) -> str:
    configured = loaded.secrets.get("webhooks.secret")
    return configured.reveal() if configured is not None else await store.setting("webhook_secret", new_secret())


def _keys(loaded: Loaded, host: str) -> tuple[dict[str, KeyRecord], str | None]:
    """The configured keys, or one that is made now; then only this machine may reach us."""
    if loaded.config.keys:
        keys = {}
        for name, section in loaded.config.keys.items():
            secret = loaded.secrets.get(f"keys.{name}.hash")
            hash = secret.reveal() if secret is not None else section.hash
            keys[name] = KeyRecord(
                name=name, hash=hash, scopes=frozenset(section.scopes), policy=section.policy or None
            )
        return keys, None
    if not is_loopback(host):
        raise ConfigurationError(
            f"{loaded.place}: keys: none is configured, so only loopback may be served, not {host}; "
            "make one with `turnout keys new`, or leave the host at 127.0.0.1"
        )
    made = new_key()
    scopes = frozenset({"predictions", "models", "files", "admin"})
    return {"default": KeyRecord(name="default", hash=made.hash, scopes=scopes)}, made.text


def _greet(address: str, public_url: str, made: str | None, *, dashboard: bool) -> None:
    lines = [f"Turnout {__version__} serves at {address}/v1"]
    if public_url != address:
        lines.append(f"Callers see {public_url}/v1")
    if made is not None:
        lines.append(
            f"No key is configured; this one is good until the next start:\n  export REPLICATE_API_TOKEN={made}"
        )
        lines.append(f"  export REPLICATE_BASE_URL={public_url}")
    if dashboard:
        lines.append(f"Dashboard, for keys with the scope admin: {address}/dashboard")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


async def _sweep(artifacts: Artifacts, clock: SystemClock) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await artifacts.sweep(clock.now())
        except OSError as error:
            log.warning("expired files could not be removed: %s", error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=5.0)
