"""What the store keeps of a receiver: since when it has only failed, when somebody asked for a try. Judges nobody."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from gateway.contract.errors import StoreError
from gateway.store.protocol import Store

ASKED_FOR = timedelta(days=1)  # an older ask says nothing of the failures of today
STALE_AFTER = timedelta(hours=36)  # longer than any pause of the schedule: in between something may have arrived

T = TypeVar("T")


class _Failing(msgspec.Struct, kw_only=True, frozen=True):
    since: datetime
    last: datetime


class _Ask(msgspec.Struct, kw_only=True, frozen=True):
    at: datetime
    by: str


class Records:
    """Two settings of the store for each receiver of each owner that ever failed; what any process writes all read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def failed(self, owner: str, host: str, now: datetime) -> datetime:
        """Note a failure: since when there were only failures. Raises StoreError."""
        name = _name(owner, host)
        fresh = _Failing(since=now, last=now)
        known = _read(await self._store.setting(name, _text(fresh)), _Failing)
        if known is None or now - known.last > STALE_AFTER:
            known = fresh
        await self._store.swap_setting(name, _text(msgspec.structs.replace(known, last=now)))
        return known.since

    async def arrived(self, owner: str, host: str) -> None:
        """Something has arrived. Lost if the store is out: the record becomes stale by itself."""
        with contextlib.suppress(StoreError):
            await self._store.swap_setting(_name(owner, host), "")

    async def ask(self, owner: str, host: str, now: datetime, *, by: str) -> None:
        """Keep that somebody asked for a try. `by` tells this one from all others. Raises StoreError."""
        await self._store.swap_setting(_name(owner, host), "")
        await self._store.swap_setting(_name(owner, host, "asked."), msgspec.json.encode(_Ask(at=now, by=by)).decode())

    async def asked(self, owner: str, host: str, now: datetime) -> str:
        """The last that was kept, as it stands there; empty if there is none, or it is old. Raises StoreError."""
        text = await self._store.setting(_name(owner, host, "asked."), "")
        asked = _read(text, _Ask)
        return "" if asked is None or now - asked.at >= ASKED_FOR else text


def _name(owner: str, host: str, what: str = "") -> str:
    """Hosts are callers' words, and may be long."""
    return f"receiver.{what}" + hashlib.sha256(f"{owner}\x00{host}".encode()).hexdigest()[:32]


def _text(failing: _Failing) -> str:
    return msgspec.json.encode(failing).decode()


def _read(text: str, type: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text, type=type)
    except msgspec.DecodeError:
        return None
