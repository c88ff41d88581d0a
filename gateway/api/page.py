"""Pages: opaque cursors, absolute links, and the moments that narrow a list. Reads no store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from gateway.api.exchange import Exchange
from gateway.api.refusal import invalid
from gateway.contract.errors import NotFound

T = TypeVar("T")

MOST_CURSOR_CHARACTERS = 1_024


def cursor_position(query: dict[str, str]) -> str | None:
    """The position a cursor stands for. Raises NotFound for one that we did not make, as Replicate's framework does."""
    cursor = query.get("cursor")
    if not cursor:
        return None
    try:
        cursor = cursor[:MOST_CURSOR_CHARACTERS]  # a longer one is none of ours, and fails below or later
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise NotFound("Invalid cursor") from None


def page_links(exchange: Exchange, next: str | None, previous: str | None) -> dict[str, str | None]:
    """Absolute: npm's client would take a relative one to /v1/v1. What narrowed the list stays in them."""
    return {"next": _link(exchange, next), "previous": _link(exchange, previous)}


def _link(exchange: Exchange, position: str | None) -> str | None:
    if position is None:
        return None
    cursor = base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")
    query = {**exchange.query(), "cursor": cursor}
    return f"{exchange.context.base}{exchange.path}?{urlencode(query)}"


def page_of(exchange: Exchange, items: Sequence[T], *, size: int, name: Callable[[T], str]) -> dict[str, Any]:
    """
    One page of a list that is whole in memory and in order; `name` is unique and tells where a page begins.

    A cursor whose item has gone leads to the first page.
    """
    position = cursor_position(exchange.query())
    begin = next((index for index, item in enumerate(items) if name(item) == position), 0)
    following = items[begin + size] if begin + size < len(items) else None
    preceding = items[max(0, begin - size)] if begin > 0 else None
    return {
        **page_links(
            exchange,
            name(following) if following is not None else None,
            name(preceding) if preceding is not None else None,
        ),
        "results": items[begin : begin + size],
    }


def parsed_moment(query: dict[str, str], name: str) -> datetime | None:
    """An ISO 8601 date-time; without an offset it is UTC. Raises InputInvalid."""
    text = query.get(name)
    if not text:
        return None
    try:
        # A "+" of an offset that was not escaped arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid("format", name, "Does not match format 'date-time'") from None
