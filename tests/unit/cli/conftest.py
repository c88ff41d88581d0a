"""What whoever runs the tests has exported is none of their business."""

from __future__ import annotations

import functools

import pytest

from gateway.plugins import installed_adapters, load_adapter


@functools.cache
def variables() -> tuple[str, ...]:
    ways = [way for installed in installed_adapters() for way in load_adapter(installed.name).auth]
    return tuple({variable for way in ways for variable in way.parts.values() if variable})


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in variables():
        monkeypatch.delenv(variable, raising=False)
