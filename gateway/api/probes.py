"""Alive, ready, and the numbers. Decides nothing: it asks."""

from __future__ import annotations

import msgspec

from gateway.api.auth import authenticate
from gateway.api.exchange import Exchange, Reply
from gateway.api.refusal import missing
from gateway.api.route import Route

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


async def alive(exchange: Exchange) -> Reply:
    """The loop turns; nothing else is asked."""
    return Reply(200, b'{"status":"alive"}')


async def ready(exchange: Exchange) -> Reply:
    """503 while draining, while the store cannot be written, or while readiness names a reason."""
    context = exchange.context
    reasons: list[str] = []
    if context.engine.is_draining:
        reasons.append("draining")
    if not await context.store_check.passes():
        reasons.append("the store cannot be written")
    reasons.extend(await context.readiness())
    status = "unready" if reasons else "ready"
    return Reply(503 if reasons else 200, msgspec.json.encode({"status": status, "reasons": reasons}))


async def metrics(exchange: Exchange) -> Reply:
    if exchange.context.metrics is None:
        raise missing()  # better than numbers that stand still
    if exchange.context.metrics_key:
        authenticate(exchange, "admin")
    return Reply(200, await exchange.context.metrics(), content_type=METRICS_TYPE)


ROUTES = (
    Route("/livez", {"GET": alive}),
    Route("/readyz", {"GET": ready}),
    Route("/metrics", {"GET": metrics}),
)
