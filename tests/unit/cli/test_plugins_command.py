"""`turnout plugins`: who is installed and what it can do; a broken one is a line, and no crash."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.plugins import installed_adapters


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    main(["plugins", "--json"])
    return {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)["plugins"]}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three packages of others that cannot be used, each for another reason."""
    sources = {
        "shattered": "import no_such_module_at_all\n",
        "old": "class Plugin:\n    spec_version = 0\n    def __init__(self, *a): pass\n",
        "halved": "class Plugin:\n    spec_version = 1\n    def __init__(self, *a): pass\n",
    }
    for name, source in sources.items():
        folder = tmp_path / f"{name}_dist-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[turnout.adapters]\n{name} = {name}_turnout:Plugin\n")
        (tmp_path / f"{name}_turnout.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"{name}_turnout", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_each_says_what_it_can_do_and_where_its_credentials_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    plugins = told(capsys)
    assert plugins.keys() == {adapter.name for adapter in installed_adapters()}
    fal = plugins["fal"]
    assert fal["credentials"] == [["FAL_KEY"]]
    assert (fal["callbacks"], fal["signature"], fal["cost"]) == ("signed", "ed25519_keys", "units")
    assert fal["modes"] == ["queue", "sync"]
    assert fal["inputs"] == ["data", "upload", "url"]
    assert fal["results"] == ["data", "json", "url"]
    assert (fal["result_lifetime_seconds"], fal["min_poll_seconds"]) == (604_800, 0.5)
    assert plugins["cog"]["min_poll_seconds"] is None
    assert fal["distribution"] == "turnout"
    assert fal["thin"]
    assert fal["title"].startswith("fal.ai:")
    assert plugins["bedrock"]["credentials"] == [
        ["AWS_BEARER_TOKEN_BEDROCK"],
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    ]
    assert not plugins["replicate"]["thin"]
    assert all(plugin["wrong"] == "" for plugin in plugins.values())


def test_the_table_names_them_all_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:canary")
    assert main(["plugins"]) == 0
    said = capsys.readouterr().out
    assert all(adapter.name in said for adapter in installed_adapters())
    assert "canary" not in said


def test_broken_ones_are_told_why_and_the_others_are_listed_all_the_same(
    broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins"]) == 1
    said = capsys.readouterr().out
    assert "runpod" in said
    assert "shattered: adapter shattered of shattered-dist: it cannot be loaded (ModuleNotFoundError: No module" in said
    assert (
        "old: adapter old of old-dist: it speaks version 0 of the adapter contract, and this Turnout version 1" in said
    )
    assert "halved: adapter halved of halved-dist: it lacks auth" in said
    plugins = told(capsys)
    assert plugins["shattered"]["wrong"]
    assert plugins["shattered"]["version"] == "1.0"
