"""What adapters send: the parts that recordings do not pin down."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.errors import ConfigurationError, ModelMissing, Refused
from gateway.contract.provider import Call, Callbacks, Cancel, HttpResponse
from gateway.plugins import load_adapter
from providers.cog import Cog
from providers.openai_compatible import OpenAICompatible
from providers.replicate import Replicate

ID = "3zy5cb0aqn4e8kxw7mt1vdrs2g"


def call(**fields: Any) -> Call:
    return Call(
        **{
            "prediction": "p",
            "attempt": 1,
            "name": "owner/name",
            "version": None,
            "input": {"prompt": "x"},
            "idempotency_id": ID,
            "callback_url": None,
            "deadline_seconds": 60.0,
        }
        | fields
    )


# -- replicate -------------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_cancel_after_is_always_set_and_within_the_providers_bounds(seconds: float) -> None:
    text = Replicate().submit(call(deadline_seconds=seconds)).headers["cancel-after"]
    assert 5 <= int(text) <= 86_400
    if 5 <= seconds <= 86_400:
        assert int(text) == math.ceil(seconds)  # never less time than there is


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_wait_never_outlasts_the_protocol(seconds: float) -> None:
    request = Replicate(options={"wait": True}).submit(call(deadline_seconds=seconds))
    assert 1 <= int(request.headers["prefer"].removeprefix("wait=")) <= 60
    assert request.holds_until_end


@pytest.mark.parametrize(
    ("fields", "url", "version"),
    [
        ({"version": "v" * 64}, "/predictions", "v" * 64),
        ({"version": "owner/name:" + "v" * 64}, "/predictions", "v" * 64),
        ({"name": "upscale-x2", "version": "v1"}, "/predictions", "v1"),
        ({"name": "owner/name:abc"}, "/predictions", "abc"),
        ({"name": "owner/name:abc", "version": "def"}, "/predictions", "def"),
        ({}, "/models/owner/name/predictions", None),
        ({"name": "ow ner/name", "version": "v"}, "/predictions", "v"),
        ({"name": "owner/na%2Fme?x#y"}, "/models/owner/na%252Fme%3Fx%23y/predictions", None),
        ({"options": {"deployment": True}}, "/deployments/owner/name/predictions", None),
        ({"options": {"deployment": "a/b"}, "version": "v"}, "/deployments/a/b/predictions", None),
    ],
)
def test_replicate_is_told_what_to_run_in_the_one_way_that_fits(
    fields: dict[str, Any], url: str, version: str | None
) -> None:
    request = Replicate().submit(call(**fields))
    assert request.url == url
    assert request.json.get("version") == version
    assert request.json["input"] == {"prompt": "x"}


@pytest.mark.parametrize("name", ["name", "a/b/c", "", "/", "owner/", "ow ner/name"])
def test_a_name_that_leads_nowhere_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(ModelMissing):
        Replicate().submit(call(name=name))


def test_options_of_an_offer_win_over_those_of_its_provider() -> None:
    adapter = Replicate(options={"wait": True})
    assert "prefer" not in adapter.submit(call(options={"wait": False})).headers
    assert "prefer" in adapter.submit(call()).headers


def test_idempotency_is_claimed_and_used_only_where_the_upstream_honours_it() -> None:
    plain, ours = Replicate(), Replicate(options={"idempotent": True})
    assert not plain.capabilities.idempotent_submit
    assert "idempotency-key" not in plain.submit(call()).headers
    assert ours.capabilities.idempotent_submit
    assert ours.submit(call()).headers["idempotency-key"] == ours.submit(call(attempt=1)).headers["idempotency-key"]


def test_the_callers_input_is_sent_as_it_is_and_stays_untouched() -> None:
    given = {"prompt": "x", "model": "mine", "stream": True}
    for adapter in (Replicate(), Cog(), OpenAICompatible()):
        adapter.submit(call(input=given))
        assert given == {"prompt": "x", "model": "mine", "stream": True}


# -- cog -------------------------------------------------------------------------------------------------------------


def test_cog_claims_callbacks_and_streams_only_where_they_are_set_up() -> None:
    plain, full = Cog(), Cog(options={"callbacks": True, "stream": True})
    assert plain.capabilities.modes == {"sync"}
    assert plain.capabilities.callbacks is Callbacks.NONE
    assert full.capabilities.modes == {"sync", "queue", "stream"}
    assert full.capabilities.callbacks is Callbacks.SIGNED
    assert plain.capabilities.idempotent_submit
    assert not plain.capabilities.pollable


def test_cog_is_not_given_a_callback_it_was_not_set_up_for() -> None:
    request = Cog().submit(call(callback_url="https://turnout.example/cb/t"))
    assert "webhook" not in request.json
    assert request.holds_until_end


def test_a_stream_of_cog_is_only_asked_for_where_the_model_streams() -> None:
    assert not Cog().submit(call(stream=True)).expects_stream
    assert Cog(options={"stream": True}).submit(call(stream=True)).expects_stream
    assert not Cog(options={"stream": True}).submit(call()).expects_stream


# -- openai_compatible -----------------------------------------------------------------------------------------------


def test_only_text_is_streamed() -> None:
    adapter = OpenAICompatible()
    for route, streams in {"chat": True, "completions": True, "images": False, "embeddings": False}.items():
        request = adapter.submit(call(stream=True, options={"route": route}))
        assert request.expects_stream is streams
        assert ("stream" in request.json) is streams
        assert request.holds_until_end


def test_a_call_that_is_closed_is_stopped_and_nothing_else_can_be_asked() -> None:
    adapter = OpenAICompatible()
    assert adapter.capabilities.cancel is Cancel.DISCONNECT
    assert adapter.poll({}) is None
    assert adapter.cancel({}) is None


def test_a_model_named_in_the_input_does_not_choose_what_is_paid_for() -> None:
    request = OpenAICompatible().submit(call(name="cheap", input={"prompt": "x", "model": "dear"}))
    assert request.json["model"] == "cheap"


def test_a_vector_for_one_text_given_as_tokens_is_one_vector() -> None:
    sent = call(input={"input": [1, 2, 3]}, options={"route": "embeddings"})
    fact = OpenAICompatible().read_submit(
        sent, HttpResponse(status=200, headers={}, body=b'{"data": [{"embedding": [0.5]}]}')
    )
    assert fact.output == [0.5]


# -- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [Replicate, Cog, OpenAICompatible])
def test_options_are_checked_when_the_configuration_is_loaded(adapter: Any) -> None:
    with pytest.raises(ConfigurationError, match="result_hosts"):
        adapter(options={"result_host": ["x"]})
    adjusted = adapter(options={"result_hosts": ["cdn.example"], "max_inline_bytes": 7}).capabilities
    assert adjusted.result_hosts == ("cdn.example",)
    assert adjusted.max_inline_bytes == 7


@pytest.mark.parametrize(
    ("adapter", "options"),
    [(Replicate(), {"wait": "yes"}), (Cog(), {"stream": 3}), (OpenAICompatible(), {"route": "videos"})],
)
def test_wrong_options_of_an_offer_refuse_the_call_before_it_is_sent(adapter: Any, options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="options"):
        adapter.submit(call(options=options))
    with pytest.raises(ConfigurationError):
        adapter.check(options)


@pytest.mark.parametrize(
    ("word", "key", "said"),
    [
        ("bedrock", "region", "eu-central-1"),
        ("google", "project", "another"),
        ("cloudflare", "account", "another"),
        ("azure", "resource", "another"),
        ("fal", "result_hosts", ["evil.example"]),
    ],
)
def test_what_only_a_provider_may_say_is_a_fault_when_the_configuration_is_read(word: str, key: str, said: Any) -> None:
    adapter: Any = load_adapter(word, {})
    with pytest.raises(ConfigurationError, match=f"`{key}` is for the provider to say"):
        adapter.check_offer({key: said})
    with pytest.raises(Refused, match=f"`{key}` is for the provider to say"):
        adapter.submit(call(options={key: said}))
    same: Any = load_adapter(word, {key: said})
    same.check_offer({key: said})
