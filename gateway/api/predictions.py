"""Predictions: create, get, list, cancel. Speaks to the engine; streams nothing."""

from __future__ import annotations

import logging

import msgspec

from gateway.api import header
from gateway.api.creation import read_request
from gateway.api.exchange import Exchange, Headers, Reply
from gateway.api.page import cursor_position, page_links, parsed_moment
from gateway.api.refusal import Busy, invalid, missing
from gateway.api.repeat import Posting, find_elsewhere, fingerprint_of
from gateway.api.route import Route
from gateway.contract.body import PredictionBody, RoutingBody, encode, prediction_body
from gateway.contract.errors import Conflict, NotFound
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Created, CreateResult

PAGE_SIZE = 100

_log = logging.getLogger("gateway.api")


async def create(exchange: Exchange) -> Reply:
    """201 with the prediction as it began, or, with `Prefer: wait`, as it ended if it ended in time."""
    context = exchange.context
    raw = await exchange.body(context.server.max_body_bytes)
    fingerprint = fingerprint_of(exchange.owner, exchange.path, raw)
    request = read_request(exchange, raw, fingerprint=fingerprint)
    cancel_after = header.cancel_after_seconds(exchange.header(b"cancel-after"))
    key = header.idempotency_key(exchange.header(b"idempotency-key"))
    tries = exchange.header(b"x-stainless-retry-count")
    posting = Posting(fingerprint, exchange.is_broken, tells_retries=tries is not None)
    repeats = context.repeats
    repeats.begin(posting)
    try:
        prediction = await _repeated(exchange, posting, is_retry=tries not in (None, "0")) if key is None else None
        is_repeat = prediction is not None
        if prediction is None:
            _refuse_when_full(exchange)
            result = await context.engine.create(
                request,
                owner=exchange.owner,
                cancel_after_seconds=cancel_after,
                idempotency_key=key,
                body_hash=fingerprint if key is not None else "",
            )
            prediction = _accepted(result)
            is_repeat = result.outcome is Created.SAME
        posting.settle(prediction.id)
        reply = await _created_reply(exchange, prediction, is_repeat=is_repeat)
        if is_repeat:  # whose connection broke once may break again, and this reply had nothing to wait for
            await exchange.catch_up()
        return reply
    finally:
        # Between this look and the reply's first byte nothing else runs.
        repeats.end(posting, is_broken=exchange.is_broken(), now=context.clock.monotonic())


async def _repeated(exchange: Exchange, posting: Posting, *, is_retry: bool) -> Prediction | None:
    context = exchange.context
    id = await context.repeats.earlier(posting, is_retry=is_retry, now=context.clock.monotonic())
    if id is None and is_retry and context.is_shared:
        id = await find_elsewhere(context.store, posting.fingerprint, owner=exchange.owner, at=context.clock.now())
    return None if id is None else await context.store.get(id, owner=exchange.owner)


def _refuse_when_full(exchange: Exchange) -> None:
    context = exchange.context
    if context.engine.is_draining:
        raise Busy("The gateway is shutting down and takes no new predictions. Try again.")
    if context.engine.open_count >= context.server.max_in_flight:
        raise Busy("As many predictions are open as the gateway takes. Try again later.")


def _accepted(result: CreateResult) -> Prediction:
    if result.outcome is Created.CONFLICT:
        raise Conflict("This Idempotency-Key was used with another body or path")
    return result.prediction


