"""Models and their versions, as the catalog has them: read, list, search. Runs nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from gateway.api.context import Context
from gateway.api.exchange import Exchange, Reply
from gateway.api.page import page_of
from gateway.api.refusal import Malformed, invalid, missing
from gateway.api.route import Route
from gateway.contract.body import encode, timestamp
from gateway.contract.model import Model, Version

PAGE_SIZE = 25
VERSIONS_PAGE_SIZE = 100
MOST_QUERY_BYTES = 10_000
MOST_SEARCH_RESULTS = 50
# Never null: Python's client parses it, and below 0.3.9 takes any list for a stream of parts.
COG_VERSION = "0.16.0"


class VersionBody(msgspec.Struct, frozen=True):
    id: str
    created_at: str
    cog_version: str
    openapi_schema: dict[str, Any]


class ModelBody(msgspec.Struct, kw_only=True, frozen=True):
    url: str
    owner: str
    name: str
    description: str
    visibility: str = "public"
    is_official: bool = True  # they run by owner/name
    github_url: str | None = None
    paper_url: str | None = None
    license_url: str | None = None
    weights_url: str | None = None
    run_count: int = 0
    cover_image_url: str | None = None
    default_example: None = None
    latest_version: VersionBody | None
    created_at: str


async def list_(exchange: Exchange) -> Reply:
    query = exchange.query()
    by = _one_of(query, "sort_by", ("latest_version_created_at", "model_created_at"))
    direction = _one_of(query, "sort_direction", ("desc", "asc"))

    def moment(model: Model) -> tuple[datetime, str]:
        latest = _latest(model)
        at = latest.created_at if by == "latest_version_created_at" and latest is not None else model.created_at
        return at, model.slug

    models = sorted(exchange.context.models.models(), key=moment, reverse=direction == "desc")
    return _model_page(exchange, models)


async def search_by_text(exchange: Exchange) -> Reply:
    """QUERY: the text is the body, raw (Python), in JSON quotes (npm), or a JSON string (Python 2.x)."""
    raw = await exchange.body(MOST_QUERY_BYTES)
    text = raw.decode()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            text = msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError:
            text = text[1:-1]
    return _model_page(exchange, _found(exchange.context, text))


async def search(exchange: Exchange) -> Reply:
    query = exchange.query()
    text = query.get("query", "")
    if not text:
        raise Malformed('Query parameter "query" is required')
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MOST_SEARCH_RESULTS):
        raise invalid("invalid_type", "limit", f"Must be an integer from 1 to {MOST_SEARCH_RESULTS}")
    found = _found(exchange.context, text)[: int(limit)]
    models = [
        {
            "model": _model_body(exchange.context, model),
            "metadata": {"generated_description": model.description, "tags": [], "score": 1.0},
        }
        for model in found
    ]
    return Reply(200, encode({"query": text, "models": models, "collections": [], "pages": []}))


async def get(exchange: Exchange) -> Reply:
    return Reply(200, encode(_model_body(exchange.context, _model(exchange))))


async def versions(exchange: Exchange) -> Reply:
    model = _model(exchange)
    newest_first = sorted(model.versions, key=lambda version: version.created_at, reverse=True)
    page = page_of(exchange, newest_first, size=VERSIONS_PAGE_SIZE, name=lambda version: version.id)
    page["results"] = [_version_body(version) for version in page["results"]]
    return Reply(200, encode(page))


async def version(exchange: Exchange) -> Reply:
    for one in _model(exchange).versions:
        if one.id == exchange.params["id"]:
            return Reply(200, encode(_version_body(one)))
    raise missing()


async def readme(exchange: Exchange) -> Reply:
    model = _model(exchange)
    text = f"# {model.slug}\n\n{model.description}\n"
    return Reply(200, text.encode(), content_type=b"text/plain; charset=utf-8")


async def examples(exchange: Exchange) -> Reply:
    _model(exchange)
    return Reply(200, encode({"next": None, "previous": None, "results": []}))


def _model(exchange: Exchange) -> Model:
    model = exchange.context.models.get(f"{exchange.params['owner']}/{exchange.params['name']}")
    if model is None:
        raise missing()
    return model


def _latest(model: Model) -> Version | None:
    return model.versions[0] if model.versions else None


def _model_page(exchange: Exchange, models: list[Model]) -> Reply:
    page = page_of(exchange, models, size=PAGE_SIZE, name=lambda model: model.slug)
    page["results"] = [_model_body(exchange.context, model) for model in page["results"]]
    return Reply(200, encode(page))


def _model_body(context: Context, model: Model) -> ModelBody:
    latest = _latest(model)
    return ModelBody(
        url=f"{context.base}/v1/models/{model.slug}",
        owner=model.owner,
        name=model.name,
        description=model.description,
        latest_version=_version_body(latest) if latest is not None else None,
        created_at=timestamp(model.created_at),
    )


def _version_body(version: Version) -> VersionBody:
    return VersionBody(version.id, timestamp(version.created_at), COG_VERSION, version.schema)


def _found(context: Context, text: str) -> list[Model]:
    """Every word in the name or the description; those with it in the name first."""
    words = text.lower().split()
    found = [
        model
        for model in context.models.models()
        if all(word in f"{model.slug} {model.description}".lower() for word in words)
    ]
    return sorted(found, key=lambda model: (not all(word in model.slug.lower() for word in words), model.slug))


def _one_of(query: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """The first is the default. Raises InputInvalid."""
    value = query.get(name, allowed[0])
    if value not in allowed:
        listed = ", ".join(f'"{one}"' for one in allowed)
        raise invalid("enum", name, f"{name} must be one of the following: {listed}")
    return value


_NOT_HERE = "Models are configured by the operator of this gateway, not made by this API"

ROUTES = (
    Route("/v1/models", {"GET": list_, "QUERY": search_by_text}, needs="models", refusal=_NOT_HERE),
    Route("/v1/models/{owner}/{name}", {"GET": get}, needs="models", refusal=_NOT_HERE),
    Route("/v1/models/{owner}/{name}/versions", {"GET": versions}, needs="models", refusal=_NOT_HERE),
    Route("/v1/models/{owner}/{name}/versions/{id}", {"GET": version}, needs="models", refusal=_NOT_HERE),
    Route("/v1/models/{owner}/{name}/readme", {"GET": readme}, needs="models"),
    Route("/v1/models/{owner}/{name}/examples", {"GET": examples}, needs="models"),
    Route("/v1/search", {"GET": search}, needs="models"),
)
