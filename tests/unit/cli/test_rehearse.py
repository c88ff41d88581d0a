"""`turnout policy rehearse`: what it prints of a trace, and what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.contract.money import NANOS, Units
from gateway.rehearsal.trace import FAILED, GOOD, Asked, Trace, Tried, write_trace
from gateway.testing.virtual import START

VERSION = "1" * 64
CONFIG = f"""
[catalogue]
enabled = false
[local]
enabled = false
[providers.cheap]
adapter = "replicate"
base_url = "https://cheap.internal/v1"
[providers.quick]
adapter = "replicate"
base_url = "https://quick.internal/v1"
[[models]]
name = "acme/flux"
version = "{VERSION}"
[[models.offers]]
provider = "cheap"
name = "cheap/flux"
price = {{ per_prediction = "0.01" }}
[[models.offers]]
provider = "quick"
name = "quick/flux"
price = {{ per_prediction = "0.03" }}
[policies]
default = "cheapest"
"""
CHEAP, QUICK = "acme/flux@cheap", "acme/flux@quick"


def tried(offer: str, at: float, seconds: float, dollars: float, how: str = GOOD) -> Tried:
    nanos = round(dollars * NANOS)
    return Tried(offer=offer, at=at, how=how, seconds=seconds, nanos=nanos, expected_nanos=nanos)


def asked(number: int) -> Asked:
    at = number * 5.0
    quick = number % 4 == 0
    attempts = [tried(QUICK, at, 4.0, 0.03)] if quick else [tried(CHEAP, at, 12.0, 0.01)]
    if number % 20 == 7:
        attempts = [tried(CHEAP, at, 3.0, 0.0, FAILED), tried(QUICK, at + 3, 4.0, 0.03)]
    return Asked(
        id=f"{number}",
        at=at,
        model="acme/flux",
        version=VERSION,
        facts=Units(),
        policy="cheapest",
        deadline_seconds=3_600.0,
        status="succeeded",
        seconds=sum(one.seconds for one in attempts),
        tried=tuple(attempts),
        expected={CHEAP: NANOS // 100, QUICK: 3 * NANOS // 100},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "turnout.toml").write_text(CONFIG)
    (tmp_path / "fast.toml").write_text('name = "fast"\n[rank]\nby = "latency"\n')
    write_trace(Trace(begun_at=START, asked=tuple(asked(number) for number in range(200))), tmp_path / "day.jsonl")
    return tmp_path


def rehearsed(folder: Path, *more: str) -> list[str]:
    against = [] if "--against" in more else ["--against", str(folder / "day.jsonl")]
    return ["policy", "rehearse", "--config", str(folder / "turnout.toml"), *against, *more]


def told(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(rehearsed(folder, "--json", *more)) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_candidate_stands_beside_today_with_intervals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(rehearsed(folder, str(folder / "fast.toml"))) == 0
    said = capsys.readouterr().out
    for word in ("Recorded", "Today", "fast", "Change", "cost", "p50", "p95", "without a result", CHEAP, QUICK):
        assert word in said
    assert "200 predictions from" in said
    found = told(folder, capsys, str(folder / "fast.toml"))
    assert found["recorded"]["predictions"] == 200
    assert found["today"]["shares"][CHEAP] > 0.85
    assert found["candidate"]["shares"][QUICK] > 0.85
    assert found["candidate"]["p50_seconds"][0] == pytest.approx(4.0)
    assert found["today"]["p50_seconds"][0] == pytest.approx(12.0)
    value, low, high = found["change"]["dollars"]
    assert 0 < low <= value <= high


def test_what_if_a_provider_were_gone_or_dearer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = told(folder, capsys, "--without", "cheap")
    assert gone["candidate"]["shares"] == {QUICK: 1.0}
    assert gone["today"]["shares"][CHEAP] > 0.85
    dearer = told(folder, capsys, "--price", "cheap=5")
    assert dearer["candidate"]["shares"][QUICK] > 0.85
    assert main(rehearsed(folder, "--without", "cheap", "--price", "quick=2")) == 0
    assert "without cheap, quick at 2 times its price" in " ".join(capsys.readouterr().out.split())


def test_only_the_last_part_is_replayed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(folder, capsys, "--since", "1m40s")["recorded"]["predictions"] == 21
    assert told(folder, capsys, "--since", "7d")["recorded"]["predictions"] == 200


def test_the_same_seed_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(folder / "fast.toml"), "--seed", "4")
    assert told(folder, capsys, *words) == told(folder, capsys, *words)


def test_what_was_hardly_recorded_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ones = tuple(one for one in (asked(number) for number in range(200)) if all(t.offer == CHEAP for t in one.tried))
    write_trace(Trace(begun_at=START, asked=ones), folder / "cheap.jsonl")
    assert main(rehearsed(folder, str(folder / "fast.toml"), "--against", str(folder / "cheap.jsonl"))) == 0
    assert f"nothing was recorded of {QUICK}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--without", "chaep"], '--without: no offer is at "chaep"; did you mean "cheap"?'),
        (["--price", "cheap"], '--price: "cheap" is no price; write it as --price fal=2'),
        (["--price", "nobody=2"], '--price: no offer is at "nobody"; there are cheap, quick'),
        (["--since", "soon"], '--since: "soon" is no length of time; write 24h, 90m or 7d'),
        (["--against", "none.jsonl"], "none.jsonl: it cannot be read"),
        (["nowhere.toml"], "nowhere.toml: it cannot be read"),
        ([], "there is no store yet"),
    ],
)
def test_what_cannot_be_rehearsed_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    given = rehearsed(folder, *words)
    if not words:
        given = ["policy", "rehearse", "--config", str(folder / "turnout.toml")]
    assert main(given) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_policy_with_a_fault_is_named_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.toml").write_text('name = "bad"\n[rank]\nby = "goal"\n')
    assert main(rehearsed(folder, str(folder / "bad.toml"))) == 1
    assert "bad.toml:3: rank.by: there is no goal" in capsys.readouterr().err
