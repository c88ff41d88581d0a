"""Since when a receiver has only failed: kept in the store, so that a restart forgets nothing. Judges nobody."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime, timedelta

import msgspec

from gateway.contract.errors import StoreError
from gateway.store.protocol import Store

STALE_AFTER = timedelta(hours=36)  # longer than any pause of the schedule: in between something may have arrived


class _Failing(msgspec.Struct, kw_only=True, frozen=True):
    since: datetime
    last: datetime


class Records:
    """One setting of the store for each receiver of each owner that ever failed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def failed(self, owner: str, host: str, now: datetime) -> datetime:
        """Note a failure: since when there were only failures. Raises StoreError."""
        name = _name(owner, host)
        fresh = _Failing(since=now, last=now)
        known = _read(await self._store.setting(name, _text(fresh)))
        if known is None or now - known.last > STALE_AFTER:
            known = fresh
        await self._store.swap_setting(name, _text(msgspec.structs.replace(known, last=now)))
        return known.since

    async def arrived(self, owner: str, host: str) -> None:
        """Something has arrived. Lost if the store is out: the record becomes stale by itself."""
        with contextlib.suppress(StoreError):
            await self._store.swap_setting(_name(owner, host), "")


def _name(owner: str, host: str) -> str:
    """Hosts are callers' words, and may be long."""
    return "receiver." + hashlib.sha256(f"{owner}\x00{host}".encode()).hexdigest()[:32]


def _text(failing: _Failing) -> str:
    return msgspec.json.encode(failing).decode()


def _read(text: str) -> _Failing | None:
    try:
        return msgspec.json.decode(text, type=_Failing)
    except msgspec.DecodeError:
        return None
