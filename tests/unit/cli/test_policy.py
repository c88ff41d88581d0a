"""`turnout policy`: files by themselves and against a configuration, each fault with its line, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from policies.schema import json_schema

CONFIG = """
[catalogue]
enabled = false
[providers.house]
adapter = "replicate"
base_url = "https://house.internal/v1"
[[models]]
name = "acme/flux"
[[models.offers]]
provider = "house"
name = "house/flux"
[[models.offers]]
provider = "house"
name = "house/other"
[policies]
files = ["rules"]
"""
NIGHT = """name = "night"
[match]
models = ["acme/*"]
labels = { tier = "free" }
inputs.images = { at_least = 2 }
hours = [{ days = ["fri"], from = "22:00", to = "06:00" }]
"""
MANY = """[[policies]]
name = "all"
[[policies]]
name = "after"
[policies.fallback]
provider = "huose"
[[policies]]
name = "last"
[policies.rank]
by = "weighted"
shares = { "house#2" = 1, "house#3" = 1 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "10-night.toml").write_text(NIGHT)
    (rules / "20-many.toml").write_text(MANY)
    (tmp_path / "house.toml").write_text(CONFIG)
    return tmp_path


def test_files_are_checked_without_a_configuration_and_told_in_the_order_they_are_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "rules"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        "files: 2, policies: 4, nothing wrong",
        "Where nothing names a policy, the first of these that matches holds:",
        "  1. night  models acme/*; label tier=free; images from 2; fri 22:00–06:00 UTC",
        "  2. all    everything",
        "  3. after  everything",
        "  4. last   everything",
        "note: rules/20-many.toml:1: policy all matches everything: after and last after it are never asked",
    ]


def test_their_order_is_that_of_the_arguments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "rules/20-many.toml", "rules/10-night.toml"]) == 0
    assert "all matches everything: after, last and night after it are never asked" in capsys.readouterr().out


def test_with_a_configuration_it_notes_who_is_not_there_with_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "rules", "--config", "house.toml"]) == 0
    said = capsys.readouterr().out
    assert "  else balanced\n" in said
    assert (
        'note: rules/20-many.toml:6: policy after names "huose", which is not configured; did you mean "house"?' in said
    )
    assert 'note: rules/20-many.toml:11: policy last names "house#3", and no model has so many offers of house' in said
    assert "house#2" not in said


def test_without_files_those_of_the_configuration_are_meant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "--config", "house.toml"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("files: 2, policies: 4, nothing wrong\n")
    assert f"note: {folder / 'rules' / '20-many.toml'}:6: policy after" in said


def test_everything_that_is_wrong_in_any_file_is_a_line_and_the_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rules" / "10-night.toml").write_text(NIGHT.replace("hours", "ours").replace("models", "model"))
    (folder / "rules" / "30-more.toml").write_text('name = "all"\n')
    assert main(["policy", "check", "rules", "absent.toml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        'turnout: rules/10-night.toml:3: match.model: unknown key "model"; did you mean "models"?',
        'turnout: rules/10-night.toml:6: match.ours: unknown key "ours"; did you mean "hours"?',
        'turnout: rules/30-more.toml: policy "all" is there already, in rules/20-many.toml; '
        "give one of them another name",
        "turnout: absent.toml: it cannot be read (No such file or directory); correct the path",
    ]


@pytest.mark.parametrize("words", [["rules"], ["--config", "house.toml"]])
def test_a_bad_file_is_1_with_and_without_a_configuration(folder: Path, words: list[str]) -> None:
    (folder / "rules" / "10-night.toml").write_text('name = "night"\n[rank]\nby = "prise"\n')
    assert main(["policy", "check", *words]) == 1


def test_a_preset_cannot_be_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.toml").write_text('name = "cheapest"\n')
    assert main(["policy", "check", "mine.toml"]) == 1
    assert 'mine.toml: policy "cheapest" is there already, in ' in capsys.readouterr().err


def test_a_folder_without_policies_is_a_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()
    assert main(["policy", "check", "empty", "rules"]) == 1
    assert capsys.readouterr().err == "turnout: empty: no *.toml is in it; name where they are\n"


def test_a_broken_configuration_is_told_as_check_tells_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "house.toml").write_text(CONFIG.replace("[providers.house]", "[providers.hose]"))
    assert main(["policy", "check", "rules", "--config", "house.toml"]) == 1
    told = capsys.readouterr().err
    assert main(["check", "--config", "house.toml"]) == 2
    assert capsys.readouterr().err == told != ""


def test_the_schema_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(json_schema()))
