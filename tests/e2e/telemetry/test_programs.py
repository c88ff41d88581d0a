from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.telemetry.prometheus import REQUIRED, program


def test_without_prometheus_its_tests_are_skipped_aloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus"):
        program("prometheus")


def test_where_it_is_required_its_absence_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="there is no promtool"):
        program("promtool")
