"""What a caller puts into an input: no adapter stumbles over it, takes prose for a file, or lends out our rights."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from gateway.contract.errors import Blame, InputRefused, ProviderFailure, Verdict
from gateway.contract.provider import Call, HttpRequest, HttpResponse
from gateway.plugins import installed_adapters, load_adapter
from providers._line import _compose
from tests.unit.providers.test_submit import call

DEEPEST = 100  # what the API lets through: gateway.api.creation.MOST_DEPTH
PROSE = "data: what a chart shows, and prose"
PROVIDERS: dict[str, dict[str, Any]] = {"cloudflare": {"account": "acc"}, "azure": {"resource": "res"}}
NAMES = {"runpod": "abc", "baseten": "abc"}
OFFERS: dict[str, list[dict[str, Any]]] = {
    "azure": [{}, {"route": "edits"}, {"route": "videos"}],
    "bedrock": [{"method": "invoke"}, {"method": "converse"}],
    "cloudflare": [{}, {"files": "numbers"}, {"files": "uri"}, {"form": True}, {"batch": True}],
    "deepinfra": [{}, {"cog": True}, {"route": "transcription"}],
    "elevenlabs": [{"route": route, "voice": "v"} for route in ("speech", "sound", "transcription", "dubbing")],
    "fireworks": [{}, {"route": "text_to_image"}, {"route": "kontext"}],
    "google": [{"method": method} for method in ("generateContent", "predict", "predictLongRunning")],
    "huggingface": [{}, {"route": "task"}],
    "kserve": [{"generate": True}, {"inputs": {"prompt": {"datatype": "BYTES"}, "text": {"datatype": "FP32"}}}],
    "modal": [{"body": body} for body in ("json", "form", "query")],
    "openai": [{"route": route} for route in ("chat", "images", "edits", "speech", "embeddings", "videos")],
    "together": [{"route": route} for route in ("chat", "images", "videos", "queue", "transcription")],
}
ROUTES = [(word.name, offer) for word in installed_adapters() for offer in OFFERS.get(word.name, [{}])]


def nested(levels: int) -> Any:
    value: Any = "data:image/png;base64,aGk="
    for level in range(levels - 1):
        value = {"a": value} if level % 2 else [value]
    return value


def submitted(word: str, offer: dict[str, Any], input: dict[str, Any]) -> tuple[Call, HttpRequest]:
    sent = call(name=NAMES.get(word, "acme/model"), input=input, options=offer, callback_url="https://t.example/cb/x")
    return sent, load_adapter(word, PROVIDERS.get(word, {})).submit(sent)


@pytest.mark.parametrize(("word", "offer"), ROUTES)
@pytest.mark.parametrize(
    "strange",
    [
        {"x": nested(DEEPEST)},
        {'a"\r\nb: c': "v", "": "", "\x00": "z", "file": "data:image/png;base64,aGk=", "image": [None, 3, {}]},
        {"options": "junk", "parameters": [1], "numberResults": 10**30, "voice_id": ["x"], "output_format": {"a": 1}},
        {"prompt": {"a": 1}, "text": 5, "inputs": [[]], "messages": "x", "contents": None, "instances": {}},
        {"image": "data:image/png;base64,%%%", "images": "data:,x", "audio": "data:;base64,", "file": "x" * 100_000},
    ],
)
def test_no_input_makes_an_adapter_stumble(word: str, offer: dict[str, Any], strange: dict[str, Any]) -> None:
    try:
        _, request = submitted(word, offer, {"prompt": "p", "text": "t", "inputs": "i", "target_lang": "de"} | strange)
    except ProviderFailure:
        return  # said in our own words, before anything was sent
    message = _compose(request, httpx.URL("https://acme.example/x"), dict(request.headers))
    assert b"\r\nb: c" not in message.content  # no line of a form that the caller wrote


@pytest.mark.parametrize(("word", "offer"), ROUTES)
def test_a_prompt_that_begins_like_a_data_uri_is_still_a_prompt(word: str, offer: dict[str, Any]) -> None:
    given = dict.fromkeys(("prompt", "text", "inputs"), PROSE) | {"target_lang": "de"}
    if word == "kserve" and "inputs" in offer:
        given = {"prompt": PROSE}
    files = {"image": "data:image/png;base64,aGk=", "file": "data:audio/wav;base64,aGk="}
    if offer.get("route") in ("edits", "transcription") or word == "elevenlabs":
        given |= files
    _, request = submitted(word, offer, given)
    message = _compose(request, httpx.URL("https://acme.example/x"), {})
    sent = f"{request.url} {message.content.decode('latin-1')}"
    assert PROSE in sent or PROSE.replace(" ", "+").replace(":", "%3A").replace(",", "%2C") in sent
    assert b'filename="prompt' not in message.content


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("bfl", ("webhook_url", "webhook_secret")),
        ("deepinfra", ("webhook",)),
        ("luma", ("callback_url",)),
        ("runware", ("webhookURL", "uploadEndpoint")),
    ],
)
def test_where_a_provider_sends_results_is_not_for_a_caller_to_say(word: str, keys: tuple[str, ...]) -> None:
    _, request = submitted(word, {}, {"prompt": "p", **dict.fromkeys(keys, "https://evil.example/steal")})
    assert "evil.example" not in str(request.json)


SECRET = "://our-secrets/keys.png"


@pytest.mark.parametrize(
    ("word", "options", "input"),
    [
        ("google", {}, {"prompt": "read it", "image": f"gs{SECRET}"}),
        ("google", {}, {"contents": [{"parts": [{"fileData": {"fileUri": f"gs{SECRET}"}}]}]}),
        ("google", {"method": "predict"}, {"prompt": "p", "image": {"gcsUri": f"gs{SECRET}"}}),
        ("google", {"method": "predict"}, {"instances": [{}], "parameters": {"storageUri": f"GS{SECRET}"}}),
        ("google", {"method": "predictLongRunning"}, {"prompt": "p", "parameters": {"storageUri": f"gs{SECRET}"}}),
        ("bedrock", {}, {"inputVideo": {"s3Location": {"uri": f"s3{SECRET}"}}}),
        (
            "bedrock",
            {"method": "converse"},
            {"messages": [{"content": [{"document": {"source": {"s3Location": {"uri": f"s3{SECRET}"}}}}]}]},
        ),
    ],
)
def test_a_caller_reads_nothing_of_ours_by_the_rights_of_our_account(
    word: str, options: dict[str, Any], input: dict[str, Any]
) -> None:
    with pytest.raises(InputRefused, match="storage"):
        submitted(word, options, input)
    allowed = {**options, "input_buckets": ["our-secrets"]}
    assert SECRET in str(submitted(word, allowed, input)[1].json)
    assert submitted(word, options, {"prompt": f"gs{SECRET} s3{SECRET}"})  # prose may speak of it


@pytest.mark.parametrize(
    ("word", "offer", "status", "said"),
    [
        ("elevenlabs", {"voice": "v"}, 400, {"detail": {"status": "max_character_limit_exceeded", "message": "long"}}),
        ("cloudflare", {}, 413, {"success": False, "errors": [{"code": 3006, "message": "Request is too large"}]}),
        ("openai", {}, 400, {"error": {"code": "context_length_exceeded", "message": "too long", "type": "x"}}),
        ("stability", {}, 413, {"name": "payload_too_large", "errors": ["too large"]}),
        ("fal", {}, 413, {"detail": "too large"}),
        ("runpod", {}, 413, "request entity too large"),
    ],
)
def test_who_sends_too_much_neither_ends_it_for_all_providers_nor_brings_one_into_disrepute(
    word: str, offer: dict[str, Any], status: int, said: Any
) -> None:
    sent, _ = submitted(word, offer, {"prompt": "p", "text": "t"})
    response = HttpResponse(status=status, headers={"content-type": "application/json"}, body=msgspec.json.encode(said))
    with pytest.raises(ProviderFailure) as failed:
        load_adapter(word, PROVIDERS.get(word, {})).read_submit(sent, response)
    assert (failed.value.verdict, failed.value.blame) == (Verdict.FAIL_OVER, Blame.LOCAL)
    assert not failed.value.maybe_running


@pytest.mark.parametrize("word", ["image_too_large", "file_download_error"])
def test_a_file_that_fal_cannot_take_may_be_taken_by_others(word: str) -> None:
    sent, _ = submitted("fal", {"sync": True}, {"prompt": "p"})
    said = {"detail": [{"loc": ["body", "image_url"], "msg": "no", "type": word}]}
    fact = load_adapter("fal").read_submit(sent, HttpResponse(status=422, headers={}, body=msgspec.json.encode(said)))
    assert fact.failure is not None
    assert (fact.failure.code, fact.failure.verdict) == ("input_unfit", Verdict.FAIL_OVER)
