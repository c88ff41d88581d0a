from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from gateway.cli import main

SERVED = """
[catalogue]
enabled = false
[server]
public_url = "https://turnout.example"
[providers.replicate]
token = "env:TOKEN"
[providers.house]
adapter = "replicate"
base_url = "https://house.internal/v1"
region = "eu"
[providers.idle]
adapter = "cog"
callbacks = false

[[models]]
name = "acme/flux"
policy = "cheapest"
[[models.offers]]
provider = "replicate"
name = "black-forest-labs/flux-schnell"
price = { per_image = "0.003" }
[[models.offers]]
provider = "house"
name = "house/flux"
price = { per_prediction = "0.0001", per_second = "0.000725" }
concurrency = 5
[[models.offers]]
provider = "house"
name = "house/other"
[policies]
files = ["rules.toml"]
"""
RULES = """
name = "ours"
[keep]
without = ["hose"]
max_price = "0.05"
[limits]
pay_twice_up_to = "0.01"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKEN", "r8_canary")
    (tmp_path / "rules.toml").write_text(RULES)
    path = tmp_path / "turnout.toml"
    path.write_text(SERVED)
    return path


def rows(text: str) -> list[str]:
    return [" | ".join(part.strip() for part in line.split("  ") if part.strip()) for line in text.splitlines()]


def test_it_says_what_would_be_served(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(file)]) == 0
    said = rows(capsys.readouterr().out)
    assert f"{file}: 2 models, 4 providers" in said
    assert "acme/flux | replicate: black-forest-labs/flux-schnell | $0.003 per image | cheapest" in said
    assert "house: house/flux, at most 5 at once | $0.0001 per prediction + $0.000725 per second | eu" in said
    assert "house: house/other | unknown | eu" in said
    assert "turnout/upscaler | local: turnout/upscaler, fallback | $0.00 per prediction" in said
    assert (
        "replicate | replicate | https://api.replicate.com/v1 | present (env:TOKEN) | "
        "without webhook_secret: only nudges" in said
    )
    assert "idle | cog | http://127.0.0.1:5000 | none | none" in said
    assert (
        "balanced (default) | 1 cost + 1 latency + 1 health | all | 4 attempts, 3600 s, may pay twice up to $0.05"
        in said
    )
    assert "ours | 1 cost + 1 latency + 1 health | without hose; up to $0.05 | 4 attempts, 3600 s, " in "\n".join(said)


def test_it_notes_what_is_allowed_and_seldom_meant_and_shows_no_secret(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", "--config", str(file)])
    said = capsys.readouterr().out
    assert "note: provider idle is used by no offer" in said
    assert "note: no price for acme/flux@house#2" in said
    assert 'note: policy ours names "hose", which is not configured; did you mean "house"?' in said
    assert "canary" not in said


def test_every_adapter_and_package_that_cannot_be_had_is_a_line_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "package.toml").write_text("name = ")
    file = tmp_path / "t.toml"
    file.write_text(
        '[providers.a]\nadapter = "replicat"\n[providers.nobody]\n[local]\npackages = ["broken"]\n', encoding="utf-8"
    )
    assert main(["check", "--config", str(file)]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert len(lines) == 3
    assert lines[0].startswith(f"turnout: {file}:2: providers.a.adapter: no adapter is called 'replicat'")
    assert lines[1].startswith(f"turnout: {file}:3: providers.nobody: no adapter is called 'nobody'")
    assert str(tmp_path / "broken" / "package.toml") in lines[2]


def test_nothing_configured_is_the_bundled_model_on_the_local_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    said = rows(capsys.readouterr().out)
    assert "built-in defaults: 1 model, 1 provider" in said
    assert "turnout/upscaler | local: turnout/upscaler, fallback | $0.00 per prediction" in said
    assert list(tmp_path.iterdir()) == [], "it starts nothing and leaves nothing"


UNUSABLE = """
[store]
url = "sqlite:///{store}"
[artifacts]
path = "{artifacts}"
"""


def unusable(tmp_path: Path, **paths: str) -> tuple[Path, str]:
    """A configuration with a plain file `full` beside it, and the path of that."""
    (tmp_path / "full").write_text("not a folder, and no database either")
    file = tmp_path / "t.toml"
    file.write_text(UNUSABLE.format(**{"store": "turnout.db", "artifacts": "artifacts", **paths}))
    return file, str(tmp_path / "full")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_folders_that_cannot_be_used_are_a_line_each_before_anything_starts(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, full = unusable(tmp_path, store="full/a/b.db", artifacts="full/b")
    before = sorted(tmp_path.iterdir())
    assert main([command, "--config", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"turnout: {file}:3: store.url: {full}/a cannot be made: {full} cannot be written (Not a directory); "
        "name a file in a folder that this user can write",
        f"turnout: {file}:5: artifacts.path: {full}/b cannot be made: {full} cannot be written (Not a directory); "
        "name a folder that this user can make or write in",
    ]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("full", "full is no SQLite database; name a file in a folder that this user can write"),
        (".", "cannot be opened for writing (Is a directory); name a file in a folder that this user can write"),
    ],
)
def test_a_store_that_is_none_is_told_with_its_line(
    command: str, store: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = unusable(tmp_path, store=store)
    assert main([command, "--config", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"turnout: {file}:3: store.url: {tmp_path}")
    assert line.endswith(said)


def test_folders_are_told_beside_what_else_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, full = unusable(tmp_path, artifacts="full")
    file.write_text(file.read_text() + "[providers.nobody]\n")
    assert main(["check", "--config", str(file)]) == 2
    nobody, artifacts = capsys.readouterr().err.splitlines()
    assert nobody.startswith(f"turnout: {file}:6: providers.nobody: no adapter")
    assert artifacts.startswith(f"turnout: {file}:5: artifacts.path: {full} cannot be written")


def test_a_store_in_use_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, _ = unusable(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "turnout.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        assert main(["check", "--config", str(file)]) == 0
    assert capsys.readouterr().err == ""


def test_an_offer_of_the_local_backend_may_be_written_down_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(
        '[[models]]\nname = "acme/up"\n[[models.offers]]\nprovider = "local"\nname = "turnout/upscaler"\n'
        'price = { per_prediction = "0" }\n'
    )
    assert main(["check", "--config", str(file)]) == 0
    assert "acme/up | local: turnout/upscaler | $0.00 per prediction" in rows(capsys.readouterr().out)


MISFITS = """
[providers.fal]
token = "env:KEY"
sites = { snyc = "https://fal.internal", sync = "https://fal.run" }
[providers.bedrock.credentials]
access_key_id = "env:KEY"
[providers.elevenlabs.credentials]
tokn = "env:KEY"
[providers.cog]
sites = { sync = "https://cog.internal" }
"""


@pytest.mark.parametrize("command", ["check", "serve"])
def test_credentials_and_sites_that_an_adapter_has_no_use_for_are_a_line_each(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEY", "canary")
    file = tmp_path / "t.toml"
    file.write_text(MISFITS)
    assert main([command, "--config", str(file), *(("--port", "0") if command == "serve" else ())]) == 2
    said = capsys.readouterr().err
    assert said.splitlines() == [
        f'turnout: {file}:4: providers.fal.sites.snyc: the adapter has no such site; did you mean "sync"?',
        f"turnout: {file}:5: providers.bedrock.credentials: its credentials are not complete; "
        "it takes token or else access_key_id, secret_access_key",
        f"turnout: {file}:8: providers.elevenlabs.credentials.tokn: unknown credential 'tokn'; did you mean 'token'?",
        f"turnout: {file}:10: providers.cog.sites.sync: the adapter has no such site; leave it out",
    ]
    assert "canary" not in said


def test_options_of_an_offer_that_its_adapter_has_no_use_for_are_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(
        '[providers.fal]\n[[models]]\nname = "acme/x"\n[[models.offers]]\nprovider = "fal"\nname = "x"\n'
        "options = { snyc = true }\n"
    )
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"turnout: {file}:7: models[0].offers[0].options: options of adapter fal: "
        "unknown key 'snyc'; did you mean 'sync'?"
    ]


def test_providers_from_the_environment_are_told_and_the_catalogue_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAL_KEY", "id:canary")
    assert main(["check"]) == 0
    said = capsys.readouterr().out
    assert "fal | fal | https://queue.fal.run | found (env:FAL_KEY) | no public_url, polled" in rows(said)
    assert re.search(r"and [3-9][0-9] models of the catalogue: `turnout models` lists them", said)
    assert "canary" not in said


def test_an_exporter_that_is_not_installed_is_told_before_it_keeps_the_gateway_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "zipper")
    assert main(["check"]) == 2
    said = 'OTEL_METRICS_EXPORTER: no exporter "zipper" is installed'
    assert capsys.readouterr().err.startswith(f"turnout: {said}; ")
    assert main(["doctor"]) == 1
    assert re.search(rf"^fail telemetry +{re.escape(said)} → ", capsys.readouterr().out, re.MULTILINE)


def test_it_shows_the_order_in_which_policies_are_asked_and_which_never_are(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "rules.toml").write_text(
        '[[policies]]\nname = "free"\n[policies.match]\nlabels = { tier = "free" }\n'
        '[[policies]]\nname = "rest"\n[policies.rank]\nby = "weighted"\nshares = { house = 1 }\nsticky = "key"\n'
        '[[policies]]\nname = "late"\n'
    )
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert "  1. free  label tier=free\n  2. rest  everything\n  3. late  everything\n  else balanced\n" in said
    assert "note: policy rest matches everything: late after it is never asked" in said
    assert "rest | 1 house, sticky by key | all | " in "\n".join(rows(said))


def test_quality_and_equivalence_are_shown_and_a_class_of_one_version_is_noted(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SERVED.replace('name = "house/other"', 'name = "house/other"\nquality = "reduced"\nequivalent = "fast"')
    file.write_text(text)
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert "reduced quality, equivalent" in said
    assert 'note: equivalent = "fast" joins no two versions of acme/flux' in said
    file.write_text(text.replace('quality = "reduced"', 'quality = "poor"'))
    assert main(["check", "--config", str(file)]) == 2
    assert 'offers[2].quality: "poor" is not known; known here: full, reduced' in capsys.readouterr().err
