"""Webhooks to callers: what became of each, and once more, by its caller or by ops. Sends none by itself."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.api.exchange import Exchange, Headers, Reply
from gateway.api.refusal import Malformed, invalid, missing
from gateway.api.route import Route
from gateway.contract.body import timestamp
from gateway.contract.errors import RequestRefused
from gateway.contract.host import host_of
from gateway.contract.prediction import Prediction
from gateway.store.protocol import AuditRow, Delivery, Redelivery, Search, Try

MOST_BODY_BYTES = 16_384
MOST_CHARACTERS = 500
PAGE_SIZE = 200  # predictions that one call looks through
_FRESH: Headers = ((b"cache-control", b"no-store"),)


class NothingToSend(RequestRefused):
    """As things stand there is no webhook that could be sent again."""

    status = 409
    title = "Nothing to send"


class TryBody(msgspec.Struct, kw_only=True, frozen=True):
    at: str
    status: int | None  # HTTP; None: nobody answered
    error: str | None


class DeliveryBody(msgspec.Struct, kw_only=True, frozen=True):
    id: str  # as the receiver has it in `webhook-id`
    event: str
    sequence: int
    host: str
    created_at: str
    due_at: str | None  # of the next try; None: there is none
    tries: int
    ended: str | None  # delivered, gone, exhausted, superseded; None: on its way
    last_status: int | None
    last_error: str | None
    is_final: bool
    history: tuple[TryBody, ...]  # the newest, oldest first


class RetryHost(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /ops/v1/deliveries/retry."""

    host: str
    reason: str
    position: str | None = None
    created_after: datetime | None = None


async def of_prediction(exchange: Exchange) -> Reply:
    """All of one prediction's, in order."""
    prediction = await _own(exchange)
    rows = await exchange.context.store.deliveries(prediction.id)
    return _reply({"prediction": prediction.id, "deliveries": [_shown(row) for row in rows]})


async def retry(exchange: Exchange) -> Reply:
    """Send the webhook of a prediction's end again: same id, same body, now. 409 where there is none."""
    prediction = await _own(exchange)
    await _again(exchange, prediction)
    rows = await exchange.context.store.deliveries(prediction.id)
    final = [row for row in rows if row.is_final]
    return _reply({"prediction": prediction.id, "deliveries": [_shown(row) for row in final]})


async def backlog(exchange: Exchange) -> Reply:
    """What waits, by host, and the receivers that something is known against: as this process sees them."""
    context = exchange.context
    waiting = [
        {
            "host": line.host,
            "waiting": line.waiting,
            "failing": line.failing,
            "oldest_at": timestamp(line.oldest_at),
            "last_error": line.last_error,
        }
        for line in await context.store.backlog()
    ]
    standings = context.receivers.standings() if context.receivers is not None else ()
    return _reply({"waiting": waiting, "receivers": standings})


async def retry_host(exchange: Exchange) -> Reply:
    """
    Make everything due that a host has not taken, page by page: `next` is the position to go on from, null at the end.

    For after its revival: what still waits, what is exhausted, and what it has refused.
    """
    context = exchange.context
    asked = _read(await exchange.body(MOST_BODY_BYTES))
    host, store = asked.host.strip().lower(), context.store
    row = AuditRow(
        at=context.now(),
        who=exchange.owner,
        action="deliveries.retry",
        target=host,
        reason=asked.reason,
        outcome="begun",
    )
    if asked.position is None:  # one line for the whole, not for each page
        row = await store.put_audit(row)
    page = await store.search_predictions(
        Search(statuses=_ENDED, created_after=asked.created_after), position=asked.position, limit=PAGE_SIZE
    )
    found = [one for one in page.predictions if host_of(one.request.webhook or "") == host and not one.data_removed]
    for owner in sorted({one.owner for one in found}):
        await _ask(exchange, owner, host)
    retried = sum([await _again_if_owed(exchange, one.id) for one in found])
    _wake(exchange)
    if row.id:
        await store.put_audit(msgspec.structs.replace(row, outcome="done"))
    counts = {"looked_at": len(page.predictions), "found": len(found), "retried": retried}
    return _reply({"host": host, **counts, "next": page.next})


_ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})


async def _again_if_owed(exchange: Exchange, id: str) -> bool:
    store = exchange.context.store
    finals = [row for row in await store.deliveries(id) if row.is_final]
    if not finals or finals[-1].ended == "delivered":
        return False
    return await store.redeliver(id) is Redelivery.DUE


async def _again(exchange: Exchange, prediction: Prediction) -> None:
    """Raises NothingToSend."""
    if prediction.data_removed:
        raise NothingToSend("The prediction's data was removed: there is nothing left to send")
    if prediction.request.webhook is None:
        raise NothingToSend("The prediction was made without a webhook")
    if not prediction.is_terminal:
        raise NothingToSend("The prediction has not ended: its webhook comes when it does")
    await _ask(exchange, prediction.owner, host_of(prediction.request.webhook))
    redelivery = await exchange.context.store.redeliver(prediction.id)
    _wake(exchange)
    match redelivery:
        case Redelivery.NONE:
            raise NothingToSend('The prediction was made without the event "completed"')
        case Redelivery.SENDING:
            raise NothingToSend("The webhook is on its way at this moment; look again in a few seconds")


async def _own(exchange: Exchange) -> Prediction:
    """Ops may look at anybody's. Raises NotFound."""
    key = exchange.key
    owner = None if key is not None and key.is_admin else exchange.owner
    prediction = await exchange.context.store.get(exchange.params["id"], owner=owner)
    if prediction is None:
        raise missing()
    return prediction


async def _ask(exchange: Exchange, owner: str, host: str) -> None:
    """Before anything is made due: whoever has it first is to try it, and one that is on its way comes again."""
    if exchange.context.receivers is not None:
        await exchange.context.receivers.retry(owner, host)


def _wake(exchange: Exchange) -> None:
    if exchange.context.receivers is not None:
        exchange.context.receivers.wake()


def _read(raw: bytes) -> RetryHost:
    try:
        asked = msgspec.json.decode(raw, type=RetryHost)
    except msgspec.ValidationError as error:
        raise invalid("invalid_type", "", str(error)[:300]) from None
    except (msgspec.DecodeError, UnicodeError):
        raise Malformed("The body is not valid JSON") from None
    for name in ("host", "reason"):
        text = getattr(asked, name).strip()
        if not text:
            raise invalid("required", name, f"{name} is required")
        if len(text) > MOST_CHARACTERS:
            raise invalid("string_lte", name, f"String length must be less than or equal to {MOST_CHARACTERS}")
    if asked.created_after is not None and asked.created_after.tzinfo is None:
        raise invalid("format", "created_after", "created_after must name its time zone")
    return asked


def _shown(row: Delivery) -> DeliveryBody:
    return DeliveryBody(
        id=row.id,
        event=row.event,
        sequence=row.sequence,
        host=host_of(row.url),
        created_at=timestamp(row.created_at),
        due_at=timestamp(row.due_at) if row.ended is None else None,
        tries=row.tries,
        ended=row.ended,
        last_status=row.last_status,
        last_error=row.last_error,
        is_final=row.is_final,
        history=tuple(_tried(one) for one in row.history),
    )


def _tried(one: Try) -> TryBody:
    return TryBody(at=timestamp(one.at), status=one.status, error=one.error)


def _reply(body: object) -> Reply:
    return Reply(200, msgspec.json.encode(body), headers=_FRESH)


# Replicate has no such thing: it lies under a prefix of our own, where nothing of theirs can ever come to be.
ROUTES = (
    Route("/turnout/v1/predictions/{id}/deliveries", {"GET": of_prediction}, needs="predictions"),
    Route("/turnout/v1/predictions/{id}/deliveries/retry", {"POST": retry}, needs="predictions"),
    Route("/ops/v1/deliveries", {"GET": backlog}, needs="admin"),
    Route("/ops/v1/deliveries/retry", {"POST": retry_host}, needs="admin"),
)
