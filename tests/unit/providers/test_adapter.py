from __future__ import annotations

import msgspec
import pytest

from gateway.contract.errors import (
    ConfigurationError,
    JobLost,
    OutcomeUnknown,
    PollFailed,
    Refused,
)
from gateway.contract.provider import HttpResponse, ServerSentEvent
from providers._adapter import Options, UnexpectedStream, check_options, poll_refusal, read_options, refusal
from providers._reading import MAX_DEPTH, Malformed, quote, read_json, read_object, words_of


def response(status: int, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status=status, headers=headers, body=body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"<html>",
        b"\xff\xfe{}",
        b'"\xff"',
        b'"\\ud800"',
        b"1e999",
        b"9" * 5000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 300 + b"1" + b"}" * 300,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_json_or_too_deep_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_json(body)


def test_what_passes_can_always_be_written_again_inside_our_own_layers() -> None:
    deepest = read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    wide = read_json(b"[" + b"[1]," * 500 + b"[2]]")  # many brackets, and flat
    assert msgspec.json.encode({"attempts": [{"output": deepest}]})
    assert len(wide) == 501


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"'])
def test_only_an_object_is_an_object(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_object(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"detail": "no"}', "no"),
        (b'{"title": "Sorry", "detail": ""}', "Sorry"),
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "no"}', "no"),
        (
            b'{"detail": [{"loc": ["body", "input", "steps"], "msg": "not a number"}, "and more"]}',
            "input.steps: not a number; and more",
        ),
        (b'{"detail": [{"loc": "body", "msg": "m"}, {"loc": [], "msg": "n"}, {"msg": 3}, 4]}', "m; n"),
        (b"plain words", "plain words"),
        (b"<!doctype html><h1>Bad gateway</h1>", ""),
        (b'{"detail": {"detail": {"message": 5}}}', ""),
        (b"\xff", "�"),
    ],
)
def test_words_of_a_refusal(body: bytes, words: str) -> None:
    assert words_of(response(400, body)) == words


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer r8_0123456789abcdefghij",
        "bearer x",
        "sk-proj-0123456789abcdef",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "hf_abcdefghijklmnop",
    ],
)
def test_quoted_words_hold_no_secret(secret: str) -> None:
    assert quote(f"refused: {secret} is not valid") == "refused: *** is not valid"


def test_quoted_words_hold_no_callback_token_and_no_control_characters_and_end() -> None:
    assert (
        quote("POST https://gw.example/cb/abcDEF123_-xyz?x=1\x00\x1b[31m") == "POST https://gw.example/cb/***?x=1 [31m"
    )
    assert len(quote("a" * 10_000)) == 500
    assert quote("two\nlines\tand a tab") == "two\nlines\tand a tab"


STATUSES = [
    (301, "refused"),
    (302, "outcome_unknown"),
    (303, "outcome_unknown"),
    (307, "refused"),
    (400, "input_refused"),
    (401, "credential_refused"),
    (402, "wallet_empty"),
    (403, "credential_refused"),
    (404, "model_missing"),
    (405, "refused"),
    (408, "outcome_unknown"),
    (409, "outcome_unknown"),
    (410, "model_missing"),
    (413, "input_unfit"),
    (418, "refused"),
    (422, "input_refused"),
    (425, "outcome_unknown"),
    (429, "rate_limited"),
    (500, "outcome_unknown"),
    (501, "refused"),
    (502, "outcome_unknown"),
    (503, "outcome_unknown"),
    (504, "outcome_unknown"),
    (529, "outcome_unknown"),
    (599, "outcome_unknown"),
]


@pytest.mark.parametrize(("status", "code"), STATUSES)
def test_what_a_status_means_for_a_submit(status: int, code: str) -> None:
    failure = refusal(response(status)).failure
    assert failure.code == code
    assert failure.status == status
    assert failure.message.endswith(f"(HTTP {status})")
    assert failure.maybe_running is (code == "outcome_unknown")


def test_a_503_is_capacity_only_where_it_is_documented_to_have_run_nothing() -> None:
    assert refusal(response(503), runs_nothing_on_503=True).failure.code == "at_capacity"
    assert refusal(response(502), runs_nothing_on_503=True).failure.code == "outcome_unknown"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 408, 429, 500, 502, 503])
def test_a_poll_that_did_not_get_through_leaves_the_job_alone(status: int) -> None:
    assert isinstance(poll_refusal(response(status)), PollFailed)


@pytest.mark.parametrize("status", [404, 410])
def test_a_job_the_provider_does_not_know_is_lost(status: int) -> None:
    assert isinstance(poll_refusal(response(status)), JobLost)


def test_an_unknown_option_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'result_hosts'"):
        check_options({"result_host": []}, Options, adapter="x")
    with pytest.raises(ConfigurationError, match="max_inline_bytes"):
        check_options({"max_inline_bytes": "much"}, Options, adapter="x")


def test_options_of_a_call_that_cannot_be_read_refuse_it_before_it_is_sent() -> None:
    with pytest.raises(Refused) as refused:
        read_options({}, {"min_poll_seconds": "x"}, Options)
    assert not refused.value.failure.maybe_running
    assert (
        read_options({"max_inline_bytes": 1}, {"max_inline_bytes": 2, "foreign": True}, Options).max_inline_bytes == 2
    )


def test_a_stream_nobody_asked_for_may_be_running() -> None:
    reader = UnexpectedStream()
    with pytest.raises(OutcomeUnknown):
        reader.read(ServerSentEvent(event="output", data="x"))
    with pytest.raises(OutcomeUnknown):
        reader.end()
