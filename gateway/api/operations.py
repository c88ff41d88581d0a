"""The operations API, /ops/v1, for keys with the scope admin: what the dashboard shows and does. Gathers nothing."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from gateway.api.context import Operations
from gateway.api.exchange import Exchange, Headers, Reply
from gateway.api.refusal import Malformed, invalid, missing
from gateway.api.route import Route
from gateway.api.stream import STREAM_TYPE
from gateway.contract.prediction import Status
from gateway.dashboard.shape import Act, ForceBreaker, Rows
from gateway.store.protocol import Search

MOST_ROWS = 200
MOST_LINES = 1_000
MOST_HOURS = 24 * 31
MOST_BODY_BYTES = 16_384
MOST_WORD_CHARACTERS = 200
_ID = re.compile(r"[0-9a-z]{26}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-z]{1,26}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_STATUSES = {status.value: frozenset({status.value}) for status in Status} | {
    "open": frozenset({Status.STARTING.value, Status.PROCESSING.value}),
    "failed": frozenset({Status.FAILED.value, Status.ABORTED.value}),
    "ended": frozenset(status.value for status in Status if status.is_terminal),
}
_FRESH: Headers = ((b"cache-control", b"no-store"),)

T = TypeVar("T")


async def overview(exchange: Exchange) -> Reply:
    return _reply(await _operations(exchange).overview())


async def predictions(exchange: Exchange) -> Reply:
    """Everybody's, newest first. A page may be short, or empty, and have a `next` all the same."""
    operations, query = _operations(exchange), exchange.query()
    limit = _number(query, "limit", default=50, most=MOST_ROWS)
    prefix = query.get("q", "").strip().lower() or None
    if prefix is not None and _PREFIX.fullmatch(prefix) is None:
        return _reply(Rows(predictions=()))  # no id of ours begins like that
    search = Search(
        statuses=_statuses(query.get("status", "")),
        model=_word(query, "model"),
        provider=_word(query, "provider"),
        owner=_word(query, "owner"),
        prefix=prefix,
        is_rescued=query.get("rescued", "") in ("1", "true"),
    )
    return _reply(await operations.search(search, position=query.get("position") or None, limit=limit))


async def prediction(exchange: Exchange) -> Reply:
    detail = await _operations(exchange).detail(_id(exchange))
    if detail is None:
        raise missing()
    return _reply(detail)


async def events(exchange: Exchange) -> Reply:
    """`overview`, `prediction` and `happened`, until the reader is `dropped`."""
    headers = (*_FRESH, (b"x-accel-buffering", b"no"))
    return Reply(200, content_type=STREAM_TYPE, headers=headers, stream=_operations(exchange).listen())


async def force(exchange: Exchange) -> Reply:
    operations = _operations(exchange)
    act = await _body(exchange, ForceBreaker)
    return _reply(await operations.acts.force(act.offer, act.action, reason=act.reason, who=exchange.owner))


async def cancel(exchange: Exchange) -> Reply:
    operations, id = _operations(exchange), _id(exchange)
    act = await _body(exchange, Act)
    return _reply(await operations.acts.cancel(id, reason=act.reason, who=exchange.owner))


async def redeliver(exchange: Exchange) -> Reply:
    operations, id = _operations(exchange), _id(exchange)
    act = await _body(exchange, Act)
    return _reply(await operations.acts.redeliver(id, reason=act.reason, who=exchange.owner))


async def ledger(exchange: Exchange) -> Reply:
    """What may have been billed, of the last `hours`: the lines, their sum, and how much of it came twice at most."""
    operations, query = _operations(exchange), exchange.query()
    hours = _number(query, "hours", default=24, most=MOST_HOURS)
    return _reply(await operations.ledger(hours=hours, limit=_number(query, "limit", default=200, most=MOST_LINES)))


async def budgets(exchange: Exchange) -> Reply:
    """What the policies say, and what is spent, set aside and left in the windows that run."""
    operations, query = _operations(exchange), exchange.query()
    return _reply(await operations.budgets(limit=_number(query, "limit", default=MOST_LINES, most=MOST_LINES)))


async def audit(exchange: Exchange) -> Reply:
    """Newest first; `before` is the id of the oldest line that is known already."""
    operations, query = _operations(exchange), exchange.query()
    before = _number(query, "before", default=0, most=10**15) or None
    return _reply(await operations.audit(before=before, limit=_number(query, "limit", default=100, most=MOST_ROWS)))


def _operations(exchange: Exchange) -> Operations:
    """Raises NotFound where the dashboard is turned off."""
    if exchange.context.operations is None:
        raise missing()
    return exchange.context.operations


def _reply(body: Any) -> Reply:
    return Reply(200, msgspec.json.encode(body), headers=_FRESH)


def _id(exchange: Exchange) -> str:
    id = exchange.params["id"]
    if _ID.fullmatch(id) is None:
        raise missing()
    return id


async def _body(exchange: Exchange, kind: type[T]) -> T:
    raw = await exchange.body(MOST_BODY_BYTES)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise invalid("invalid_type", "", str(error)[:300]) from None
    except (msgspec.DecodeError, UnicodeError):
        raise Malformed("The body is not valid JSON") from None


def _statuses(text: str) -> frozenset[str]:
    """One word, or several with commas between them."""
    found: frozenset[str] = frozenset()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word not in _STATUSES:
            raise invalid("enum", "status", f"status must be one of the following: {', '.join(sorted(_STATUSES))}")
        found |= _STATUSES[word]
    return found


def _word(query: dict[str, str], name: str) -> str | None:
    text = query.get(name, "").strip()
    if len(text) > MOST_WORD_CHARACTERS:
        raise invalid("string_lte", name, f"String length must be less than or equal to {MOST_WORD_CHARACTERS}")
    return text or None


def _number(query: dict[str, str], name: str, *, default: int, most: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= most:
        raise invalid("number_lte", name, f"{name} must be a whole number from 1 to {most}")
    return int(text)


ROUTES = (
    Route("/ops/v1/overview", {"GET": overview}, needs="admin"),
    Route("/ops/v1/predictions", {"GET": predictions}, needs="admin"),
    Route("/ops/v1/predictions/{id}", {"GET": prediction}, needs="admin"),
    Route("/ops/v1/predictions/{id}/cancel", {"POST": cancel}, needs="admin"),
    Route("/ops/v1/predictions/{id}/redeliver", {"POST": redeliver}, needs="admin"),
    Route("/ops/v1/events", {"GET": events}, needs="admin"),
    Route("/ops/v1/breakers", {"POST": force}, needs="admin"),
    Route("/ops/v1/ledger", {"GET": ledger}, needs="admin"),
    Route("/ops/v1/budgets", {"GET": budgets}, needs="admin"),
    Route("/ops/v1/audit", {"GET": audit}, needs="admin"),
)
