"""What else clients ask for: account, hardware, collections, webhook secret. Says clearly what is not done here."""

from __future__ import annotations

from typing import NoReturn

from gateway.api.exchange import Exchange, Reply
from gateway.api.refusal import missing
from gateway.api.route import Route
from gateway.contract.body import encode
from gateway.contract.errors import NotFound

_NO_DEPLOYMENTS = "This gateway has no deployments: post to /v1/predictions or /v1/models/{owner}/{name}/predictions"
_NO_TRAININGS = "This gateway does not train models"


async def account(exchange: Exchange) -> Reply:
    """The key is the account."""
    name = exchange.owner
    return Reply(200, encode({"type": "user", "username": name, "name": name, "github_url": None, "avatar_url": None}))


async def webhook_secret(exchange: Exchange) -> Reply:
    return Reply(200, encode({"key": exchange.context.webhook_secret}))


async def hardware(exchange: Exchange) -> Reply:
    """A bare array. Where a prediction runs is the policy's choice, so there is one entry to name."""
    return Reply(200, encode([{"name": "Chosen by policy", "sku": "any"}]))


async def empty_page(exchange: Exchange) -> Reply:
    return Reply(200, encode({"next": None, "previous": None, "results": []}))


async def nothing(exchange: Exchange) -> NoReturn:
    raise missing()


async def no_deployment(exchange: Exchange) -> NoReturn:
    raise NotFound(_NO_DEPLOYMENTS)


async def no_training(exchange: Exchange) -> NoReturn:
    raise NotFound(_NO_TRAININGS)


ROUTES = (
    Route("/v1/account", {"GET": account}, needs="models"),
    Route("/v1/hardware", {"GET": hardware}, needs="models"),
    Route("/v1/collections", {"GET": empty_page}, needs="models"),
    Route("/v1/collections/{slug}", {"GET": nothing}, needs="models"),
    Route("/v1/webhooks/default/secret", {"GET": webhook_secret}, needs="predictions"),
    Route("/v1/deployments", {"GET": empty_page}, needs="models", refusal=_NO_DEPLOYMENTS),
    Route("/v1/deployments/{owner}/{name}", {"GET": no_deployment}, needs="models", refusal=_NO_DEPLOYMENTS),
    Route("/v1/deployments/{owner}/{name}/predictions", {"POST": no_deployment}, needs="predictions"),
    Route("/v1/trainings", {"GET": empty_page}, needs="models", refusal=_NO_TRAININGS),
    Route("/v1/trainings/{id}", {"GET": no_training}, needs="models", refusal=_NO_TRAININGS),
    Route("/v1/trainings/{id}/cancel", {"POST": no_training}, needs="models"),
    Route("/v1/models/{owner}/{name}/versions/{id}/trainings", {"POST": no_training}, needs="models"),
)
