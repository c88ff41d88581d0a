"""
From paths with their verbs to Litestar handlers: key, dispatch, errors, timing. Knows no resource.

Litestar mounts one plain ASGI handler for each first segment and stays out of the way: half the cost of an injected
handler, any method (QUERY), a 405 of our own; and its own path parameters do not work for ASGI handlers (2.25: a 500).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from litestar import asgi
from litestar.enums import ScopeType
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from gateway.api.auth import authenticate
from gateway.api.context import Context
from gateway.api.exchange import Disconnected, Exchange, Reply
from gateway.api.problems import problem_of
from gateway.api.refusal import MethodMissing, missing

Verb = Callable[[Exchange], Awaitable[Reply]]

_log = logging.getLogger("gateway.api")


@dataclass(frozen=True)
class Route:
    """`needs` is the scope a key must have; None: no key is asked for. `refusal` explains a method not served."""

    path: str  # "/v1/predictions/{id}"
    verbs: Mapping[str, Verb]
    needs: str | None = None
    refusal: str = ""
    allow: str = field(init=False)

    def __post_init__(self) -> None:
        verbs = dict(self.verbs)
        if "GET" in verbs:
            verbs.setdefault("HEAD", verbs["GET"])
        object.__setattr__(self, "verbs", verbs)
        object.__setattr__(self, "allow", ", ".join(sorted(verbs)))


class Node:
    """One segment in the tree of paths; a literal goes before a parameter."""

    __slots__ = ("literals", "name", "parameter", "route")

    def __init__(self) -> None:
        self.literals: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.name = ""
        self.route: Route | None = None

    def add(self, segments: list[str], route: Route) -> None:
        node = self
        for segment in segments:
            if segment.startswith("{"):
                node.parameter = node.parameter or Node()
                node = node.parameter
                node.name = segment[1:-1]
            else:
                node = node.literals.setdefault(segment, Node())
        node.route = route

    def find(self, path: str) -> tuple[Route | None, dict[str, str]]:
        """The route of a path and its parameters. Walks once, without going back: our paths never need it."""
        node: Node | None = self
        params: dict[str, str] = {}
        for segment in path.split("/"):
            if node is None:
                break
            following = node.literals.get(segment)
            if following is None and node.parameter is not None and segment:
                following = node.parameter
                params[following.name] = segment
            node = following
        return (node.route if node is not None else None), params


def mounts(routes: Iterable[Route], context: Context) -> list[ASGIRouteHandler]:
    """One handler for each first segment of the paths."""
    trees: dict[str, Node] = {}
    for route in routes:
        first, *rest = route.path.strip("/").split("/")
        trees.setdefault(first, Node()).add(rest or [""], route)
    return [_mount(f"/{first}", tree, context) for first, tree in trees.items()]


def _mount(prefix: str, tree: Node, context: Context) -> ASGIRouteHandler:
    served = context.observer.request_served
    monotonic = context.clock.monotonic

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        begun = monotonic()
        rest = scope["path"]
        # Litestar mounts by the characters of a path, not by its segments: /v1x comes here too, as "x/".
        route, params = tree.find(rest.strip("/")) if rest.startswith("/") else (None, {})
        exchange = Exchange(context, scope, receive, path=prefix + rest.rstrip("/"), params=params)
        status = 499  # gone before it was answered, as nginx says
        try:
            reply = await _reply(route, exchange)
            status = reply.status
            await exchange.answer(reply, send)
        except Disconnected:
            _log.debug("the peer left before its request was whole")
        finally:
            # A path and a method are the caller's to invent, a metric's attributes are not.
            method = exchange.method if route is not None and exchange.method in route.verbs else "_OTHER"
            served(route.path if route is not None else "", method, status, monotonic() - begun)

    return asgi(prefix, is_mount=True, copy_scope=False, name=prefix)(endpoint)


async def _reply(route: Route | None, exchange: Exchange) -> Reply:
    try:
        if route is None:
            return problem_of(missing())
        if route.needs is not None:
            authenticate(exchange, route.needs)
        verb = route.verbs.get(exchange.method)
        if verb is None:
            text = route.refusal or f"{exchange.method[:20]} is not served here"
            return problem_of(MethodMissing(text, allow=route.allow))
        return await verb(exchange)
    except Disconnected:
        raise
    except Exception as error:
        return problem_of(error)
