"""What `turnout deliveries` makes of a person's words and of a gateway's refusals. The whole of it runs in e2e."""

from __future__ import annotations

import argparse

import httpx
import pytest

from gateway.commands import deliveries
from gateway.commands.deliveries import Gateway, add_arguments


def read(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("hooks.example", "hooks.example"),
        ("Hooks.Example:8443", "hooks.example"),
        ("https://hooks.example/path?x=1", "hooks.example"),
        ("[::1]:80", "::1"),
    ],
)
def test_a_receiver_may_be_named_as_it_stands_in_a_webhook(given: str, host: str) -> None:
    assert read("list", "--host", given).host == host
    assert read("retry", "--host", given).host == host


@pytest.mark.parametrize("words", [("list", "--host", ":80"), ("list", "--prediction", "x", "--host", "y")])
def test_what_can_mean_nothing_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        read(*words)
    assert refused.value.code == 2
    assert "--host" in capsys.readouterr().err


@pytest.mark.parametrize("scope", ["admin", "predictions"])
def test_a_key_is_told_the_scope_that_it_lacks_and_no_other(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx.Response(403, json={"detail": f'This key has no scope "{scope}"'})
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: answer)
    with Gateway("http://127.0.0.1:1", "k") as gateway, pytest.raises(deliveries.GatewayRefused) as said:
        gateway.get("/ops/v1/deliveries")
    assert str(said.value).count("scope") == 1
    assert f'"{scope}"' in str(said.value)
