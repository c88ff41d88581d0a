"""Observers hear what happened, and cannot make it not have happened."""

from __future__ import annotations

import pytest

from gateway.contract.observer import Observer, Observers


class Broken(Observer):
    def poll_made(self, provider: str, outcome: str) -> None:
        raise RuntimeError("a bug")


class Heard(Observer):
    def __init__(self) -> None:
        self.polls: list[tuple[str, str]] = []

    def poll_made(self, provider: str, outcome: str) -> None:
        self.polls.append((provider, outcome))


def test_an_observer_that_raises_costs_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    Observers(Broken(), heard).poll_made("cheap", "news")
    assert heard.polls == [("cheap", "news")]
    assert [record.message for record in caplog.records] == ["an observer failed"]


def test_one_alone_may_raise_too(caplog: pytest.LogCaptureFixture) -> None:
    Observers(Broken()).poll_made("cheap", "news")
    assert len(caplog.records) == 1
