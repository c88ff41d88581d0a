from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from gateway.contract.errors import AtCapacity, ModelFailed
from gateway.contract.prediction import Status
from gateway.telemetry.logs import LogObserver, setup
from gateway.telemetry.redaction import Redaction
from tests.unit.telemetry.made import lost, prediction, won

CANARY = 'canary/7"f3\\9+x é=='  # everything that an encoding changes
PLAIN = "canary-plain-4711"


class Wire:
    """What leaves the process."""

    def __init__(self, format: str, redaction: Redaction, level: str = "debug") -> None:
        self.stream = io.StringIO()
        setup(level=level, format=format, redaction=redaction, stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def _raise(text: str) -> None:
    raise ValueError(text)


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("gateway", "providers", "policies", "local_backend", "turnout"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.access").disabled = False


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


def test_one_line_for_a_failover_and_one_for_the_end() -> None:
    wire = Wire("json", Redaction())
    failed, saved = lost(1, "cheap"), won(2, "local", is_fallback=True)
    done = prediction(failed, saved)
    observer = LogObserver()
    observer.prediction_created(done)
    observer.attempt_begun(done, failed)
    observer.attempt_ended(done, failed)
    observer.failed_over(done, failed)
    observer.attempt_ended(done, saved)
    observer.prediction_ended(done)
    moved, ended = (json.loads(line) for line in wire.lines)
    assert moved["level"] == "warning"
    assert (moved["offer"], moved["reason"]) == ("acme/up@cheap", "model_failed")
    assert ended["level"] == "info"
    assert ended["message"] == (
        f"prediction {done.id} of acme/up succeeded by local in 4.000 s after 2 attempts, ≥ $0.0023"
    )
    assert (ended["provider"], ended["fallback"], ended["seconds"]) == ("local", True, 4.0)
    assert "private" not in wire.text, "inputs and outputs are nobody's business"


def test_a_failed_prediction_is_a_warning_with_its_reason() -> None:
    wire = Wire("json", Redaction())
    failure = ModelFailed("CUDA out of memory").failure
    LogObserver().prediction_ended(
        prediction(lost(1), status=Status.FAILED, error="CUDA out of memory", failure=failure)
    )
    line = json.loads(wire.text)
    assert (line["level"], line["reason"]) == ("warning", "model_failed")
    assert line["message"].endswith("after 1 attempt, cost unknown: CUDA out of memory")


def test_what_was_only_rejected_cost_nothing() -> None:
    wire = Wire("json", Redaction())
    LogObserver().prediction_ended(prediction(lost(1, why=AtCapacity()), status=Status.FAILED))
    assert json.loads(wire.text)["cost"] == "$0.00"


def test_what_ops_must_hear_of_is_said_and_routine_is_not() -> None:
    wire = Wire("text", Redaction())
    observer = LogObserver()
    observer.callback_received("replicate", "applied")
    observer.callback_received("", "unknown")
    observer.delivery_tried("completed", "delivered", 0.1)
    assert wire.text == ""
    observer.callback_received("replicate", "forged")
    observer.delivery_tried("completed", "exhausted", 0.1)
    observer.breaker_changed("acme/up@cheap", "closed", "open", "5 of 10 failed")
    observer.local_backend_changed("crashed")
    assert len(wire.lines) == 4
