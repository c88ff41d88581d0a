"""What a gateway does by itself: the engine, the outbox, and what runs beside them. Answers no caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from gateway.artifact.collect import Collector
from gateway.artifact.erase import Eraser
from gateway.artifact.folder import Artifacts
from gateway.artifact.intake import Intake
from gateway.assembly.ground import Ground
from gateway.assembly.keeping import Keeping
from gateway.assembly.routing import Routing
from gateway.contract.clock import Clock
from gateway.contract.trace import given
from gateway.dashboard.account import Account
from gateway.delivery.outbox import Outbox
from gateway.delivery.webhook import Sender
from gateway.drain import Drain
from gateway.engine.attempt import Timing
from gateway.engine.engine import Engine
from gateway.engine.exchange import Exchange
from gateway.engine.parts import Parts
from gateway.engine.retention import Retention
from gateway.engine.worker import Leasing
from gateway.routing.bulletin import Bulletins
from gateway.telemetry.metrics import Sources

log = logging.getLogger("turnout")

_SWEEP_SECONDS = 600.0
_END_SECONDS = 5.0


class Work(msgspec.Struct, kw_only=True, frozen=True):
    engine: Engine
    outbox: Outbox
    exchange: Exchange
    account: Account


def open_work(ground: Ground, keeping: Keeping, routing: Routing, stack: contextlib.AsyncExitStack) -> Work:
    """Nothing is done yet: `start_work` begins."""
    config, store, clock, tracing = ground.config, ground.store, ground.clock, ground.tracing
    timeout_seconds = config.webhooks.timeout_seconds
    sender = Sender(keeping.webhook_guard, ground.webhook_secrets, clock, timeout_seconds=timeout_seconds)
    stack.push_async_callback(sender.aclose)
    worker_id = ground.ids.prediction()
    is_told = tracing is not None or ground.journal is not None or config.telemetry.log_format == "json"
    outbox = Outbox(
        store,
        sender,
        worker=worker_id,
        clock=clock,
        draw=ground.draw,
        observer=ground.observer,
        schedule_seconds=config.webhooks.schedule_seconds,
        timeout_seconds=timeout_seconds,
        look=store.get if is_told else None,
        trace=tracing.delivery_context if tracing is not None else None,
    )
    engine = Engine(
        store,
        _parts(ground, keeping, routing),
        ids=ground.ids,
        worker_id=worker_id,
        max_in_flight=config.server.max_in_flight,
        wake_outbox=outbox.wake,
        leasing=Leasing(lease=config.server.lease_seconds),
    )
    bulletins = Bulletins(worker_id, routing.board, routing.breakers, clock, knows=ground.offers.__contains__)
    return Work(
        engine=engine,
        outbox=outbox,
        exchange=Exchange(store, worker_id, bulletins, acts=routing.catch_up),
        account=Account(store, clock),
    )


def _parts(ground: Ground, keeping: Keeping, routing: Routing) -> Parts:
    artifacts, fetcher, tracing = keeping.artifacts, keeping.fetcher, ground.tracing
    return Parts(
        planner=routing.planner,
        breakers=routing.breakers,
        board=routing.board,
        links=routing.links,
        offer=ground.catalog.offer,
        collector=Collector(artifacts, fetcher),
        intake=Intake(artifacts, fetcher, ground.store, ground.clock),
        observer=ground.observer,
        clock=ground.clock,
        draw=ground.draw,
        secret=ground.secret,
        callback_base=ground.public_url,
        timing=Timing(),
        traceparent=tracing.attempt_context if tracing is not None else given,
    )


def watch_work(ground: Ground, routing: Routing, work: Work) -> None:
    """The gauges ask it, and a change of policies is announced."""
    policies, drivers, account = ground.loaded.policies, ground.drivers, work.account
    policies.observer = ground.observer
    ground.metrics.observe(
        Sources(
            now=ground.clock.now,
            held=work.engine.open_predictions,
            delivering=work.outbox.in_hand,
            receivers=work.outbox.receivers,
            double_bill_nanos=lambda: account.latest.nanos,
            headroom=lambda: {name: driver.headroom for name, driver in drivers.items() if driver.headroom is not None},
            policy_version=lambda: policies.current().version,
            local_backend=lambda: _local_health(ground, routing),
        )
    )


def _local_health(ground: Ground, routing: Routing) -> Mapping[str, Any]:
    """Of one that several workers share the first tells the figures: whoever adds theirs up counts them once."""
    local, commission = routing.local, ground.commission
    if local is None:
        return {}
    if commission is not None and commission.number > 0:
        return {"device": local.health.get("device")}
    return local.health


async def start_work(ground: Ground, keeping: Keeping, work: Work, stack: contextlib.AsyncExitStack) -> Drain:
    """How it ends: `begin` is the first word of that, and the rest follows as `stack` is closed."""
    config, clock = ground.config, ground.clock
    _keep(work.outbox.run(), stack, name="turnout-outbox")
    await work.engine.start()
    drain = Drain(work.engine, work.outbox, clock, seconds=config.server.drain_seconds)
    stack.push_async_callback(drain.end)
    retention = Retention(
        ground.store,
        Eraser(keeping.artifacts),
        clock=clock,
        draw=ground.draw,
        data_seconds=config.retention.data_seconds,
    )
    _keep(work.account.run(), stack, name="turnout-account")
    _keep(ground.loaded.policies.run(), stack, name="turnout-policies")
    _keep(_sweep(keeping.artifacts, clock), stack, name="turnout-sweep")
    _keep(retention.run(), stack, name="turnout-retention")
    _keep(work.exchange.run(), stack, name="turnout-exchange")
    return drain


def _keep(running: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack, *, name: str) -> None:
    """Until the gateway ends."""
    stack.push_async_callback(_end, asyncio.create_task(running, name=name))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=_END_SECONDS)


async def _sweep(artifacts: Artifacts, clock: Clock) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            await artifacts.sweep(clock.now())
        except OSError as error:
            log.warning("expired files could not be removed: %s", error)
