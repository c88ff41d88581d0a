"""What a gateway stands on: clock, catalog, drivers, telemetry, and the store with its secrets. Drives nothing yet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import socket
from collections.abc import Callable

import msgspec

from gateway import __version__
from gateway.commands.survey import survey
from gateway.commission import Commission
from gateway.config.load import Loaded
from gateway.config.model import Config
from gateway.contract.body import prediction_bytes
from gateway.contract.clock import Clock, Ids, RandomIds, SystemClock
from gateway.contract.observer import Observer, Observers
from gateway.contract.prediction import Prediction
from gateway.contract.provider import Adapter
from gateway.dashboard.journal import Journal
from gateway.delivery.webhook import new_secret
from gateway.engine.lifecycle import reduce
from gateway.link import drivers_of
from gateway.routing.catalog import Catalog
from gateway.store.opening import StorePlace, open_store
from gateway.store.protocol import Store
from gateway.telemetry.export import metric_exporters_from, tracing_from
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.tracing import Tracing
from gateway.telemetry.transition import LogObserver
from providers._driver import HttpDriver


class Ground(msgspec.Struct, kw_only=True, frozen=True):
    """
    `clock` is that of all who share the store, `instance` this gateway's name among them. `secret` signs links and
    makes callback tokens; of `webhook_secrets` the newest is first: while one replaces another there are two.
    """

    loaded: Loaded
    public_url: str  # without a slash at its end
    commission: Commission | None  # None: not one of several workers
    instance: str
    clock: Clock
    ids: Ids
    draw: Callable[[], float]
    catalog: Catalog
    offers: frozenset[str]  # ids of all there are
    adapters: dict[str, Adapter]
    drivers: dict[str, HttpDriver]
    tracing: Tracing | None
    metrics: Metrics
    journal: Journal | None  # None: the dashboard is turned off
    observer: Observer
    store: Store
    secret: bytes
    webhook_secrets: tuple[str, ...]

    @property
    def config(self) -> Config:
        return self.loaded.config


async def open_ground(
    loaded: Loaded,
    stack: contextlib.AsyncExitStack,
    *,
    public_url: str,
    redaction: Redaction,
    commission: Commission | None,
) -> Ground:
    """Raises ConfigurationError before anything is opened: whatever may be refused is made before the store is."""
    config, draw = loaded.config, random.random
    place = StorePlace(loaded.store, clock=SystemClock(), draw=draw)
    clock = place.clock  # of all who share the store: not to be read before it is open
    surveyed = survey(loaded, clock=SystemClock())
    offers = tuple(offer.id for model in surveyed.catalog.models() for offer in model.offers)
    instance = _instance(loaded, commission)
    drivers = drivers_of(loaded, surveyed.adapters, clock)
    tracing = tracing_from(os.environ, endpoint=config.telemetry.otlp_endpoint, version=__version__)
    metrics = _metrics(config, instance, offers)
    stack.push_async_callback(metrics.aclose)
    if tracing is not None:
        stack.push_async_callback(asyncio.to_thread, tracing.close)  # it waits for its exporters
    for driver in drivers.values():
        stack.push_async_callback(driver.aclose)

    store = await _open_store(loaded, place, public_url)
    stack.push_async_callback(store.aclose)
    journal = Journal(clock, version=__version__) if config.dashboard.enabled else None
    secret = await store.setting("secret", base64.b64encode(secrets.token_bytes(32)).decode())
    webhook_secrets = tuple((await _webhook_secret(loaded, store)).split())
    redaction.add(*webhook_secrets, secret)
    return Ground(
        loaded=loaded,
        public_url=public_url,
        commission=commission,
        instance=instance,
        clock=clock,
        ids=RandomIds(),
        draw=draw,
        catalog=surveyed.catalog,
        offers=frozenset(offers),
        adapters=surveyed.adapters,
        drivers=drivers,
        tracing=tracing,
        metrics=metrics,
        journal=journal,
        observer=_observer(config, metrics, tracing, journal),
        store=store,
        secret=base64.b64decode(secret),
        webhook_secrets=webhook_secrets,
    )


def _instance(loaded: Loaded, commission: Commission | None) -> str:
    """Which of those who share the store this is; empty where nobody can."""
    if loaded.store_path is not None:
        return ""
    by = f", worker {commission.number} of {commission.count}" if commission is not None else ""
    return f"{socket.gethostname()}{by}"


def _metrics(config: Config, instance: str, offers: tuple[str, ...]) -> Metrics:
    endpoint = config.telemetry.otlp_endpoint
    exporters = metric_exporters_from(os.environ, endpoint=endpoint) if config.telemetry.metrics else ()
    return Metrics(version=__version__, instance=instance, offers=offers, exporters=exporters)


async def _open_store(loaded: Loaded, place: StorePlace, public_url: str) -> Store:
    has_page = loaded.config.dashboard.enabled

    def snapshot(prediction: Prediction) -> bytes:
        return prediction_bytes(prediction, public_url=public_url, has_page=has_page)

    with loaded.blaming("store", "url"):
        return await open_store(place, reduce=reduce, snapshot=snapshot)


def _observer(config: Config, metrics: Metrics, tracing: Tracing | None, journal: Journal | None) -> Observer:
    log = LogObserver(transitions=config.telemetry.log_format == "json")
    heard = (metrics if config.telemetry.metrics else None, tracing, log, journal)
    return Observers(*(one for one in heard if one is not None))


async def _webhook_secret(loaded: Loaded, store: Store) -> str:
    configured = loaded.secrets.get("webhooks.secret")
    return configured.reveal() if configured is not None else await store.setting("webhook_secret", new_secret())
