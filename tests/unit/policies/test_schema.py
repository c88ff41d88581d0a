"""The JSON Schema of policy files says what the reader does, and something of every key."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import policies
from gateway.contract.errors import ConfigurationError
from policies.document import File, Policy
from policies.reading import keys_of, read
from policies.schema import json_schema
from tests.policy_table import tables
from tests.unit.policies.json_schema import complaints

ROOT = Path(__file__).parents[3]
SCHEMA = json_schema()
PRESETS = sorted((Path(policies.__file__).parent / "presets").glob("*.toml"))
EXAMPLES = [
    text
    for text in re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "[rank]" in text or "[[policies]]" in text
]


def judged(document: Any) -> list[str]:
    return list(complaints(SCHEMA, document, SCHEMA))


def test_it_is_a_schema_of_the_draft_that_editors_know() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert re.fullmatch(r"urn:[a-z]+:[a-z]+", SCHEMA["$id"])
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert references == SCHEMA["$defs"].keys()


def test_every_key_says_what_it_is() -> None:
    silent = [
        f"{name}.{key}"
        for name, part in SCHEMA["$defs"].items()
        for key, says in part["properties"].items()
        if len(says.get("description", "")) < 10
    ]
    assert silent == []


def test_it_has_every_key_of_the_structs_and_none_that_is_not() -> None:
    kinds = {kind.__name__: kind for _, kind in tables()}
    assert {*kinds, File.__name__} == SCHEMA["$defs"].keys()
    for name, kind in {**kinds, File.__name__: File}.items():
        part = SCHEMA["$defs"][name]
        assert part["properties"].keys() == keys_of(kind).keys()
        assert part["additionalProperties"] is False
        assert part.get("description"), name


@pytest.mark.parametrize("file", PRESETS, ids=[file.stem for file in PRESETS])
def test_the_presets_fit_it(file: Path) -> None:
    assert judged(tomllib.loads(file.read_text())) == []


def test_the_examples_of_the_readme_fit_it() -> None:
    assert len(EXAMPLES) >= 2
    for text in EXAMPLES:
        assert judged(tomllib.loads(text)) == []
        assert read(text, place="README.md")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = 3",
        'nam = "a"',
        'name = "a"\n[keep]\nregoins = ["eu"]',
        'name = "a"\n[keep]\nmax_price = "5 cents"',
        'name = "a"\n[keep]\nmax_price = 0.05',
        'name = "a"\n[keep]\nquality = "ful"',
        'name = "a"\n[keep]\nmin_success = 1.5',
        'name = "a"\n[match.inputs]\nimages = 3',
        'name = "a"\n[match.inputs.images]\nat_most = 3',
        'name = "a"\n[match.inputs.images]\nbelow = -3',
        'name = "a"\n[match.inputs.pixels]\nbelow = 3',
        'name = "a"\n[match]\nhours = { from = "08:00" }',
        'name = "a"\n[[match.hours]]\nfrom = "8:00"',
        'name = "a"\n[[match.hours]]\nsince = "08:00"',
        'name = "a"\n[[match.hours]]\ndays = ["monday"]',
        'name = "a"\n[rank]\nshares = { fal = "most" }',
        'name = "a"\n[rank]\nby = "weighted"\nshares = { fal = -1 }',
        'name = "a"\n[rank]\nby = "weighted"\nshares = { fal = 1 }\nsticky = "session"',
        'name = "a"\n[limits]\nattempts = 2.5',
        'name = "a"\n[limits]\ndeadline_seconds = 0',
        '[[policies]]\nname = "a"\n[policies.keep]\nregoins = ["eu"]',
        'name = "x"\n[[policies]]\nname = "a"',
    ],
)
def test_what_it_refuses_the_reader_refuses_too(text: str) -> None:
    assert judged(tomllib.loads(text)) != []
    with pytest.raises(ConfigurationError):
        read(text, place="p.toml")


def test_a_policy_with_everything_in_it_fits_both() -> None:
    text = (
        'name = "a"\n[match]\nmodels = ["x/*"]\n[match.labels]\ntier = "free"\n'
        "[match.inputs]\nvideo_seconds = { at_least = 0.5, below = 8 }\n"
        '[[match.hours]]\ndays = ["mon", "sun"]\nfrom = "22:00"\nto = "24:00"\nzone = "Europe/Berlin"\n'
        '[keep]\nmax_price = "$1"\nunknown_price = "drop"\nquality = "full"\nversion = "equivalent"\n'
        '[rank]\nby = "weighted"\nshares = { fal = 90, "fal#2" = 2.5 }\nsticky = "label:session"\n'
    )
    assert judged(tomllib.loads(text)) == []
    assert isinstance(read(text, place="p.toml")[0], Policy)