async def _created_reply(exchange: Exchange, prediction: Prediction, *, is_repeat: bool) -> Reply:
    """
    From here on the prediction is accepted: whatever goes wrong with the wait, the caller hears of it by its id.

    A reply that is not final must read `starting` with a null output, and so must every reply to a caller that did
    not ask to wait: clients take any other status as the end, and the output in a `starting` one as delivered.
    """
    context = exchange.context
    preference = exchange.header(b"prefer")
    seconds = header.prefer_seconds(preference, most_seconds=context.server.max_wait_seconds)
    headers: Headers = ()
    if seconds is not None:
        headers = ((b"preference-applied", header.preference_applied(preference, seconds).encode()),)
        try:
            prediction = await context.engine.wait(prediction.id, seconds=seconds)
        except Exception:
            _log.exception("waiting for an accepted prediction failed; it is answered as it began")
    if is_repeat:
        headers += ((b"turnout-repeat", b"true"),)
    as_created = seconds is None or not prediction.is_terminal
    body = prediction_body(
        prediction, public_url=context.base, as_created=as_created, has_page=context.shell is not None
    )
    headers += ((b"location", body.urls.get.encode()), *routing_headers(body))
    return Reply(201, encode(body), headers=headers)


async def get(exchange: Exchange) -> Reply:
    key = exchange.key
    owner = None if key is not None and key.is_admin else exchange.owner
    prediction = await exchange.context.store.get(exchange.params["id"], owner=owner)
    if prediction is None:
        raise missing()
    return _single(exchange, prediction)


async def cancel(exchange: Exchange) -> Reply:
    """200 with the prediction; one that has ended already is shown unchanged. The body, if any, is not looked at."""
    prediction = await exchange.context.engine.cancel(exchange.params["id"], owner=exchange.owner)
    if prediction is None:
        raise missing()
    return _single(exchange, prediction)


async def list_(exchange: Exchange) -> Reply:
    """Pages of 100, newest first, by opaque cursors."""
    query = exchange.query()
    source = query.get("source")
    if source not in (None, "web"):
        raise invalid("enum", "source", 'source must be one of the following: "web"')
    after, before = parsed_moment(query, "created_after"), parsed_moment(query, "created_before")
    position = cursor_position(query)
    if source == "web":  # nothing of ours is made on a web page
        return Reply(200, encode({"next": None, "previous": None, "results": []}))
    try:
        page = await exchange.context.store.list_predictions(
            owner=exchange.owner, position=position, limit=PAGE_SIZE, created_after=after, created_before=before
        )
    except ValueError:
        raise NotFound("Invalid cursor") from None
    results = [_shown(exchange, one) for one in page.predictions]
    return Reply(200, encode({**page_links(exchange, page.next, page.previous), "results": results}))


def _single(exchange: Exchange, prediction: Prediction) -> Reply:
    body = _shown(exchange, prediction)
    return Reply(200, encode(body), headers=routing_headers(body))


def _shown(exchange: Exchange, prediction: Prediction) -> PredictionBody:
    context = exchange.context
    return prediction_body(prediction, public_url=context.base, has_page=context.shell is not None)


def routing_headers(body: PredictionBody) -> Headers:
    """`turnout-provider`, `-attempts`, `-cost` with its `-basis`, `-policy`, as far as they are known."""
    routing = body.routing
    if not isinstance(routing, RoutingBody):
        return ()
    headers: list[tuple[bytes, bytes]] = [(b"turnout-attempts", str(len(routing.attempts)).encode())]
    if routing.provider is not msgspec.UNSET:
        headers.append((b"turnout-provider", _header_safe(routing.provider)))
    if routing.policy is not msgspec.UNSET:
        headers.append((b"turnout-policy", _header_safe(routing.policy)))
    if routing.cost is not msgspec.UNSET:
        headers.append((b"turnout-cost", (routing.cost.amount or "unknown").encode()))
        headers.append((b"turnout-cost-basis", routing.cost.basis.encode()))
    return tuple(headers)


def _header_safe(text: str) -> bytes:
    return "".join(character if " " <= character <= "~" else "?" for character in text).encode()


ROUTES = (
    Route("/v1/predictions", {"GET": list_, "POST": create}, needs="predictions"),
    Route("/v1/predictions/{id}", {"GET": get}, needs="predictions"),
    Route("/v1/predictions/{id}/cancel", {"POST": cancel}, needs="predictions"),
    Route("/v1/models/{owner}/{name}/predictions", {"POST": create}, needs="predictions"),
)
