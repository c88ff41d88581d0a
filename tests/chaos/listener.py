"""Callers' webhook receiver for many thousands: keeps of each path what arrived there, and under how many ids."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.server import Answering, LoopbackServer


@dataclass
class Told:
    """What came to one path."""

    count: int = 0
    ids: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    first: dict[str, Any] = field(default_factory=dict)  # the body that came first
    at: float = 0.0  # when it came, by `time.monotonic`


class Listener(LoopbackServer):
    """Answers 200 to every POST of an end; other events it takes and forgets."""

    def __init__(self) -> None:
        super().__init__(_Listening)
        self._news = threading.Condition()
        self._told: dict[str, Told] = {}

    def hear(self, path: str, id: str, raw: bytes) -> None:
        body = json.loads(raw)
        if body["status"] in ("starting", "processing"):
            return
        with self._news:
            told = self._told.setdefault(path, Told(first=body, at=time.monotonic()))
            told.count += 1
            told.ids.add(id)
            told.digests.add(hashlib.sha256(raw).hexdigest())
            self._news.notify_all()

    def told(self, path: str) -> Told | None:
        with self._news:
            return self._told.get(path)

    @property
    def count(self) -> int:
        """Paths at which an end has arrived."""
        with self._news:
            return len(self._told)

    def wait(self, count: int, *, seconds: float) -> bool:
        """Until ends have arrived at so many paths; False when the time was not enough."""
        until = time.monotonic() + seconds
        with self._news:
            return self._news.wait_for(lambda: len(self._told) >= count, timeout=until - time.monotonic())


class _Listening(Answering):
    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        raw = self.body()
        self.server.owner.hear(self.path, self.headers.get("webhook-id", ""), raw)  # type: ignore[attr-defined]
        self.answer(200)
