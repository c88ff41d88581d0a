"""What callers and ops reach of a gateway: the API's context and the dashboard's operations. Routes no request."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gateway import __version__
from gateway.api import Context, Repeats, recall
from gateway.assembly.ground import Ground
from gateway.assembly.keeping import Keeping
from gateway.assembly.routing import Routing
from gateway.assembly.work import Work
from gateway.contract.key import KeyRecord
from gateway.contract.money import parse_dollars
from gateway.dashboard.act import Acts
from gateway.dashboard.journal import Journal
from gateway.dashboard.operations import Operations
from gateway.dashboard.shell import Shell
from gateway.dashboard.view import Policies, View
from gateway.telemetry.sibling import Siblings


async def recalled(ground: Ground, keys: Mapping[str, KeyRecord]) -> Repeats:
    """Which POSTs may have gone unanswered as the process before this one ended."""
    repeats, clock = Repeats(), ground.clock
    if ground.loaded.store_path is not None:  # else what is open may be another process' own, which is answering for it
        await recall(repeats, ground.store, owners=list(keys), at=clock.now(), now=clock.monotonic())
    return repeats


async def open_operations(ground: Ground, keeping: Keeping, routing: Routing, work: Work) -> Operations | None:
    """What the dashboard shows and does, with the last hour read back from the store; None if it is turned off."""
    if (journal := ground.journal) is None:
        return None
    store, engine, clock, routes = ground.store, work.engine, ground.clock, routing.routes
    acts = Acts(
        store,
        engine,
        routing.breakers,
        journal,
        offers=routes.offers,
        receivers=work.outbox,
        clock=clock,
        forces=routing.forces,
    )
    view = _view(ground, journal, routing, work)
    artifacts, base = keeping.artifacts, ground.public_url
    budgets = routing.planner.budgets
    operations = Operations(
        store, view, journal, acts, artifacts, engine=engine, clock=clock, base=base, budgets=budgets
    )
    await operations.refill()
    return operations


def _view(ground: Ground, journal: Journal, routing: Routing, work: Work) -> View:
    budget = ground.config.dashboard.budget_per_hour

    def policies() -> Policies:
        current = ground.loaded.policies.current()
        return Policies(current.names, current.version)

    return View(
        journal,
        routing.routes,
        clock=ground.clock,
        version=" on ".join(filter(None, (__version__, ground.instance))),
        policies=policies,
        open_predictions=work.engine.open_predictions,
        is_draining=lambda: work.engine.is_draining,
        budget_nanos=parse_dollars(budget) if budget else None,
    )


async def open_front(
    ground: Ground,
    keeping: Keeping,
    work: Work,
    stack: contextlib.AsyncExitStack,
    *,
    keys: Mapping[str, KeyRecord],
    repeats: Repeats,
    operations: Operations | None,
) -> Context:
    config = ground.config
    return Context(
        engine=work.engine,
        store=ground.store,
        models=ground.catalog,
        files=keeping.artifacts,
        keys=keys,
        server=config.server,
        webhook_secret=ground.webhook_secrets[0],
        clock=ground.clock,
        ids=ground.ids,
        check_url=keeping.webhook_guard.check_url,
        check_input_url=keeping.file_guard.check_literal,
        observer=ground.observer,
        metrics=await _scrape(ground, stack),
        policies=lambda: ground.loaded.policies.current().names,
        public_url=ground.public_url,
        allow_http_webhooks=config.webhooks.allow_http,
        metrics_key=config.telemetry.metrics_key,
        max_file_bytes=config.artifacts.max_file_bytes,
        file_seconds=config.artifacts.file_seconds,
        repeats=repeats,
        is_shared=ground.loaded.store_path is None,
        operations=operations,
        receivers=work.outbox,
        shell=Shell(public_url=ground.public_url) if operations is not None else None,
    )


async def _scrape(ground: Ground, stack: contextlib.AsyncExitStack) -> Callable[[], Awaitable[bytes]] | None:
    """The page of metrics, of all workers of this machine; None: they are turned off."""
    commission, render = ground.commission, ground.metrics.scrape
    if not ground.config.telemetry.metrics:
        return None
    if commission is None:
        return render
    siblings = Siblings(Path(commission.folder), number=commission.number, count=commission.count, render=render)
    await siblings.start()
    stack.push_async_callback(siblings.aclose)
    return siblings.scrape
