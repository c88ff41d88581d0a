"""`turnout models`: what can be served here, at what price, and what is missing for the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.cli import main
from gateway.config.catalogue import read_catalogue

SCHNELL = "black-forest-labs/flux-schnell"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(text: str) -> list[str]:
    return [" | ".join(part.strip() for part in line.split("  ") if part.strip()) for line in text.splitlines()]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["models", "--json", *words]) == 0
    models: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["models"]
    return models


def test_without_tokens_every_model_says_what_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = rows(capsys.readouterr().out)
    count = len(read_catalogue(()).models)
    assert "turnout/upscaler | local: turnout/upscaler, fallback | $0.00 per prediction" in said, "what is built in"
    assert f"1 of {count + 1} models can be served" in said
    assert "kwaivgi/kling-v2.5-turbo-pro | text-to-video | set REPLICATE_API_TOKEN or FAL_KEY" in said
    assert any(re.match(r"openai/whisper-1 \| transcription \| set OPENAI_API_KEY", line) for line in said)


def test_at_eighty_columns_no_name_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.models.printer", lambda: Console(highlight=False, width=80))
    assert main(["models", "--all"]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    for model in read_catalogue(()).models.values():
        assert f" {model.name} " in text


def test_with_tokens_it_says_by_whom_and_for_how_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:canary")
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_canary")
    assert main(["models", "flux-schnell"]) == 0
    text = capsys.readouterr().out
    said = rows(text)
    assert f"{SCHNELL} | replicate: {SCHNELL} | $0.003 per image" in said
    assert "fal: fal-ai/flux/schnell | $0.003 per megapixel" in said
    assert '1 of 1 models with "flux-schnell" can be served' in said
    assert "together" not in text, "what lacks its token is not in the way"
    assert "canary" not in text


def test_all_shows_the_rest_of_the_offers_and_where_prices_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:canary")
    assert main(["models", "--all", "kling-v2.1"]) == 0
    text = capsys.readouterr().out
    assert "RUNPOD_API_KEY)" in text
    assert "a third party's digest" in text
    assert "2026-08-20" in text


def test_json_tells_all_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FAL_KEY", "id:canary")
    [model] = told(capsys, "flux-schnell")
    assert (model["name"], model["task"], model["catalogue"], model["servable"]) == (
        SCHNELL,
        "text-to-image",
        True,
        True,
    )
    by = {offer["adapter"]: offer for offer in model["offers"]}
    assert by["fal"]["provider"] == "fal"
    assert "missing" not in by["fal"]
    assert by["replicate"]["missing"] == "set REPLICATE_API_TOKEN"
    assert by["fal"]["price"] == {"per_megapixel": "0.003"}
    assert {"source", "date", "confidence"} <= by["fal"].keys()


def test_models_of_the_configuration_are_there_with_their_offers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "turnout.toml").write_text(
        f"""
[providers.house]
adapter = "replicate"
base_url = "http://127.0.0.1:9/v1"
[[models]]
name = "acme/painter"
[[models.offers]]
provider = "house"
name = "house/painter"
price = {{ per_image = "0.5" }}
[[models]]
name = "{SCHNELL}"
extend = true
[[models.offers]]
provider = "house"
name = "house/flux"
"""
    )
    assert main(["models", "house"]) == 0
    said = rows(capsys.readouterr().out)
    assert "acme/painter | house: house/painter | $0.50 per image" in said
    assert f"{SCHNELL} | house: house/flux | unknown" in said
    [painter] = told(capsys, "acme")
    assert painter["servable"]
    assert not painter["catalogue"]
    [extended] = told(capsys, SCHNELL)
    assert [offer.get("missing", "") for offer in extended["offers"]][:2] == [
        "",
        "set catalogue = true in [providers.house]: it is somewhere else",
    ]


def test_a_fallback_alone_serves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    [model] = told(capsys, "real-esrgan")
    assert not model["servable"]
    assert [offer.get("fallback", False) for offer in model["offers"]] == [False, False, True]


def test_a_text_nobody_has_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "no such model"]) == 0
    assert 'no model is known with "no such model"' in capsys.readouterr().out
    assert told(capsys, "no such model") == []


def test_a_configuration_that_is_wrong_is_told_as_everywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "turnout.toml").write_text("[server]\nprot = 1\n")
    assert main(["models"]) == 2
    assert "turnout.toml:2: server.prot" in capsys.readouterr().err
