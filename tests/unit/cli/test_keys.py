from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main
from gateway.config.load import parse
from gateway.contract.key import hash_key


def test_a_new_key_is_alone_on_standard_output_and_its_section_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "--name", "Team_7"]) == 0
    said = capsys.readouterr()
    key = said.out.strip()
    assert said.out == f"{key}\n"
    assert key.startswith("to_team-7_")
    assert key not in said.err
    section = said.err[said.err.index("[keys.") :]
    loaded = parse(section, place="turnout.toml", folder=tmp_path, environ={})
    assert loaded.config.keys["Team_7"].hash == hash_key(key)


def test_no_two_keys_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(5):
        main(["keys", "new"])
        keys.add(capsys.readouterr().out)
    assert len(keys) == 5


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-a", "x" * 65, 'a"]'])
def test_a_name_that_is_no_name_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", f"--name={name}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("turnout: --name: ")
    assert len(said.err.splitlines()) == 1
