"""The shipped pack is what the instruments make of it, and Grafana can place it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import gateway.telemetry
from gateway.cli import main
from gateway.telemetry.grafana import RULES, pack
from gateway.telemetry.instrument import INSTRUMENTS

SHIPPED = Path(gateway.telemetry.__file__).parent / "pack"
DASHBOARDS = {name: json.loads(text) for name, text in pack().items() if name.endswith(".json")}


def test_the_shipped_files_are_what_the_instruments_make_of_them() -> None:
    shipped = {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.iterdir()}
    assert shipped == pack(), "run `turnout grafana --out gateway/telemetry/pack`"


def test_every_instrument_is_asked_for_somewhere() -> None:
    text = "\n".join(pack().values())
    assert [one.name for one in INSTRUMENTS if not re.search(rf"\b{one.series}(_bucket|_count)?\b", text)] == []


def test_every_series_and_label_in_a_query_is_an_instruments() -> None:
    series = {one.series + part for one in INSTRUMENTS for part in ("", "_bucket", "_count")}
    labels = {attribute.label for one in INSTRUMENTS for attribute in one.attributes}
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                asked = set(re.findall(r"\b((?:turnout|gen_ai|http)_\w+)", target["expr"]))
                assert asked, target
                assert asked <= series | labels
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_imported_as_it_is(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert name == f"{dashboard['uid']}.json"
    assert len(dashboard["uid"]) <= 40
    assert "id" not in dashboard, "Grafana gives one"
    (source,) = (one for one in dashboard["templating"]["list"] if one["type"] == "datasource")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$(\w+)", json.dumps(dashboard))) <= known | {"__all"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_on_another_or_out_of_the_grid(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        assert not _overlap(one, other), (one, other)


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_the_command_writes_them_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grafana", "--out", str(tmp_path / "new" / "folder"), "--burn", "12.5"]) == 0
    said = capsys.readouterr().out.splitlines()
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new" / "folder").iterdir()}
    assert {Path(line).name for line in said} == set(written)
    assert written == pack(dollars_per_hour=12.5)
    assert "> 12.5" in written[RULES]


def test_a_folder_that_cannot_be_written_is_a_misuse_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["grafana", "--out", str(tmp_path / "file")]) == 2
    assert re.fullmatch(
        r"turnout: .*file: it cannot be written \(.*\); name another folder.*\n", capsys.readouterr().err
    )
