"""A real gateway with two tokens and no model of its own: what callers see of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config.catalogue import read_catalogue
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_commands import turnout

TOKENS = {"FAL_KEY": "id:fal-canary", "REPLICATE_API_TOKEN": "r8_replicate-canary"}
MODEL = "black-forest-labs/flux-schnell"
# At the discard port, where nothing is sent here.
CONFIG = """
[local]
enabled = false
[providers.fal]
base_url = "http://127.0.0.1:9"
token = "env:FAL_KEY"
catalogue = true
[providers.replicate]
base_url = "http://127.0.0.1:9/v1"
token = "env:REPLICATE_API_TOKEN"
catalogue = true
"""


def test_models_of_the_catalogue_are_shown_and_inputs_are_held_against_their_schema(tmp_path: Path) -> None:
    with (
        GatewayProcess(tmp_path, CONFIG, environ=TOKENS) as gateway,
        gateway.client() as client,
    ):
        shown = client.get("/v1/models").json()["results"]
        both = {
            model.name
            for model in read_catalogue(()).models.values()
            if {"fal", "replicate"} & {offer.adapter for offer in model.offers}
        }
        names = {f"{model['owner']}/{model['name']}" for model in shown}
        assert names <= both
        assert len(names) >= 25
        model = client.get(f"/v1/models/{MODEL}").json()
        schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
        assert schemas["Output"] == {
            "title": "Output",
            "type": "array",
            "items": {"type": "string", "format": "uri"},
        }
        assert schemas["Input"]["properties"]["prompt"]["x-order"] == 0
        refused = client.post(f"/v1/models/{MODEL}/predictions", json={"input": {"num_outputs": 9}})
        assert refused.status_code == 422
        fields = {field["field"] for field in refused.json()["invalid_fields"]}
        assert fields == {"input", "input.num_outputs"}, refused.text
    assert "canary" not in gateway.log


def test_tokens_in_the_environment_alone_are_enough(tmp_path: Path) -> None:
    words = ("explain", MODEL, "--json", "--policy", "cheapest", "--input", '{"prompt": "a cat", "num_outputs": 2}')
    plan = turnout(*words, cwd=tmp_path, **TOKENS)
    assert plan.returncode == 0, plan.stderr
    choices = {choice["provider"]: choice for choice in json.loads(plan.stdout)["choices"]}
    assert choices.keys() == {"fal", "replicate"}
    assert all(choice["kept"] for choice in choices.values())
    assert {choice["expected_nanos"] for choice in choices.values()} == {6_000_000}, "per megapixel, and per picture"
    without = turnout(*words, cwd=tmp_path)
    assert without.returncode == 2
    assert MODEL in without.stderr


def test_what_somebody_exported_for_other_programs_does_not_reach_a_gateway_of_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    with GatewayProcess(tmp_path, "[local]\nenabled = false\n") as gateway, gateway.client() as client:
        assert client.get("/v1/models").json()["results"] == []
