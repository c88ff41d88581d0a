"""README.md: what it tells one to type exists, and every run finds the part that it writes its figures into."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("README.md").read_text("utf-8")
COMMANDS = re.findall(r"^    python -m (tests\.chaos\S*)(.*)$", PAGE, re.MULTILINE)
MODULES = sorted({module for module, _ in COMMANDS})
PARTS = {
    "universes on sqlite",
    "universes on redis",
    "power cuts",
    "points on sqlite",
    "points on redis",
    "kills: gateway on sqlite",
    "kills: gateway on redis",
    "kills: redis, appendfsync everysec",
    "kills: redis, appendfsync always",
    "kills: pause",
    "kills: disk on sqlite",
    "kills: disk on redis",
    "kills: clock on sqlite",
    "bars",
}


def test_every_kind_of_run_has_a_part_of_its_own() -> None:
    begun = Counter(re.findall(r"<!-- figures of (.+?): begin -->", PAGE))
    ended = Counter(re.findall(r"<!-- figures of (.+?): end -->", PAGE))
    assert begun == ended == Counter(PARTS)


def test_it_names_a_command_of_each_kind() -> None:
    kinds = ("", ".bars", ".kills", ".points", ".power")
    assert [f"tests.chaos{kind}" for kind in kinds] == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_the_commands_that_it_names_take_what_it_gives_them(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        import_module(f"{module}.__main__").main()
    assert ended.value.code == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    given = {option for name, line in COMMANDS if name == module for option in re.findall(r"--[a-z-]+", line)}
    assert given <= known
