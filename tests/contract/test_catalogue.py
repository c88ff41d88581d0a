"""The shipped catalogue, offer by offer: what leaves is what a provider takes, what comes back is what was declared."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.api.validation import InputSchema, compile_schema, speaks_of_files
from gateway.config.catalogue import CatalogueModel, CatalogueOffer, Property, read_catalogue
from gateway.contract.errors import InvalidField
from gateway.contract.fact import Fact, Phase
from gateway.contract.provider import Adapter, Ask, Call, HttpRequest, HttpResponse
from gateway.contract.route import InputMapping, OutputMapping
from gateway.plugins import load_adapter
from gateway.routing.catalog import derived_version, read_price
from gateway.routing.schema import openapi_document
from gateway.routing.unit import estimated_units, fact_of, price_for
from tests.contract.vendor_words import WORDS, strangers, words_for

CATALOGUE = read_catalogue(()).models
OFFERS = [
    pytest.param(model, offer, id=f"{model.name}@{offer.adapter}:{offer.name}")
    for model in CATALOGUE.values()
    for offer in model.offers
]
REMOTE = [one for one in OFFERS if one.values[1].adapter != "local"]
PNG = "data:image/png;base64,iVBORw0KGgo="
URL = "https://files.example/out"
SAMPLES = {"string": "words", "integer": 7, "number": 0.5, "boolean": True, "file": PNG, "files": [PNG]}


def whole(model: CatalogueModel) -> dict[str, Any]:
    """An input that says everything."""
    return {name: sample(field) for name, field in model.input.items()}


def sample(field: Property) -> Any:
    if field.default is not msgspec.UNSET:
        return field.default
    return field.enum[0] if field.enum else SAMPLES[field.type]


def inputs(model: CatalogueModel) -> Iterator[dict[str, Any]]:
    """The least (with defaults, as the API fills them in), the whole, and every word that any of its keys may have."""
    yield {n: sample(field) for n, field in model.input.items() if field.required or field.default is not msgspec.UNSET}
    everything = whole(model)
    yield everything
    for name, field in model.input.items():
        bounds = [int(edge) if field.type == "integer" else edge for edge in (field.minimum, field.maximum) if edge]
        words = field.enum or ((True, False) if field.type == "boolean" else tuple(bounds))
        for word in words:
            yield {**everything, name: word}


def mapping(offer: CatalogueOffer) -> InputMapping:
    said = offer.input
    return InputMapping(values=said.values, spread=said.spread, rename=said.rename, set=said.set, drop=said.drop)


def call(model: CatalogueModel, offer: CatalogueOffer, input: dict[str, Any]) -> Call:
    return Call(
        prediction="p",
        attempt=1,
        name=offer.name,
        version=None,
        input=mapping(offer).apply(input),
        idempotency_id="3zy5cb0aqn4e8kxw7mt1vdrs2g",
        callback_url=None,
        deadline_seconds=60,
        options=offer.options,
    )


@functools.cache
def adapter_of(word: str) -> Adapter:
    """As a provider from the environment would have it."""
    also = read_catalogue(()).adapters.get(word)
    return load_adapter(word, dict.fromkeys(also.needs, "x1") if also is not None else {})


# -- what it is -------------------------------------------------------------------------------------------------------


def test_it_is_as_large_as_it_is_said_to_be() -> None:
    many = [model for model in CATALOGUE.values() if len({offer.adapter for offer in model.offers}) > 1]
    both = [m for m in CATALOGUE.values() if {"fal", "replicate"} <= {offer.adapter for offer in m.offers}]
    assert len(CATALOGUE) >= 40
    assert len(many) >= 25
    assert len(both) >= 10, "two tokens are all it takes"
    tasks = {model.task for model in CATALOGUE.values()}
    assert tasks >= {"text-to-image", "text-to-video", "speech", "transcription", "chat", "embedding", "upscaling"}


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=CATALOGUE)
def test_a_model_has_a_schema_that_the_api_can_hold_inputs_against(model: CatalogueModel) -> None:
    document = openapi_document(model.schema, place=model.name)
    schema = InputSchema(document)
    assert not schema.takes_anything, "an unknown key is dropped, as Replicate does"
    for input in inputs(model):
        fitted, errors = schema.fit(input)
        assert errors == (), input
        defaults = {n: f.default for n, f in model.input.items() if f.default is not msgspec.UNSET}
        assert fitted == {**defaults, **input}
    required = [name for name, field in model.input.items() if field.required]
    assert required
    assert schema.fit({})[1], "an empty input is refused"
    assert speaks_of_files(document) is (model.output in ("file", "files"))
    assert set(schema.files or ()) == {name for name, field in model.input.items() if field.type in ("file", "files")}


def test_versions_are_told_apart() -> None:
    versions = {derived_version(model.name, model.schema) for model in CATALOGUE.values()}
    assert len(versions) == len(CATALOGUE)


@pytest.mark.parametrize(("model", "offer"), OFFERS)
def test_a_price_has_a_source_and_nothing_is_for_nothing(model: CatalogueModel, offer: CatalogueOffer) -> None:
    price = read_price(offer.price, offer.price_tiers, place=model.name)
    if offer.adapter == "local":
        assert offer.fallback
        return
    rates = [part for one in (price, *(tier.price for tier in price.tiers)) for part in one.parts]
    assert all(rate > 0 for _, rate in rates), "unknown is not 0"
    assert bool(offer.source) is price.is_known
    assert bool(offer.confidence) is price.is_known
    # A few pence a token, a few dollars a second: what is beyond was mistaken for another unit.
    limits = {"input_tokens": 30_000, "output_tokens": 30_000, "characters": 300_000, "images": 300_000_000}
    for unit, rate in rates:
        assert rate <= limits.get(unit, 1_000_000_000), (unit, rate)


def test_its_tiers_tell_for_every_input_that_it_may_have() -> None:
    told = []
    for model in CATALOGUE.values():
        for offer in model.offers:
            price = read_price(offer.price, offer.price_tiers, place=model.name)
            for input in inputs(model) if price.tiers else ():
                facts = [fact_of(input, name) for tier in price.tiers for name, _ in tier.when]
                assert None not in facts, (model.name, input)
            told += [f"{model.name}@{offer.adapter}"] if price.tiers else []
    assert told == [
        "openai/gpt-image-1@openai",
        "google/veo-3.1-fast@google",
        "wan-video/wan-2.5-i2v@runpod",
        "wan-video/wan-2.6-t2v@runpod",
    ]


@pytest.mark.parametrize(
    ("model", "adapter", "input", "nanos"),
    [
        ("wan-video/wan-2.5-i2v", "runpod", {"resolution": "480p", "duration": 5}, 250_000_000),
        ("wan-video/wan-2.5-i2v", "runpod", {"resolution": "1080p", "duration": 10}, 1_500_000_000),
        ("wan-video/wan-2.6-t2v", "runpod", {"size": "1280*720", "duration": 10}, 1_000_000_000),
        ("wan-video/wan-2.6-t2v", "runpod", {"size": "1080*1920", "duration": 15}, 2_250_000_000),
        ("google/veo-3.1-fast", "google", {"resolution": "1080p", "duration": 8}, 960_000_000),
        ("openai/gpt-image-1", "openai", {"quality": "high", "size": "1024x1536", "n": 2}, 500_000_000),
        ("openai/gpt-image-1", "openai", {"quality": "low", "size": "1024x1536"}, None),
    ],
)
def test_a_tier_costs_what_its_source_states(
    model: str, adapter: str, input: dict[str, Any], nanos: int | None
) -> None:
    (offer,) = (offer for offer in CATALOGUE[model].offers if offer.adapter == adapter)
    price = read_price(offer.price, offer.price_tiers, place=model)
    assert price_for(price, input).of(estimated_units(input)) == nanos


def test_a_known_price_of_input_tokens_has_one_of_output_tokens_too() -> None:
    for model in CATALOGUE.values():
        for offer in model.offers if model.task == "chat" else ():
            assert {"per_input_token", "per_output_token"} <= offer.price.keys() or not offer.price


# -- what leaves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "offer"), OFFERS)
def test_what_leaves_is_what_the_provider_takes(model: CatalogueModel, offer: CatalogueOffer) -> None:
    is_replicate = offer.adapter == "replicate"  # whose words are the models' own
    own = dict.fromkeys((*model.input, *offer.input.set)) if is_replicate else words_for(offer.adapter, offer.name)
    for input in inputs(model):
        before = json.dumps(input)
        assert strangers(mapping(offer).apply(input), own) == [], input
        assert json.dumps(input) == before, "the caller's input is untouched"


@pytest.mark.parametrize(("model", "offer"), OFFERS)
def test_no_line_of_a_mapping_speaks_of_what_is_not_there(model: CatalogueModel, offer: CatalogueOffer) -> None:
    said = offer.input
    ours = {*said.values, *said.spread, *said.rename}
    assert ours <= model.input.keys()
    assert set(said.drop) <= model.input.keys() - said.rename.keys()
    for name, words in [*said.values.items(), *said.spread.items()]:
        known = {str(word) for word in model.input[name].enum} or {"true", "false"} | {str(n) for n in range(100)}
        assert words.keys() <= known, name
        if name in said.spread and any(words.values()) and name not in said.rename:
            assert words.keys() == known or name == "aspect_ratio", f"{name}: what is not spread passes as it is"


def test_nothing_is_written_down_of_what_nobody_offers() -> None:
    offered = {(offer.adapter, offer.name) for model in CATALOGUE.values() for offer in model.offers}
    for adapter, entries in WORDS.items():
        used = {id(words_for(adapter, name)) for word, name in offered if word == adapter}
        idle = [name for name, words in entries.items() if id(words) not in used]
        assert idle == [], adapter


@pytest.mark.parametrize(("model", "offer"), REMOTE)
def test_its_adapter_takes_its_options_and_sends_it(model: CatalogueModel, offer: CatalogueOffer) -> None:
    adapter = adapter_of(offer.adapter)
    assert adapter.check(offer.options)  # type: ignore[attr-defined] # ours all have it
    for input in inputs(model):
        request = adapter.submit(call(model, offer, input))
        assert isinstance(request, HttpRequest)
        assert request.url.startswith("/")


def test_an_adapter_of_which_more_is_told_is_offered_by_somebody_and_has_such_options() -> None:
    for word, also in read_catalogue(()).adapters.items():
        assert any(offer.adapter == word for model in CATALOGUE.values() for offer in model.offers)
        assert also.needs or also.takes
        options = dict.fromkeys((*also.needs, *also.takes), "us-west-2")
        assert load_adapter(word, options).base_url


# -- what comes back --------------------------------------------------------------------------------------------------


def body_of(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status=status, headers={"content-type": "application/json"}, body=json.dumps(value).encode())


SOUND = HttpResponse(status=200, headers={"content-type": "audio/mpeg"}, body=b"ID3")
FAL: dict[str, Any] = {
    "images": {"images": [{"url": URL, "width": 1, "height": 1, "content_type": "image/png"}], "seed": 1},
    "image": {"image": {"url": URL, "content_type": "image/png"}},
    "video": {"video": {"url": URL, "content_type": "video/mp4"}},
    "audio": {"audio": {"url": URL, "content_type": "audio/mpeg"}},
    "text": {"text": "words", "chunks": []},
}
RUNPOD = {
    "image": {"image_url": URL, "cost": 0.02},
    "video": {"video_url": URL, "cost": 0.2},
    "audio": {"audio_url": URL, "cost": 0.002},
    "text": [{"choices": [{"tokens": ["wo", "rds"]}], "cost": 0.005, "usage": {"input": 15, "output": 485}}],
}
MEDIA = {
    "text-to-image": "image",
    "image-edit": "image",
    "upscaling": "image",
    "text-to-video": "video",
    "image-to-video": "video",
    "speech": "audio",
    "transcription": "text",
    "chat": "text",
}
DIALECT = {
    "images": body_of({"created": 1, "data": [{"url": URL}]}),
    "speech": SOUND,
    "transcription": body_of({"text": "words"}),
    "chat": body_of({"choices": [{"index": 0, "message": {"content": "words"}, "finish_reason": "stop"}]}),
    "embeddings": body_of({"data": [{"index": 0, "embedding": [0.5, 0.25]}]}),
}
SUBMITTED: dict[str, HttpResponse] = {
    "stability": body_of({"image": "iVBORw0KGgo=", "finish_reason": "SUCCESS", "seed": 1}),
    "elevenlabs/speech": SOUND,
    "elevenlabs/transcription": body_of({"text": "words", "language_code": "eng", "words": []}),
    "deepinfra/native": body_of({"images": [PNG], "inference_status": {"status": "succeeded", "cost": 0.002}}),
    "google/predict": body_of({"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": "iVBORw0KGgo="}]}),
    "google/generateContent": body_of(
        {
            "candidates": [
                {
                    "content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
                    "finishReason": "STOP",
                }
            ]
        }
    ),
    "bedrock/invoke": body_of({"images": ["iVBORw0KGgo="]}),
    "bedrock/converse": body_of(
        {"output": {"message": {"role": "assistant", "content": [{"text": "words"}]}}, "stopReason": "end_turn"}
    ),
    "huggingface/task:transcription": body_of({"text": "words"}),
    "huggingface/task:embedding": body_of([0.5, 0.25]),
    "cloudflare:embedding": body_of({"result": {"shape": [1, 2], "data": [[0.5, 0.25]]}, "success": True}),
}
POLLED: dict[str, tuple[dict[str, str], Any]] = {
    "bfl": (
        {"polling_url": "https://api.us1.bfl.ai/v1/get_result?id=1"},
        {"status": "Ready", "result": {"sample": URL}},
    ),
    "luma/image": ({}, {"state": "completed", "assets": {"image": URL}}),
    "luma/video": ({}, {"state": "completed", "assets": {"video": URL}}),
    "runway": ({}, {"status": "SUCCEEDED", "output": [URL]}),
    "fireworks/kontext": ({"model": "accounts/fireworks/models/m"}, {"status": "Ready", "result": {"sample": URL}}),
    "google/predictLongRunning": (
        {"model": "/models/m"},
        {"done": True, "response": {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": URL}}]}}},
    ),
}
FORMS = {"file": URL, "files": [URL], "text": "words", "text_stream": ["wo", "rds"], "vector": [0.5, 0.25]}


def answered(adapter: Adapter, model: CatalogueModel, offer: CatalogueOffer) -> Fact | Ask:
    """What `adapter` reads out of a good end, as the provider's documented answers have it."""
    made = call(model, offer, whole(model))
    media = MEDIA.get(model.task, "")
    route = offer.options.get("route") or offer.options.get("method")
    word = f"{offer.adapter}/{route}" if route else offer.adapter
    match offer.adapter:
        case "replicate":
            return adapter.read_poll(
                {"id": "1"}, body_of({"id": "1", "status": "succeeded", "output": FORMS[model.output]})
            )
        case "fal":
            result = FAL[offer.output.path.partition(".")[0].partition("[")[0]]
            return adapter.read_poll({"id": "1", "step": "result", "name": offer.name}, body_of(result))
        case "runpod":
            told = {"id": "1", "status": "COMPLETED", "output": RUNPOD[media]}
            return adapter.read_poll({"id": "1", "endpoint": offer.name, "cost": "output"}, body_of(told))
        case "runware":
            uuid = adapter.submit(made).json[0]["taskUUID"]
            item = {"taskType": "imageInference", "taskUUID": uuid, "imageUUID": "u", "imageURL": URL, "cost": 0.0013}
            return adapter.read_submit(made, body_of({"data": [item]}))
        case "bedrock" if route is None:
            word = "bedrock/invoke"
        case "deepinfra" if route is None:
            word = "deepinfra/native"
        case "google" if route is None:
            word = "google/generateContent"
    for key in (f"{word}:{model.task}", f"{word}:{media}", word, offer.adapter):
        if key in POLLED:
            handle, body = POLLED[key]
            id = "models/m/operations/1" if offer.adapter == "google" else "1"
            told = {"id": id, "name": id, **body}
            return adapter.read_poll({"id": id, **handle, **_kept(offer)}, body_of(told))
        if key in SUBMITTED:
            return adapter.read_submit(made, SUBMITTED[key])
    return adapter.read_submit(made, DIALECT[str(route)])


def _kept(offer: CatalogueOffer) -> dict[str, str]:
    return {"single": "1"} if offer.options.get("single") else {}


@pytest.mark.parametrize(("model", "offer"), REMOTE)
def test_what_comes_back_has_the_declared_form(model: CatalogueModel, offer: CatalogueOffer) -> None:
    fact = answered(adapter_of(offer.adapter), model, offer)
    assert isinstance(fact, Fact), fact
    assert fact.phase is Phase.SUCCEEDED, fact
    output = OutputMapping(path=offer.output.path, form=offer.output.form).apply(fact.output)
    errors: list[InvalidField] = []
    compile_schema(model.schema["Output"])(output, "", errors)
    assert errors == [], output
    assert output not in ("", [], {}, None)
