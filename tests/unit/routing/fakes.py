"""A clock that is turned by hand, and an observer that remembers what breakers announced."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.contract.observer import Observer

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Heard(Observer):
    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str, str]] = []

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        self.changes.append((offer, before, after, why))

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [(before, after) for _, before, after, _ in self.changes]
