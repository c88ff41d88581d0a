"""
One runner for all adapters over their recordings: data under `recordings/<provider>/*.json`.

A recording is a conversation: each step says what the adapter has to send, what came back, and what that has to mean.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import providers
from gateway.contract.provider import Adapter
from gateway.testing.recording import CASES, missing_cases, play, read_recording, recordings

RECORDINGS = Path(__file__).parent / "recordings"
FILES = [path for folder in sorted(RECORDINGS.iterdir()) if folder.is_dir() for path in recordings(folder)]


def public_adapters() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(providers.__path__) if not module.name.startswith("_"))


@pytest.mark.parametrize("name", public_adapters())
def test_every_adapter_has_every_case_or_says_why_not(name: str) -> None:
    assert missing_cases(RECORDINGS / name) == set()


def test_an_adapter_without_recordings_is_found_out(tmp_path: Path) -> None:
    assert missing_cases(tmp_path / "newcomer") == set(CASES)


def test_a_case_is_not_excused_without_a_reason(tmp_path: Path) -> None:
    (tmp_path / "INDEX.json").write_text(json.dumps({"not_applicable": dict.fromkeys(CASES, "no")}))
    assert missing_cases(tmp_path) == set(CASES)


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"case": "success", "kind": "guessed", "source": "x", "steps": []}))
    with pytest.raises(ValueError, match=r"odd\.json"):
        missing_cases(tmp_path)


@pytest.mark.parametrize("name", public_adapters())
def test_every_public_module_holds_an_adapter_of_the_protocol(name: str) -> None:
    adapter = build(RECORDINGS / name, {})
    assert isinstance(adapter, Adapter)
    assert adapter.name == name
    assert type(adapter).__module__ == f"providers.{name}"


def test_every_folder_belongs_to_an_adapter() -> None:
    assert sorted(path.name for path in RECORDINGS.iterdir() if path.is_dir()) == public_adapters()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recording_is_understood(path: Path) -> None:
    recording = read_recording(path)
    play(build(path.parent, recording.options), recording)


def build(folder: Path, options: dict[str, Any]) -> Adapter:
    """The adapter of a folder. Its INDEX.json may hold `options` that it cannot be made without."""
    index = json.loads((folder / "INDEX.json").read_text())
    where, _, what = index["adapter"].partition(":")
    adapter: Adapter = getattr(importlib.import_module(where), what)(options={**index.get("options", {}), **options})
    return adapter
