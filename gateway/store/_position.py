"""Positions in a list that is read newest first: opaque to callers, the same for every store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from gateway.contract.errors import NotFound
from gateway.store._encoding import to_micros

T = TypeVar("T")


class Position(msgspec.Struct, array_like=True, frozen=True):
    """Beside the entry (`at` in microseconds, `id`): what follows it, or, `is_back`, what precedes it."""

    at: int
    id: str
    is_back: bool = False

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises NotFound for a text that `str` never gave, as Replicate answers an invalid cursor."""
        try:
            position = msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=cls)
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise NotFound("Invalid cursor") from None
        if not -(2**63) <= position.at < 2**63:
            raise NotFound("Invalid cursor")
        return position

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


# (beside which entry or None for the newest, most entries) → entries, nearest first.
Fetch = Callable[[Position | None, int], Sequence[T]]
Key = Callable[[T], tuple[datetime, str]]
# Entries newest first, position of the next page, position of the previous page.
Pages = tuple[list[T], str | None, str | None]


def read_page(fetch: Fetch[T], key: Key[T], position: str | None, limit: int) -> Pages[T]:
    """Where a look needs no waiting."""
    steps = page_steps(key, position, limit)
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(fetch(*wanted))
    except StopIteration as end:
        pages: Pages[T] = end.value
        return pages


def page_steps(
    key: Key[T], position: str | None, limit: int
) -> Generator[tuple[Position | None, int], Sequence[T], Pages[T]]:
    """Yields what to fetch, is sent what was found, and ends with the page."""
    at = Position.parse(position) if position is not None else None
    found = list((yield at, limit + 1))
    has_more = len(found) > limit
    entries = found[:limit]
    is_back = at is not None and at.is_back
    if is_back:
        entries.reverse()
    if not entries:
        return [], None, None
    older = _beside(key(entries[-1]), is_back=False)
    newer = _beside(key(entries[0]), is_back=True)
    has_older = bool((yield older, 1)) if is_back else has_more
    has_newer = has_more if is_back else at is not None and bool((yield newer, 1))
    return entries, str(older) if has_older else None, str(newer) if has_newer else None


def _beside(key: tuple[datetime, str], *, is_back: bool) -> Position:
    at, id = key
    return Position(at=to_micros(at), id=id, is_back=is_back)
