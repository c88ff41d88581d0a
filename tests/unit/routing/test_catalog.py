"""The catalog: versions, offers and schemas as the configuration means them, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import InputSection, ModelSection, OfferSection, Provider
from gateway.contract.errors import ConfigurationError
from gateway.contract.money import Price
from gateway.routing.catalog import derived_version
from tests.unit.routing.fakes import BEGINNING
from tests.unit.routing.making import PACKAGE_VERSION, catalog, local_model, section

V1, V2 = "1" * 64, "2" * 64


def offer(provider: str = "a", **more: Any) -> OfferSection:
    return OfferSection(**{"provider": provider, "name": "vendor/up", **more})


def test_models_offers_and_versions_are_found() -> None:
    made = catalog(section("a", "b"), section("c", name="acme/down"))
    assert [model.slug for model in made.models()] == ["acme/up", "acme/down"]
    up = made.get("acme/up")
    assert up is not None
    assert made.get("ACME/Up") is up
    assert made.get("acme/none") is None
    assert made.by_version(up.default_version) is up
    assert made.by_version("0" * 64) is None
    assert [o.id for o in made.offers("acme/up")] == ["acme/up@a", "acme/up@b"]
    assert made.offer("acme/up@b") is up.offers[1]
    assert made.offer("acme/up@z") is None
    assert made.offers("acme/none") == ()


def test_several_offers_of_one_provider_are_numbered() -> None:
    made = catalog(section("a", "b", "a", "a"))
    assert [o.id for o in made.offers("acme/up")] == ["acme/up@a", "acme/up@b", "acme/up@a#2", "acme/up@a#3"]


def test_an_offer_is_as_configured() -> None:
    made = catalog(
        section(
            offer(
                "b",
                version=V1,
                price={"per_second": "0.000725", "per_image": "$0.04"},
                region="eu",
                input=InputSection(rename={"prompt": "text"}, set={"x": 1}, drop=("y",), values={"size": {"s": 1}}),
                options={"route": "images"},
                capabilities=("webp",),
                concurrency=7,
                fallback=True,
            )
        )
    )
    found = made.offer("acme/up@b")
    assert found is not None
    assert (found.name, found.version, found.remote_version, found.region) == ("vendor/up", V1, V1, "eu")
    assert found.price == Price(per_second=725_000, per_image=40_000_000)
    assert found.input.apply({"prompt": "hi", "size": "s", "y": 0}) == {"text": "hi", "size": 1, "x": 1}
    assert found.options == {"route": "images"}
    assert found.concurrency == 7
    assert found.is_fallback
    assert found.capabilities == {"webp", "stream"}


def test_what_a_provider_can_do_becomes_the_words_of_policies() -> None:
    made = catalog(section("a", "b", "c"))
    assert [sorted(o.capabilities) for o in made.offers("acme/up")] == [["cancel", "stop", "webhook"], ["stream"], []]


def test_a_region_is_the_offers_own_else_the_providers() -> None:
    providers = {"a": Provider(region="us"), "b": Provider(region="us")}
    made = catalog(section("a", offer("b", region="eu"), "c"), providers=providers)
    assert [o.region for o in made.offers("acme/up")] == ["us", "eu", None]


def test_no_limit_is_none_and_not_nought() -> None:
    assert catalog(section("a")).offers("acme/up")[0].concurrency is None


# -- versions ------------------------------------------------------------------------------------------------------


def default_version(*sections: Any, **more: Any) -> str:
    model = catalog(*sections, **more).get("acme/up")
    assert model is not None
    assert model.versions[0].id == model.default_version
    return model.default_version


def test_a_version_that_is_stated_for_the_model_is_its_default() -> None:
    assert default_version(section(offer(version=V1), version=V2)) == V2


def test_a_version_on_which_the_offers_agree_is_the_models() -> None:
    made = catalog(section(offer(version=V1), offer("b", version=V1), "c"))
    assert [(o.version, o.remote_version) for o in made.offers("acme/up")] == [(V1, V1), (V1, V1), (V1, None)]


def test_offers_that_disagree_want_the_model_to_say_which_is_the_default() -> None:
    with pytest.raises(ConfigurationError, match=r"turnout\.toml: models\[0\] \(acme/up\): .*different versions; set"):
        catalog(section(offer(version=V1), offer("b", version=V2)))
    made = catalog(section(offer(version=V1), offer("b", version=V2), version=V2))
    model = made.get("acme/up")
    assert model is not None
    assert [version.id for version in model.versions] == [V2, V1]
    assert made.by_version(V1) is model


def test_without_any_the_version_is_derived_from_name_and_schema_alone() -> None:
    schema = {"Input": {"type": "object", "properties": {"x": {"type": "string"}}}, "Output": {}}
    turned = {"Output": {}, "Input": {"properties": {"x": {"type": "string"}}, "type": "object"}}
    version = default_version((section("a"), schema))
    assert version == default_version((section("b", "c"), turned)) == derived_version("acme/up", schema)
    assert len(version) == 64
    assert version != default_version(section("a"))
    assert version != derived_version("acme/down", schema)


@pytest.mark.parametrize("bad", ["latest", "A" * 64, "1" * 63])
def test_a_version_is_sixty_four_hex(bad: str) -> None:
    for made in (section("a", version=bad), section(offer(version=bad))):
        with pytest.raises(ConfigurationError, match="64 hex"):
            catalog(made)


def test_one_version_belongs_to_one_model() -> None:
    with pytest.raises(ConfigurationError, match="acme/up and acme/down state the same version"):
        catalog(section("a", version=V1), section("a", name="acme/down", version=V1))


# -- the local backend ------------------------------------------------------------------------------------------------


def test_a_local_model_of_the_same_name_serves_as_the_fallback_of_the_very_version() -> None:
    made = catalog(section("a", "b"), local=[local_model()])
    model = made.get("acme/up")
    assert model is not None
    assert [(o.provider, o.version, o.is_fallback) for o in model.offers] == [
        ("a", PACKAGE_VERSION, False),
        ("b", PACKAGE_VERSION, False),
        ("local", PACKAGE_VERSION, True),
    ]
    assert [version.id for version in model.versions] == [PACKAGE_VERSION]
    assert model.description == "from a package"
    assert len(made.models()) == 1


def test_a_model_that_states_another_version_keeps_it_apart_from_the_packages() -> None:
    model = catalog(section(offer(version=V1)), local=[local_model()]).get("acme/up")
    assert model is not None
    assert model.default_version == V1
    assert [(o.provider, o.version) for o in model.offers] == [("a", V1), ("local", PACKAGE_VERSION)]
    assert [version.id for version in model.versions] == [V1, PACKAGE_VERSION]


def test_ops_who_list_the_local_backend_themselves_get_no_second_offer_of_it() -> None:
    made = catalog(section(offer(version=V1), offer("local", fallback=True)), local=[local_model()])
    assert [(o.id, o.version, o.is_fallback) for o in made.offers("acme/up")] == [
        ("acme/up@a", V1, False),
        ("acme/up@local", V1, True),
    ]


def test_a_local_model_that_nobody_mentions_is_a_model_in_its_own_right() -> None:
    made = catalog(section("a"), local=[local_model("turnout/upscaler", PACKAGE_VERSION, V2)])
    assert [model.slug for model in made.models()] == ["acme/up", "turnout/upscaler"]  # newest first
    found = made.by_version(V2)
    assert found is not None
    assert found.slug == "turnout/upscaler"
    assert made.offer("turnout/upscaler@local#2") is found.offers[1]


def test_a_section_without_offers_is_served_by_its_package() -> None:
    assert [o.provider for o in catalog(section(), local=[local_model()]).offers("acme/up")] == ["local"]


# -- schemas ----------------------------------------------------------------------------------------------------------


def schemas(schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    model = catalog((section("a"), schema), **more).get("acme/up")
    assert model is not None
    document = model.versions[0].schema
    assert document["openapi"].startswith("3.")
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def test_without_a_schema_anything_goes_in_and_out() -> None:
    assert schemas(None)["Input"] == {"type": "object", "title": "Input", "additionalProperties": True}
    assert schemas(None)["Output"] == {"title": "Output"}


def test_input_and_output_are_wrapped_into_a_document_and_fields_are_ordered() -> None:
    found = schemas(
        {
            "Input": {"properties": {"prompt": {"type": "string"}, "seed": {"type": "integer", "x-order": 9}}},
            "Output": {"type": "array", "items": {"type": "string", "format": "uri"}},
            "size": {"enum": ["s"]},
        }
    )
    assert found["Input"]["type"] == "object"
    assert [(name, field["x-order"]) for name, field in found["Input"]["properties"].items()] == [
        ("prompt", 0),
        ("seed", 9),
    ]
    assert found["Output"]["items"]["format"] == "uri"
    assert found["size"] == {"enum": ["s"]}


def test_references_inside_the_document_resolve() -> None:
    model = catalog(section("a")).get("acme/up")
    assert model is not None
    document = model.versions[0].schema
    text = str(document)
    for name in text.split("#/components/schemas/")[1:]:
        assert name.split("'")[0] in document["components"]["schemas"]


def test_a_whole_document_stays_what_it_is() -> None:
    document = {"openapi": "3.1.0", "x": 1, "components": {"y": 2, "schemas": {"Input": {"title": "In"}, "Output": {}}}}
    model = catalog((section("a"), document)).get("acme/up")
    assert model is not None
    assert model.versions[0].schema == document


@pytest.mark.parametrize("bad", [{"components": {}}, {"components": []}, {"components": {"schemas": {}}}, {"Input": 3}])
def test_a_schema_that_is_none_is_refused_with_its_model(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"models\[0\] \(acme/up\)"):
        catalog((section("a"), bad))


def test_a_schema_of_the_sections_own_describes_the_packages_version() -> None:
    found = schemas({"Input": {"description": "ours"}}, local=[local_model()])
    assert found["Input"]["description"] == "ours"


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (section(offer("loca")), r'offer of loca: unknown provider "loca"; did you mean "local"\?'),
        (section(offer("fal")), r'unknown provider "fal"; add \[providers\.fal\]'),
        (section(offer(price={"per_secnd": "1"})), r'"per_secnd" is no unit of a price; did you mean "per_second"\?'),
        (section(offer(price={"zzz": "1"})), r'"zzz" is no unit of a price; write one of per_prediction, per_second'),
        (section(offer(price={"per_image": "free"})), r"'free' is no amount.*; write dollars per unit, as per_image ="),
        (section(), r"no offers; add \[\[models\.offers\]\]"),
        (section("a", name="up"), "no name of a model; write owner/name"),
    ],
)
def test_what_is_wrong_is_named_with_its_model_and_remedy(made: ModelSection, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        catalog(made)
    assert str(caught.value).startswith("turnout.toml: models[0]")


def test_a_model_is_configured_once() -> None:
    with pytest.raises(ConfigurationError, match=r"models\[1\] \(Acme/Up\): the model is there already"):
        catalog(section("a"), section("b", name="Acme/Up"))


def test_a_model_begins_with_its_configuration() -> None:
    model = catalog(section("a", policy="fastest")).get("acme/up")
    assert model is not None
    assert (model.created_at, model.policy) == (BEGINNING, "fastest")
