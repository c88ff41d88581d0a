"""Providers' webhooks coming in: bounded, raw, straight to the engine. Believes nothing: the adapters judge."""

from __future__ import annotations

import re

import msgspec

from gateway.api.exchange import Exchange, Reply
from gateway.api.refusal import missing
from gateway.api.route import Route

MOST_BYTES = 1_000_000

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)


async def receive(exchange: Exchange) -> Reply:
    """200 for what was applied, known, or only a nudge; 401 forged; 404 unknown; 503 so that it is sent again."""
    token = exchange.params["token"]
    if _TOKEN.fullmatch(token) is None:
        raise missing()
    body = await exchange.body(MOST_BYTES)
    outcome = await exchange.context.engine.callback(token, exchange.headers(), body)
    return Reply(200, msgspec.json.encode({"status": outcome}))


ROUTES = (Route("/cb/{token}", {"POST": receive}),)
