"""
Repeated POSTs: a client that posts again because its connection broke gets the prediction it has, not a second one.

npm's client repeats a POST up to six times, within milliseconds, when a connection breaks; Python's 2.x line says with
`x-stainless-retry-count` that it repeats. Nobody else is second-guessed: equal POSTs over sound connections stay
separate predictions. Kept in memory only; after a crash it is told anew from the store (`recall`).

Not seen: a connection that breaks after the reply was handed to the kernel, from a client that does not say it repeats.
Where several processes share a store the repeat may reach another one, which knows nothing of the connection: one that
is said to be a repeat is looked up in the store (`find_elsewhere`), any other is a new prediction. An Idempotency-Key
holds everywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from gateway.contract.prediction import Prediction
from gateway.store.protocol import Store

UNANSWERED_SECONDS = 60.0
ANSWERED_SECONDS = 120.0
MOST_REMEMBERED = 10_000
MOST_LOOKED_AT = 100
_UNANSWERED = timedelta(seconds=UNANSWERED_SECONDS)
_DYING = timedelta(seconds=2)
_RESTARTING = timedelta(seconds=15)


class Posting:
    """One POST under way."""

    __slots__ = ("created", "fingerprint", "is_broken", "is_claimed", "tells_retries")

    def __init__(self, fingerprint: str, is_broken: Callable[[], bool], *, tells_retries: bool) -> None:
        self.fingerprint = fingerprint
        self.is_broken = is_broken
        self.tells_retries = tells_retries  # the client numbers its tries
        self.is_claimed = False  # a later POST took its prediction over
        self.created: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def settle(self, id: str | None) -> None:
        if not self.created.done():
            self.created.set_result(id)


class Repeats:
    """What was posted lately and may come again. Bounded; the oldest is forgotten first. `now` is monotonic seconds."""

    def __init__(self, *, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._under_way: dict[str, list[Posting]] = {}
        self._unanswered: OrderedDict[str, deque[tuple[str, float]]] = OrderedDict()
        self._answered: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def begin(self, posting: Posting) -> None:
        self._under_way.setdefault(posting.fingerprint, []).append(posting)

    async def earlier(self, posting: Posting, *, is_retry: bool, now: float) -> str | None:
        """The prediction that `posting` asks for again, or None. Each unanswered one is handed out once."""
        for other in self._under_way.get(posting.fingerprint, ()):
            if other is posting or other.is_claimed:
                continue
            if other.is_broken() or (is_retry and other.tells_retries):
                other.is_claimed = True
                if (id := await asyncio.shield(other.created)) is not None:
                    return id
                break
        waiting = self._unanswered.get(posting.fingerprint)
        while waiting:
            id, until = waiting.popleft()
            if not waiting:
                self._unanswered.pop(posting.fingerprint, None)
            if until >= now:
                return id
        if is_retry and (told := self._answered.get(posting.fingerprint)) is not None and told[1] >= now:
            return told[0]
        return None

    def end(self, posting: Posting, *, is_broken: bool, now: float) -> None:
        """The reply of `posting` is about to be written, if its connection still stands."""
        posting.settle(None)
        others = self._under_way.get(posting.fingerprint, [])
        if posting in others:
            others.remove(posting)
        if not others:
            self._under_way.pop(posting.fingerprint, None)
        id = posting.created.result()
        if id is None or posting.is_claimed:
            return
        if is_broken:
            self._add_unanswered(posting.fingerprint, id, now)
        elif posting.tells_retries:
            self._answered[posting.fingerprint] = (id, now + ANSWERED_SECONDS)
            self._answered.move_to_end(posting.fingerprint)
            _trim(self._answered, self._most)

    def seed(self, predictions: Iterable[Prediction], *, now: float) -> None:
        """Count these as unanswered: the process that made them may have died before it replied. Oldest first."""
        for prediction in predictions:
            if prediction.request.fingerprint:
                self._add_unanswered(prediction.request.fingerprint, prediction.id, now)

    def _add_unanswered(self, fingerprint: str, id: str, now: float) -> None:
        self._unanswered.setdefault(fingerprint, deque()).append((id, now + UNANSWERED_SECONDS))
        self._unanswered.move_to_end(fingerprint)
        _trim(self._unanswered, self._most)


async def recall(repeats: Repeats, store: Store, *, owners: Iterable[str], at: datetime, now: float) -> int:
    """
    After a start: which predictions of the minute before `at` count as unanswered. How many that are.

    Those still open, and those that ended as the process did: not more than two seconds before the last thing the
    store knows of, and not more than fifteen before `at`. A reply is lost at most a moment after its prediction was
    stored or, for a caller that waits, ended; what had ended before was answered, and a POST like it is a new one.

    `at` is the wall clock, `now` the monotonic one, both at the start. Raises StoreUnavailable.
    """
    found = [one for owner in owners for one in await _created_since(store, owner, at - _UNANSWERED)]
    last = max((one.completed_at or one.created_at for one in found), default=at)
    since = max(last - _DYING, at - _RESTARTING)
    lost = [one for one in found if not one.is_terminal or (one.completed_at or one.created_at) >= since]
    repeats.seed(lost, now=now)
    return len(lost)


async def find_elsewhere(store: Store, fingerprint: str, *, owner: str, at: datetime) -> str | None:
    """
    The newest prediction of the last two minutes that the same POST made in any process: for a POST that says it is
    a repeat, and is not known here. One page is looked at, of the caller's own. Raises StoreUnavailable.
    """
    since = at - timedelta(seconds=ANSWERED_SECONDS)
    page = await store.list_predictions(owner=owner, limit=MOST_LOOKED_AT, created_after=since)
    return next((one.id for one in page.predictions if one.request.fingerprint == fingerprint), None)


async def _created_since(store: Store, owner: str, since: datetime) -> list[Prediction]:
    """Oldest first; of very many the newest."""
    found: list[Prediction] = []
    position: str | None = None
    while len(found) < MOST_REMEMBERED:
        page = await store.list_predictions(owner=owner, position=position, created_after=since)
        found += page.predictions
        position = page.next
        if position is None:
            break
    return found[::-1]


def fingerprint_of(owner: str, path: str, body: bytes) -> str:
    """64 hex; equal for equal POSTs of one caller to one path."""
    digest = hashlib.sha256(f"{owner}\x00{path}\x00".encode())
    digest.update(body)
    return digest.hexdigest()


def _trim(remembered: OrderedDict[str, Any], most: int) -> None:
    while len(remembered) > most:
        remembered.popitem(last=False)
