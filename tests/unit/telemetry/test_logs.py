from __future__ import annotations

import base64
import json
import logging
from urllib.parse import quote

import pytest

from gateway.telemetry.redaction import Redaction
from tests.unit.telemetry.made import Wire

CANARY = 'canary/7"f3\\9+x é=='  # everything that an encoding changes
PLAIN = "canary-plain-4711"


def _raise(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("secret", [CANARY, PLAIN])
def test_a_loaded_secret_leaves_by_no_door(format: str, secret: str) -> None:
    wire = Wire(format, Redaction([secret]))
    log = logging.getLogger("gateway.test")
    log.info("token is %s", secret)
    log.info("https://x.test/?q=%s", quote(secret, safe=""))
    log.info("body %s", json.dumps({"key": secret}))
    log.info("basic %s", base64.b64encode(f"{secret}:".encode()).decode())
    log.info("repr %r", {"key": secret})
    log.info("fields", extra={"fields": {"header": secret, "deep": [{"x": secret}], secret: 1}})
    logging.getLogger("somebody.else").error("in a library: %s", secret)
    try:
        _raise(f"upstream said {secret}")
    except ValueError:
        log.exception("it broke")
    said = [wire.text]
    if format == "json":
        said += [repr(value) + str(value) for line in wire.lines for value in json.loads(line).values()]
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()):
        assert not [text for text in said if form in text]
    assert wire.text.count("***") >= 7


def test_a_secret_made_after_the_start_is_redacted_too() -> None:
    redaction = Redaction()
    wire = Wire("text", redaction)
    redaction.add("made-later-0815")
    logging.getLogger("gateway").info("key made-later-0815")
    assert "made-later" not in wire.text


def test_of_two_secrets_that_begin_alike_nothing_is_left_over() -> None:
    redaction = Redaction(["abcdef", "abcdefghij"])
    assert redaction.text("x abcdefghij y abcdef z") == "x *** y *** z"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("POST /cb/Zm9vYmFyYmF6cXV4 200", "POST /cb/*** 200"),
        ("GET https://h.test/stream/Zm9vYmFyYmF6cXV4?x=1", "GET https://h.test/stream/***?x=1"),
        ("/artifacts/Zm9vYmFyYmF6cXV4/out.png", "/artifacts/***/out.png"),
        ("/v1/files/stream-Zm9vYmFyYmF6cXV4", "/v1/files/stream-***"),
        ("/v1/files/f1/download?expiry=1&signature=abc%2Fdef&x=1", "/v1/files/f1/download?expiry=1&signature=***&x=1"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("r8_abcdefghijklmnopqrstuvwxyz", "***"),
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "***"),
        ("postgres and https://me:hunter2@db.test/x", "postgres and https://***@db.test/x"),
        ("model acme/stream/it is fine, tokens: 12", "model acme/stream/it is fine, tokens: 12"),
        ("a bearer of news", "a bearer of news"),
    ],
)
def test_what_looks_like_a_token_is_masked_and_plain_words_are_not(said: str, shown: str) -> None:
    assert Redaction().text(said) == shown


def test_our_own_keys_are_masked_by_their_shape() -> None:
    from gateway.contract.key import new_key

    assert Redaction().text(f"key {new_key('app').text}!") == "key ***!"


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_hostile_message_forges_no_line(format: str) -> None:
    wire = Wire(format, Redaction())
    logging.getLogger("gateway").warning("bad name %s", "x\n2026-01-01 CRITICAL all is lost\x1b[2J\u2028\r")
    assert len(wire.lines) == 1
    assert "\x1b" not in wire.text
    assert "\u2028" not in wire.text


def test_a_trace_carries_no_control_characters() -> None:
    wire = Wire("text", Redaction())
    try:
        _raise("\x1b[31mred\r")
    except ValueError:
        logging.getLogger("gateway").exception("broke")
    assert "ValueError" in wire.text
    assert "\x1b" not in wire.text
    assert "\r" not in wire.text


def test_libraries_are_heard_from_warning_on_and_access_lines_never() -> None:
    wire = Wire("text", Redaction(), level="info")
    logging.getLogger("httpx").info("HTTP Request: GET https://upstream")
    logging.getLogger("uvicorn.access").warning("GET / 200")
    logging.getLogger("gateway.engine").debug("small talk")
    assert wire.text == ""
    logging.getLogger("httpx").warning("trouble")
    logging.getLogger("gateway.engine").info("news")
    assert len(wire.lines) == 2


def test_setting_up_twice_says_everything_once() -> None:
    first = Wire("text", Redaction())
    second = Wire("text", Redaction())
    logging.getLogger("gateway").info("once")
    assert first.text == ""
    assert len(second.lines) == 1


@pytest.mark.parametrize("worker", [0, 3])
def test_one_of_several_says_which_it_is(worker: int) -> None:
    text, said = Wire("text", Redaction(), worker=worker), logging.getLogger("gateway.engine")
    said.info("news")
    assert text.lines[0].endswith(f"Z INFO    worker {worker} gateway.engine: news")
    json_lines = Wire("json", Redaction(), worker=worker)
    said.info("news", extra={"fields": {"worker": "somebody else"}})
    assert json.loads(json_lines.text)["worker"] == worker


def test_one_alone_says_nothing_of_workers() -> None:
    text, said = Wire("text", Redaction()), logging.getLogger("gateway.engine")
    said.info("news")
    assert text.lines[0].endswith("Z INFO    gateway.engine: news")
    json_lines = Wire("json", Redaction())
    said.info("news")
    assert "worker" not in json.loads(json_lines.text)
