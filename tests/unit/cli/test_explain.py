from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main

SCHEMA = {
    "Input": {
        "type": "object",
        "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}, "num_outputs": {"type": "integer", "default": 4}},
    }
}
SERVED = """
[providers.cheap]
adapter = "replicate"
[providers.dear]
adapter = "replicate"
[[models]]
name = "acme/flux"
schema = "flux.json"
[[models.offers]]
provider = "dear"
name = "d/flux"
price = { per_image = "0.03" }
[[models.offers]]
provider = "cheap"
name = "c/flux"
price = { per_image = "0.003" }
[[models.offers]]
provider = "cheap"
name = "c/old"
version = "VERSION"
[policies]
files = ["frugal.toml"]
""".replace("VERSION", "f" * 64).replace('schema = "flux.json"', f'schema = "flux.json"\nversion = "{"a" * 64}"')
FRUGAL = 'name = "frugal"\n[keep]\nmax_price = "0.05"\n[rank]\nby = "cost"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "frugal.toml").write_text(FRUGAL)
    (tmp_path / "flux.json").write_text(json.dumps(SCHEMA))
    path = tmp_path / "turnout.toml"
    path.write_text(SERVED)
    return path


def explained(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> dict[str, Any]:
    assert main(["explain", "acme/flux", "--json", "--config", str(file), *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_plan_comes_with_costs_and_a_reason_for_each_candidate(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = explained(capsys, file, "--policy", "frugal", "--input", '{"prompt": "x", "num_outputs": 1}')
    assert [(c["offer"], c["kept"], c["expected_nanos"]) for c in plan["choices"]] == [
        ("acme/flux@cheap", True, 3_000_000),
        ("acme/flux@dear", True, 30_000_000),
        ("acme/flux@cheap#2", False, None),
    ]
    assert plan["choices"][2]["reasons"][0]["code"] == "version"
    assert all(choice["reasons"] for choice in plan["choices"])
    assert (plan["policy"], plan["max_attempts"], plan["input_problems"]) == ("frugal", 4, [])


def test_the_models_defaults_count_where_the_input_says_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = explained(capsys, file, "--policy", "frugal", "--input", '{"prompt": "x"}')
    dear = next(choice for choice in plan["choices"] if choice["offer"] == "acme/flux@dear")
    assert dear["expected_nanos"] == 120_000_000, "four images, by the schema"
    assert not dear["kept"]


def test_an_input_that_would_be_refused_is_explained_and_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = explained(capsys, file, "--input", '{"num_outputs": "many"}')
    assert len(plan["input_problems"]) == 2
    assert plan["choices"]


def test_a_pinned_version_is_only_served_by_its_own_offer(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"acme/flux:{'f' * 64}", "--json", "--config", str(file)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [choice["offer"] for choice in plan["choices"] if choice["kept"]] == ["acme/flux@cheap#2"]


def test_the_table_shows_the_order_and_why(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "acme/flux", "--policy", "frugal", "--config", str(file), "--input", '{"prompt":"x"}']) == 0
    said = capsys.readouterr().out
    assert "acme/flux, policy frugal: 1 of 3 candidates kept" in said
    assert "dropped: $0.12 expected, at most $0.05" in said
    assert "Tried in this order, 1 attempt at most." in said


def test_a_plan_without_a_candidate_says_so(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frugal.toml").write_text(FRUGAL.replace("0.05", "0.0001"))
    main(["explain", "acme/flux", "--policy", "frugal", "--config", str(file), "--input", '{"prompt":"x"}'])
    assert "No candidate is left: such a prediction would fail." in capsys.readouterr().out


def test_asked_twice_it_answers_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, file) == explained(capsys, file)


def test_input_may_lie_in_a_file(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "input.json").write_text('{"prompt": "x", "num_outputs": 2}')
    plan = explained(capsys, file, "--policy", "frugal", "--input", f"@{tmp_path}/input.json")
    assert plan["choices"][0]["expected_nanos"] == 6_000_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme/fux"], 'unknown model "acme/fux"; did you mean "acme/flux"?'),
        (
            ["black-forest-labs/flux-schnell"],
            "black-forest-labs/flux-schnell is in the catalogue, and nobody here serves it; set FAL_KEY or"
            " TOGETHER_API_KEY or DEEPINFRA_API_KEY; or write credentials in [providers.cheap], [providers.dear]",
        ),
        (
            ["black-forest-labs/flux-schnel"],
            'unknown model "black-forest-labs/flux-schnel"; did you mean "black-forest',
        ),
        (["acme/flux", "--policy", "frugl"], 'unknown policy "frugl"; did you mean "frugal"?'),
        (["acme/flux:abc"], 'unknown version "abc"; '),
        (["acme/flux", "--input", "{"], "--input: not JSON ("),
        (["acme/flux", "--input", "[1]"], "--input: this is no object; write"),
        (["acme/flux", "--input", "[" * 100_000], "--input: not JSON ("),
        (["acme/flux", "--input", "@absent.json"], "absent.json: it cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_explained_is_one_line_and_exit_2(
    words: list[str], said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words, "--config", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"turnout: {said}")
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_key_labels_and_the_time_of_day_count_as_they_would_for_a_prediction(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frugal.toml").write_text(
        FRUGAL.replace("name =", "[[policies]]\nname =")
        .replace("[keep]", "[policies.keep]")
        .replace("[rank]", "[policies.rank]")
        + '[policies.match]\nkeys = ["batch"]\n'
        '[[policies]]\nname = "night"\n[[policies.match.hours]]\nfrom = "22:00"\nto = "06:00"\nzone = "Europe/Berlin"\n'
        '[[policies]]\nname = "free"\n[policies.match]\nlabels = { tier = "free" }\n'
        '[[policies]]\nname = "large"\n[policies.match]\ninputs.images = { at_least = 5 }\n'
    )
    hash = "sha256:" + "0" * 64
    keys = f'[keys.batch]\nhash = "{hash}"\n[keys.app]\nhash = "{hash[:-1]}1"\npolicy = "fastest"\n'
    file.write_text(keys + SERVED)

    def policy(*words: str) -> str:
        return str(explained(capsys, file, "--input", '{"prompt": "x"}', *words)["policy"])

    noon = ("--at", "2026-11-24T12:00")
    assert policy(*noon) == "balanced"
    assert policy(*noon, "--key", "batch") == "frugal"
    assert policy(*noon, "--key", "app") == "fastest", "its section says so"
    assert policy("--at", "2026-11-24T21:00") == "night", "22:00 in Berlin"
    assert policy("--at", "2026-11-24T21:00+01:00") == "balanced"
    assert policy(*noon, "--label", "tier=free", "--label", "team=a") == "free"
    assert policy(*noon, "--input", '{"prompt": "x", "num_outputs": 5}') == "large"
    assert main(["explain", "acme/flux", "--config", str(file), "--key", "bath"]) == 2
    assert 'no key is called "bath"; did you mean "batch"?' in capsys.readouterr().err


def test_what_is_reduced_or_sticky_is_said(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frugal.toml").write_text(
        'name = "frugal"\n[rank]\nby = "weighted"\nshares = { cheap = 1, dear = 0 }\nsticky = "label:session"\n'
    )
    file.write_text(SERVED.replace('name = "d/flux"', 'name = "d/flux"\nquality = "reduced"'))
    words = ["explain", "acme/flux", "--policy", "frugal", "--config", str(file), "--label", "session=a"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "acme/flux@dear (reduced)" in said
    assert "1 of 1 shares, sticky by label session" in said
    plan = explained(capsys, file, "--policy", "frugal")
    assert [choice["quality"] for choice in plan["choices"]] == ["full", "reduced", "full"]
    assert plan["choices"][0]["reasons"][0] == {
        "code": "share",
        "text": "1 of 1 shares, drawn, for want of a label session",
    }


@pytest.mark.parametrize(("option", "value"), [("--label", "tier"), ("--label", "=x"), ("--at", "noon")])
def test_a_label_or_time_that_is_none_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "acme/flux", option, value])
    assert ended.value.code == 2
    assert f"{value!r} is no " in capsys.readouterr().err
