"""The API as a Litestar application: all routes, and a problem body for whatever matches none. Builds nothing else."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler

from gateway.api import (
    account,
    artifacts,
    callbacks,
    dashboard,
    deliveries,
    files,
    models,
    operations,
    predictions,
    probes,
    stream,
)
from gateway.api.context import Context
from gateway.api.exchange import Reply
from gateway.api.problems import problem, problem_of
from gateway.api.refusal import NOT_FOUND
from gateway.api.route import mounts

RESOURCES = (
    predictions,
    stream,
    models,
    files,
    artifacts,
    callbacks,
    account,
    probes,
    operations,
    deliveries,
    dashboard,
)


def routes(context: Context) -> list[ASGIRouteHandler]:
    """Every route, bound to `context`."""
    return mounts((route for resource in RESOURCES for route in resource.ROUTES), context)


def application(context: Context, **options: Any) -> Litestar:
    """
    The application; `options` go to Litestar (lifespan, middleware). No documentation route, no debug pages.

    Bodies are bounded route by route, where they are read.
    """
    return Litestar(
        route_handlers=routes(context),
        openapi_config=None,
        debug=False,
        logging_config=None,
        exception_handlers={HTTPException: _routing_problem, Exception: _problem},
        **options,
    )


def _routing_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses before a route of ours is reached: an unknown path, a bad Host."""
    if error.status_code == 404:
        return _response(problem(404, "Not found", NOT_FOUND))
    return _response(problem(error.status_code, "Bad request", "The request cannot be read"))


def _problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _response(problem_of(error))


def _response(reply: Reply) -> Response[bytes]:
    headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, status_code=reply.status, media_type=reply.content_type.decode(), headers=headers)
