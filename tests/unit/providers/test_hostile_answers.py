"""Whatever a server answers, an adapter says a Fact or raises a ProviderFailure; nothing else may come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.errors import CallbackForged, Failure, PollFailed, ProviderFailure, Verdict
from gateway.contract.fact import Fact
from gateway.contract.provider import Adapter, Call, Callback, Cancellation, HttpResponse, ServerSentEvent
from providers.cog import Cog
from providers.openai_compatible import OpenAICompatible
from providers.replicate import Replicate

JOB = "q9e7w5r3t1y8v6p4a2s0d9f7gh"
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ROUTES = ("chat", "completions", "images", "embeddings", "speech")
INPUT = {"prompt": "x", "input": ["x"]}

# Words that the adapters know, so that the fuzz gets past their first line.
KEYS = [
    "id", "status", "output", "logs", "error", "metrics", "detail", "message", "title", "code", "type",
    "data_removed", "started_at", "completed_at", "deadline", "urls", "choices", "delta", "content", "text",
    "refusal", "tool_calls", "finish_reason", "index", "usage", "prompt_tokens", "data", "embedding", "b64_json",
    "url", "chunk", "value", "name", "mode", "skipped", "loc", "msg", "retry_after", "object", "statusCode",
    "innererror",
]  # fmt: skip
WORDS = [
    "starting", "processing", "succeeded", "failed", "canceled", "aborted", "stop", "content_filter", "error", "incr",
    "append", "replace", "start", "output", "log", "metric", "completed", "insufficient_quota", "rate_limit_exceeded",
    "model_not_found", "unavailable_error", "AAAA", "2026-03-02T09:00:00Z", "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59", "E005", "400", "429", "503",
]  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*WORDS, JOB])
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=6)
    ),
    max_leaves=25,
)
predictions = st.fixed_dictionaries(
    {"id": st.just(JOB) | values, "status": st.sampled_from(WORDS) | values},
    optional={key: values for key in KEYS if key not in ("id", "status")},
)
bodies = (
    st.binary(max_size=200)
    | values.map(lambda value: json.dumps(value).encode())
    | predictions.map(lambda value: json.dumps(value).encode())
    | st.integers(min_value=1, max_value=3000).map(lambda depth: b'{"status":' + b"[" * depth + b"]" * depth + b"}")
)
headers = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "retry-after-ms", "date", "x-should-retry"]),
    st.text(max_size=30) | st.sampled_from(["application/json", "audio/mpeg", "text/html", "true", "false", "12"]),
)
responses = st.builds(
    HttpResponse,
    status=st.sampled_from([200, 201, 202, 204, 400, 401, 404, 406, 409, 422, 429, 500, 503])
    | st.integers(min_value=100, max_value=599),
    headers=headers,
    body=bodies,
)
events = st.lists(
    st.builds(
        ServerSentEvent,
        event=st.sampled_from([*WORDS, "message"]) | st.text(max_size=8),
        data=st.text(max_size=30) | st.just("[DONE]") | (values | predictions).map(json.dumps),
    ),
    max_size=8,
)


def call(**options: Any) -> Call:
    return Call(
        prediction="p",
        attempt=1,
        name="owner/name",
        version=None,
        input=INPUT,
        idempotency_id="3zy5cb0aqn4e8kxw7mt1vdrs2g",
        callback_url=None,
        deadline_seconds=60.0,
        stream=True,
        options=options,
    )


CASES: list[tuple[Adapter, Call]] = [
    (Replicate(), call()),
    (Replicate(options={"wait": True, "idempotent": True}), call()),
    (Cog(), call()),
    (Cog(options={"callbacks": True, "stream": True}), call()),
    *((OpenAICompatible(), call(route=route)) for route in ROUTES),
]


def over(*cases: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("adapter", "sent"),
        [pytest.param(*CASES[case], id=f"{CASES[case][0].name}-{case}") for case in cases],
    )


def said(read: Callable[[], Fact | None]) -> Fact | ProviderFailure | None:
    """What came out, after checking that it can be stored and shown; anything but a fact or a failure breaks here."""
    try:
        outcome = read()
    except ProviderFailure as raised:
        shown = raised.failure
        assert msgspec.json.decode(msgspec.json.encode(shown), type=Failure) == shown
        assert shown.message
        return raised
    assert outcome is None or isinstance(outcome, Fact)
    # What is stored must come back as it was: a NaN or a lone surrogate would not.
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Fact | None) == outcome
    if outcome is not None and outcome.phase.is_end and outcome.phase != "succeeded":
        assert outcome.failure is not None or outcome.phase == "canceled"
    return outcome


@over(*range(len(CASES)))
@given(response=responses)
@settings(max_examples=40, deadline=None)
def test_any_answer_to_a_submit_is_a_fact_or_a_failure(adapter: Adapter, sent: Call, response: HttpResponse) -> None:
    outcome = said(lambda: adapter.read_submit(sent, response))
    assert outcome is not None
    if isinstance(outcome, ProviderFailure):
        # A submit is never simply sent again, and a 2xx is never read as "nothing ran" unless it says so itself.
        assert outcome.verdict is not Verdict.RETRY
        if 200 <= response.status < 300 and not isinstance(adapter, OpenAICompatible):
            assert outcome.failure.maybe_running


@over(0, 2, 4)
@given(response=responses)
@settings(max_examples=40, deadline=None)
def test_any_answer_to_a_poll_is_a_fact_or_a_failure(adapter: Adapter, sent: Call, response: HttpResponse) -> None:
    outcome = said(lambda: adapter.read_poll({"id": JOB}, response))
    assert outcome is not None
    if isinstance(outcome, ProviderFailure):
        assert outcome.failure.code in ("poll_failed", "job_lost")
    else:
        assert outcome.handle == {"id": JOB}  # never the fate of another job


@over(0, 3, 4)
@given(stream=events)
@settings(max_examples=40, deadline=None)
def test_any_stream_is_facts_and_an_end_or_a_failure(
    adapter: Adapter, sent: Call, stream: list[ServerSentEvent]
) -> None:
    reader = adapter.read_events(sent)
    ends = 0
    for event in stream:
        outcome = said(lambda event=event: reader.read(event))  # type: ignore[misc]
        if isinstance(outcome, ProviderFailure):
            return
        ends += outcome is not None and outcome.phase.is_end
    assert ends <= 1
    end = said(reader.end)
    assert end is not None
    assert isinstance(end, ProviderFailure) or end.phase.is_end


@over(0, 2, 4)
@given(response=responses)
@settings(max_examples=40, deadline=None)
def test_any_answer_to_a_cancel_is_an_answer_or_did_not_get_through(
    adapter: Adapter, sent: Call, response: HttpResponse
) -> None:
    try:
        outcome: object = adapter.read_cancel({"id": JOB}, response)
    except ProviderFailure as raised:
        outcome = type(raised)
    assert isinstance(outcome, Cancellation) or outcome is PollFailed


@over(0, 2, 3, 4)
@given(
    shown=st.dictionaries(
        st.sampled_from(["authorization", "webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=40)
    ),
    body=bodies,
)
@settings(max_examples=40, deadline=None)
def test_nobody_without_the_secret_says_anything(
    adapter: Adapter, sent: Call, shown: dict[str, str], body: bytes
) -> None:
    for secrets in ((), ("whsec_c2VzYW1l", "sesame-0123456789")):
        try:
            callback = adapter.read_callback(shown, body, secrets=secrets, now=NOW)
        except CallbackForged:
            assert secrets
        else:
            assert isinstance(callback, Callback)
            assert callback.fact is None


@given(response=responses, handle=st.dictionaries(st.sampled_from(["id", "url"]), st.text(max_size=30)))
@settings(max_examples=40, deadline=None)
def test_no_handle_leads_off_the_path_of_predictions(response: HttpResponse, handle: dict[str, str]) -> None:
    for adapter in (Replicate(), Cog()):
        for request in (adapter.poll(handle), adapter.cancel(handle)):
            if request is not None:
                path = request.url.removeprefix("/predictions/").removesuffix("/cancel")
                assert path.replace("-", "").replace("_", "").isalnum()
                assert path.isascii()
