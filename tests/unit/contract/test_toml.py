from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.toml import Lines

ROOT = Path(__file__).parents[3]

HARD = """\
# a comment with [brackets] = "and quotes"
title = "one"            # line 2

[server]
port = 1
text = \"\"\"
[not.a.table]
port = 2 \\\"\"\"
\"\"\"
raw = '''
x = 'y'
''' # 12
"quoted key" = 'single'
a.b.c = { d = 1, e = [ {f = 2},
   { f = 3 } ] }

[[models]]
name = "x"
list = [
  1, # one
  2,
  "]",
]
[[models.offers]]
provider = "p"
[models.offers.input.set]
k = 1
[[models.offers]]
provider = "q"
[[models]]
name = "y"
[[models.offers]]
provider = "r"
[keys . "my key"]
hash = ""
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("server",), 4),
        (("server", "port"), 5),
        (("server", "raw"), 10),
        (("server", "quoted key"), 13),
        (("server", "a", "b", "c", "d"), 14),
        (("server", "a", "b", "c", "e", 1, "f"), 15),
        (("models", 0, "name"), 18),
        (("models", 0, "list", 1), 21),
        (("models", 0, "list", 2), 22),
        (("models", 0, "offers", 0, "provider"), 25),
        (("models", 0, "offers", 0, "input", "set", "k"), 27),
        (("models", 0, "offers", 1, "provider"), 29),
        (("models", 1), 30),
        (("models", 1, "name"), 31),
        (("models", 1, "offers", 0, "provider"), 33),
        (("keys", "my key", "hash"), 35),
    ],
)
def test_a_key_is_found_on_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert Lines(HARD).of(path) == line


def test_what_is_missing_is_said_where_it_should_stand() -> None:
    assert Lines(HARD).of(("models", 1, "offers", 0, "name")) == 32
    assert Lines(HARD).of(("nothing", "of", "it")) == 1
    assert Lines("").of(()) == 1


def test_what_is_not_written_at_all_is_known_to_be_so() -> None:
    lines = Lines(HARD)
    assert [lines.has(path) for path in (("server", "port"), ("server", "nothing"), ("nothing",), ())] == [
        True, True, False, False,
    ]  # fmt: skip


def test_every_key_of_the_example_is_found_on_a_line_that_names_it() -> None:
    text = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith(("# ", "#\n")) else line
        for line in (ROOT / "config.example.toml").read_text().splitlines()
    )
    lines, written = Lines(text), text.splitlines()
    paths = list(paths_of(tomllib.loads(text)))
    assert len(paths) > 60
    for path in paths:
        assert str(path[-1]) in written[lines.of(path) - 1]


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name)
            yield from paths_of(item, (*path, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield from paths_of(item, (*path, index))


@given(st.text(alphabet="abc[]{}=\"'\\#.,\n 1", max_size=60))
def test_no_text_makes_it_hang_or_break(text: str) -> None:
    assert 1 <= Lines(text).of(("a", "b")) <= text.count("\n") + 1
