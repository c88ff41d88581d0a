"""`turnout prices check`: wrong units are errors with a cause, what is stale or unknown a warning."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.commands.appraisal import Finding, Level, Priced, appraise
from gateway.config.model import PriceTier
from gateway.routing.catalog import read_price

TODAY = date(2026, 11, 24)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def priced(
    model: str, price: dict[str, str], *, task: str = "", tiers: tuple[PriceTier, ...] = (), **more: Any
) -> Priced:
    more = {"date": "2026-10-01", "offer": "p: x"} | more
    return Priced(model=model, task=task, price=read_price(price, tiers, place="x"), **more)


def judged(*offers: Priced) -> list[tuple[Finding, ...]]:
    return appraise(offers, today=TODAY, max_age_days=180)


CHAT = tuple(
    priced(f"acme/chat-{number}", {"per_input_token": rate}, task="chat")
    for number, rate in enumerate(("0.00000015", "0.0000006", "0.000003", "0.000015"))
)


@pytest.mark.parametrize(
    ("unit", "right", "wrong", "cause"),
    [
        (
            "per_input_token",
            "0.00000015",
            "0.15",
            "1,000,000 times .* dollars per 1M input tokens written per input token",
        ),
        ("per_character", "0.00003", "0.03", "1,000 times .* dollars per 1,000 characters written per character"),
        ("per_input_token", "0.00000015", "0.015", "100,000 times .* cents per 1,000 input tokens written as dollars"),
        ("per_image", "0.04", "4", "100 times .* cents written as dollars"),
        ("per_image", "0.04", "0.0004", "1/100 of .* dollars taken for cents"),
        ("per_audio_second", "0.0001", "0.006", "60 times .* dollars per minute written per second"),
        ("per_second", "0.000225", "0.81", "3,600 times .* dollars per hour written per second"),
        ("per_megapixel", "0.003", "0.000000003", r"1/1,000,000 of .* dollars per pixel written per megapixel"),
    ],
)
def test_an_offer_in_another_unit_than_its_siblings_is_an_error_with_its_cause(
    unit: str, right: str, wrong: str, cause: str
) -> None:
    siblings = [priced("acme/up", {unit: right}), priced("acme/up", {unit: right})]
    *fine, (found,) = judged(*siblings, priced("Acme/Up", {unit: wrong}))
    assert fine == [(), ()], "only the one that is off"
    assert (found.level, found.code) == (Level.ERROR, "unit")
    assert re.search(cause, found.text), found.text


def test_a_real_difference_is_no_error_and_a_great_one_a_warning() -> None:
    offers = [priced("acme/up", {"per_input_token": rate}) for rate in ("0.00000015", "0.0000006", "0.00001")]
    assert judged(*offers[:2]) == [(), ()]
    assert [[one.level for one in found] for found in judged(*offers)] == [[], [], [Level.WARNING]]


def test_of_two_that_contradict_each_other_the_one_unlike_everybody_else_is_wrong() -> None:
    right = priced("acme/new", {"per_input_token": "0.000001"}, task="chat")
    wrong = priced("acme/new", {"per_input_token": "1"}, task="chat")
    *others, fine, found = judged(*CHAT, right, wrong)
    assert others == [()] * 4
    assert fine == ()
    assert [one.level for one in found] == [Level.ERROR]
    assert all(judged(right, wrong)), "with nobody else to ask both are named"


def test_a_model_without_siblings_is_held_against_others_of_its_kind() -> None:
    alone = priced("acme/new", {"per_input_token": "2.5"}, task="chat")
    *_, (found,) = judged(*CHAT, alone)
    assert found.level is Level.ERROR
    assert "other models of its kind" in found.text
    assert "dollars per 1M input tokens written per input token" in found.text
    other_kind = priced("acme/new", {"per_input_token": "2.5"}, task="embedding")
    *_, found_of_none = judged(*CHAT, other_kind)
    assert found_of_none == (), "nobody of its kind is known"


def test_a_picture_priced_by_the_token_among_pictures_is_an_error() -> None:
    image = priced("acme/up", {"per_image": "0.04"})
    *_, (found,) = judged(image, priced("acme/up", {"per_input_token": "0.00000004"}))
    assert found.level is Level.ERROR
    assert "is it sold so?" in found.text
    assert judged(image, priced("acme/up", {"per_megapixel": "0.03"})) == [(), ()]


def test_every_tier_is_looked_at() -> None:
    def tiers(high: str) -> tuple[PriceTier, ...]:
        return (PriceTier(when={"quality": "high"}, price={"per_image": high}),)

    low = {"per_image": "0.02"}
    assert judged(priced("acme/up", low, tiers=tiers("0.16")), priced("acme/up", low)) == [(), ()]
    (found,), _ = judged(priced("acme/up", low, tiers=tiers("16")), priced("acme/up", low))
    assert "cents" not in found.text
    assert "800 times" in found.text


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"date": "2026-10-01"}, []),
        ({"date": "2026-05-28"}, []),
        ({"date": "2026-05-27"}, ["stale"]),
        ({"date": "2026-08"}, []),
        ({"date": "2026"}, ["stale"]),
        ({"date": "2027-01-01"}, ["stale"]),
        ({"date": ""}, ["undated"]),
        ({"date": "", "is_ours": True}, []),
    ],
)
def test_prices_grow_old(changes: dict[str, Any], codes: list[str]) -> None:
    (found,) = judged(priced("acme/up", {"per_image": "0.04"}, **changes))
    assert [one.code for one in found] == codes
    assert {one.level for one in found} <= {Level.WARNING}


def test_what_is_unknown_or_for_nothing_is_said() -> None:
    unknown, free, _ = judged(
        priced("acme/up", {}), priced("acme/up", {"per_image": "0"}), priced("acme/up", {"per_image": "0.04"})
    )
    assert [one.code for one in unknown] == ["unknown"]
    assert [one.code for one in free] == ["free"]


def test_tiers_with_a_gap_name_it_and_a_fact_that_nobody_can_state_is_named() -> None:
    tiers = (
        PriceTier(when={"quality": "high", "audio": True}, price={"per_image": "0.2"}),
        PriceTier(when={"quality": ["low", "high"]}, price={"per_image": "0.1"}),
    )
    words = {"quality": {"enum": ["low", "high"]}, "sound": {"type": "boolean"}}

    def said(properties: dict[str, Any] | None) -> list[str]:
        (found,) = judged(priced("acme/up", {}, tiers=tiers, properties=properties))
        return [f"{one.code}: {one.text}" for one in found]

    assert said(words) == []
    gap = {**words, "quality": {"enum": ["low", "odd"]}}
    assert said(gap) == ["unknown: it has no price where quality odd, sound true"]
    assert said({"quality": {"type": "string"}, "sound": {}}) == [
        "unknown: it has no price where none of its tiers holds"
    ]
    (strange,) = said({"quality": {"enum": ["low", "high"]}})
    assert strange.startswith('tier: a tier asks for "audio"')


# -- the command ------------------------------------------------------------------------------------------------------

CONFIG = """
[local]
enabled = false
[catalogue]
enabled = false
[providers.a]
adapter = "replicate"
[providers.b]
adapter = "replicate"
[[models]]
name = "acme/up"
[[models.offers]]
provider = "a"
name = "a/up"
price = { per_image = "0.04" }
source = "a.example/pricing"
date = "2026-11"
[[models.offers]]
provider = "b"
name = "b/up"
price = { per_image = "40" }
"""


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> dict[str, Any]:
    assert main(["prices", "check", "--json", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_wrong_unit_in_a_configuration_ends_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.toml").write_text(CONFIG)
    assert main(["prices", "check", "--config", "c.toml"]) == 1
    text = capsys.readouterr().out
    assert "$40.00 per image" in text
    assert "error[unit] acme/up, b: b/up: $40.00 per image is 1,000 times what its nearest sibling costs" in text
    assert "looks like dollars per 1,000 images written per image" in text
    assert "warning[undated] acme/up, b: b/up" in text
    assert "a.example/pricing" in text
    found = told(capsys, "--config", "c.toml", code=1)
    assert (found["errors"], found["warnings"]) == (2, 1), "two that contradict each other"
    assert found["offers"][0]["date"] == "2026-11"


def test_warnings_end_with_1_only_if_asked_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.toml").write_text(CONFIG.replace('"40"', '"0.05"'))
    assert told(capsys, "--config", "c.toml", code=0)["warnings"] == 1
    told(capsys, "--config", "c.toml", "--strict", code=1)


def test_the_shipped_catalogue_has_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "--all", code=0)
    assert found["errors"] == 0
    assert len(found["offers"]) > 150
    units = [(o["offer"], one["code"]) for o in found["offers"] for one in o["findings"] if one["code"] != "unknown"]
    assert ("runpod: gpt-oss-120b", "unit") in units, "a real price that is far off is a warning"


def test_a_mistake_in_the_shipped_catalogue_would_be_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.config import catalogue

    for path in catalogue.SHIPPED.glob("*.toml"):
        text = path.read_text().replace('per_input_token = "0.00000018"', 'per_input_token = "0.18"')
        (folder / path.name).write_text(text)
    monkeypatch.setattr(catalogue, "SHIPPED", folder)
    catalogue._shipped.cache_clear()
    try:
        found = told(capsys, "--all", code=1)
    finally:
        catalogue._shipped.cache_clear()
    assert found["errors"] >= 1


@pytest.mark.parametrize("days", ["0", "-1", "soon"])
def test_an_age_that_is_none_is_a_misuse(days: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prices", "check", "--max-age", days])
    assert ended.value.code == 2


# -- the catalogue's tiers, served ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resolution", "said"), [("480p", "$0.25"), ("720p", "$0.50"), ("1080p", "$0.75")])
def test_a_tier_of_the_catalogue_is_what_a_plan_reckons_with(
    resolution: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "canary")
    given = json.dumps({"prompt": "x", "image": "https://files.example/a.png", "resolution": resolution})
    assert main(["explain", "wan-video/wan-2.5-i2v", "--policy", "cheapest", "--input", given]) == 0
    assert f"{said} expected" in " ".join(capsys.readouterr().out.split())


def test_models_tells_them_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "canary")
    assert main(["models", "wan-2.6"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "$0.10 per video second where resolution 720p" in text
    assert main(["models", "wan-2.6", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    offer = next(offer for offer in model["offers"] if offer["adapter"] == "runpod")
    assert offer["price_tiers"][1] == {"when": {"resolution": "1080p"}, "price": {"per_video_second": "0.15"}}
    assert all("price_tiers" not in other for other in model["offers"] if other is not offer)
