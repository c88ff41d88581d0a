"""What the README shows can be loaded, and what it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gateway.cli import _parser
from gateway.config.load import parse
from policies.reading import read

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
    (policy,) = read(block("[rank]"), place="README.md")
    assert policy.name == "thrifty"


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
