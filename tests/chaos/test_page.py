"""README.md: what it tells one to type exists, and every run finds the part that it writes its figures into."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from tests.chaos.bars import __main__ as bars
from tests.chaos.bars.place import Bar
from tests.chaos.figures import write_figures

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
    *(bars.part_of(name) for name in bars.BARS),
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


def test_a_bar_that_is_measured_alone_leaves_the_others_figures_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text(PAGE, "utf-8")
    monkeypatch.setattr(bars, "write_figures", partial(write_figures, page=page))
    monkeypatch.setitem(bars.BARS, "herd", lambda folder: Bar("a herd", False, "too many came", {"peak": 3}))
    monkeypatch.setattr("sys.argv", ["bars", "--only", "herd", "--write"])
    assert bars.main() == 1
    before, after = _parts(PAGE), _parts(page.read_text("utf-8"))
    written = after.pop("bars: herd")
    assert "**Missed**, a herd: too many came.\n\n- peak: 3\n" in written
    assert "`python -m tests.chaos.bars --only herd`" in written
    del before["bars: herd"]
    assert after == before


def _parts(page: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- figures of (.+?): begin -->(.*?)<!-- figures of \1: end -->", page, re.DOTALL))
