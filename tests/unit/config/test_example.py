"""`config.example.toml` is the documentation: every key is there, with its default, and a sentence."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.load import load, parse
from gateway.config.model import Config
from gateway.config.shape import is_struct

ROOT = Path(__file__).parents[3]
WRITTEN = (ROOT / "config.example.toml").read_text()
# A "#" without a space after it is an example; with one it is prose.
UNCOMMENTED = "\n".join(re.sub(r"^#(?=\S)", "", line) for line in WRITTEN.splitlines())
KEY = re.compile(r"^(?P<name>[a-z_]+) = (?P<value>.*?)(?:  # default: (?P<default>.+))?$")


def structs(kind: Any, path: str = "") -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Every Struct of the model with the header of its table: ("models.offers", OfferSection)."""
    if is_struct(kind):
        yield path, kind
        for name, hint in typing.get_type_hints(kind).items():
            yield from structs(hint, f"{path}.{name}".lstrip("."))
    else:
        for argument in typing.get_args(kind):
            yield from structs(argument, path)


def sections() -> dict[str, dict[str, Any]]:
    """header → key → the default it states, as written on its line or beside it."""
    found: dict[str, dict[str, Any]] = {}
    header = ""
    for line in UNCOMMENTED.splitlines():
        if line.startswith("["):
            header = re.sub(r"^((?:keys|providers))\.[a-z]+$", r"\1", line.strip("[]"))
        elif key := KEY.match(line):
            stated = key["default"] or key["value"]
            found.setdefault(header, {})[key["name"]] = tomllib.loads(f"x = {stated}")["x"]
    return found


ALL = [(path, kind) for path, kind in structs(Config) if path]


def test_the_model_is_seen_whole() -> None:
    assert [path for path, _ in ALL] == [
        "server",
        "store",
        "retention",
        "artifacts",
        "keys",
        "webhooks",
        "providers",
        "catalogue",
        "models",
        "models.offers",
        "models.offers.price_tiers",
        "models.offers.input",
        "models.offers.output",
        "policies",
        "local",
        "telemetry",
        "dashboard",
    ]


@pytest.mark.parametrize(("path", "kind"), ALL, ids=[path for path, _ in ALL])
def test_every_key_is_there_with_exactly_its_default(path: str, kind: type[msgspec.Struct]) -> None:
    stated = sections()[path]
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind) if not is_struct(hints[field.name])}
    fields = {name: field for name, field in fields.items() if name not in ("offers", "price_tiers")}
    assert stated.keys() == fields.keys()
    for name, field in fields.items():
        if field.required:
            continue
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        assert msgspec.convert(stated[name], hints[name]) == default, name


def test_every_key_has_a_sentence_above_it() -> None:
    lines = WRITTEN.splitlines()
    bare = []
    for number, line in enumerate(lines):
        if KEY.match(line.removeprefix("#")):
            above = number - 1
            while KEY.match(lines[above].removeprefix("#")) and not lines[above].startswith("# "):
                above -= 1
            if not lines[above].startswith("# "):
                bare.append(line)
    assert bare == []


def test_as_it_stands_it_says_what_holds_without_it(tmp_path: Path) -> None:
    assert load(ROOT / "config.example.toml", environ={}).config == Config()


def test_its_examples_can_be_used_as_they_are(tmp_path: Path) -> None:
    environ = {"REPLICATE_API_TOKEN": "r8_canary"}
    config = parse(UNCOMMENTED, place="config.example.toml", folder=tmp_path, environ=environ).config
    assert config.models[0].offers[0].provider == "replicate"
    assert config.models[0].offers[0].price == {"per_second": "0.000225"}
    assert list(config.keys) == ["app"]
    assert config.providers["replicate"].token == "env:REPLICATE_API_TOKEN"
    with pytest.raises(Exception, match="REPLICATE_API_TOKEN is not set"):
        parse(UNCOMMENTED, place="config.example.toml", folder=tmp_path, environ={})


def test_every_line_of_it_fits_a_terminal() -> None:
    assert [line for line in WRITTEN.splitlines() if len(line) > 120] == []
