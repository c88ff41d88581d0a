"""What the README shows can be loaded, and what it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import _parser
from gateway.config.catalogue import read_catalogue
from gateway.config.load import parse
from gateway.contract.provider import Adapter
from gateway.routing.catalog import read_price
from gateway.routing.unit import price_for
from policies.reading import read
from tests import policy_table, provider_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def block(containing: str) -> str:
    found = [text for text in BLOCKS if containing in text]
    assert len(found) == 1
    return found[0]


def test_the_first_configuration_loads(tmp_path: Path) -> None:
    (tmp_path / "upscaler.json").write_text('{"Input": {"properties": {"image": {"type": "string"}}}, "Output": {}}')
    text = block("[keys.app]").replace("sha256:…", "sha256:" + "0" * 64)
    loaded = parse(text, place="README.md", folder=tmp_path, environ={"REPLICATE_UPSTREAM_TOKEN": "r8_x"})
    assert [offer.provider for offer in loaded.config.models[0].offers] == ["replicate", "gpu"]


def test_the_policy_is_one() -> None:
    (policy,) = read(block('name = "thrifty"'), place="README.md")
    assert (policy.name, len(policy.match.hours)) == ("thrifty", 2)
    (canary,) = read(block('name = "canary"'), place="README.md")
    assert canary.rank.shares == {"fal": 90, "replicate#2": 10}


def test_the_keys_of_a_policy_are_those_that_the_structs_have() -> None:
    assert policy_table.text() in README, "python -m tests.policy_table --write writes them anew"


def test_the_tiers_are_some(tmp_path: Path) -> None:
    text = '[providers.studio]\nadapter = "fal"\n[[models]]\nname = "studio/film"\n' + block("price_tiers")
    (offer,) = parse(text, place="README.md", folder=tmp_path, environ={}).config.models[0].offers
    price = read_price(offer.price, offer.price_tiers, place="README.md")
    assert price_for(price, {"size": "1920x1080", "sound": True}).per_video_second == 600_000_000
    assert price_for(price, {"resolution": "720p", "sound": False}).per_video_second == 200_000_000


def test_every_block_of_toml_is_toml() -> None:
    assert BLOCKS
    for text in BLOCKS:
        tomllib.loads(text)


def test_every_command_it_lists_is_there() -> None:
    for command in re.findall(r"^\| `turnout (\w+)", README, re.MULTILINE):
        with pytest.raises(SystemExit) as ended:
            _parser([command]).parse_args([command, "--help"])
        assert ended.value.code == 0


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:gateway|providers|local_backend|policies|tests)/[\w./]+)`", README))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_table_of_providers_is_what_the_adapters_declare() -> None:
    assert provider_table.table() in README, "python -m tests.provider_table prints it anew"


def test_the_catalogue_is_as_large_as_it_says() -> None:
    models = read_catalogue(()).models.values()
    offers = [offer for model in models for offer in model.offers if offer.adapter]
    adapters = [{offer.adapter for offer in model.offers if offer.adapter} for model in models]
    two_tokens = {"fal", "replicate"}
    figures = (
        f"{len(models)} popular models",
        f"{len(offers)} offers",
        f"{len(set().union(*adapters) - {'local'})} providers",
        f"{sum(len(names) > 1 for names in adapters)} of them at two or more",
        f"{sum(bool(names & two_tokens) for names in adapters)} are served",
        f"{sum(names >= two_tokens for names in adapters)} of them by both",
    )
    words = " ".join(README.split())
    assert [figure for figure in figures if figure not in words] == []


def test_every_picture_it_shows_is_there() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert shown
    for path in shown:
        assert (ROOT / path).stat().st_size < 400_000, path


def test_every_link_within_leads_somewhere() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", prose)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        assert path or anchor in anchors, link


def test_the_newcomers_adapter_is_one() -> None:
    (code,) = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Acme(" in text]
    names: dict[str, Any] = {"__name__": "acme_turnout"}
    exec(compile(code, "README.md", "exec"), names)
    assert isinstance(names["Acme"](), Adapter)
