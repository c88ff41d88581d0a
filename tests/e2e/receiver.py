"""A caller's webhook receiver on a real socket: keeps what arrives, as it arrived. Verifies nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.server import Answering, LoopbackServer


@dataclass(frozen=True)
class Arrived:
    """One delivery; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def prediction(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Receiver(LoopbackServer):
    """Answers 200 to every POST."""

    def __init__(self) -> None:
        super().__init__(_Receiving)
        self._news = threading.Condition()
        self._arrived: list[Arrived] = []

    def add(self, arrived: Arrived) -> None:
        with self._news:
            self._arrived.append(arrived)
            self._news.notify_all()

    def at(self, path: str) -> list[Arrived]:
        with self._news:
            return [one for one in self._arrived if one.path == path]

    def until(self, path: str, holds: Callable[[list[Arrived]], bool], *, seconds: float = 10.0) -> list[Arrived]:
        """What has arrived at `path`, as soon as that satisfies `holds`."""
        until = time.monotonic() + seconds
        with self._news:
            while True:
                arrived = [one for one in self._arrived if one.path == path]
                if holds(arrived):
                    return arrived
                if not self._news.wait(until - time.monotonic()):
                    raise AssertionError(f"after {seconds} s only {[one.prediction['status'] for one in arrived]}")


class _Receiving(Answering):
    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        headers = {name.lower(): value for name, value in self.headers.items()}
        arrived = Arrived(self.path, headers, self.body().decode())
        self.server.owner.add(arrived)  # type: ignore[attr-defined]
        self.answer(200)
