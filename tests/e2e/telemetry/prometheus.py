"""A real Prometheus in a folder of its own, scraping one address. What it finds is judged by the tests."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

REQUIRED = "TURNOUT_REQUIRE_PROMETHEUS"
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')
_CONFIG = """
global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
  evaluation_interval: 500ms
rule_files: ["rules.yml"]
scrape_configs:
  - job_name: turnout
    static_configs:
      - targets: ["{target}"]
"""


def program(name: str) -> str:
    """Where it is; skips the test, or fails it where TURNOUT_REQUIRE_PROMETHEUS=1, if it is not installed."""
    found = shutil.which(name)
    if found is None and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but there is no {name} on the PATH: apt-get install prometheus")
    if found is None:
        pytest.skip(f"there is no {name} on the PATH: apt-get install prometheus")
    return found


class Prometheus:
    """Runs while its `with` does."""

    def __init__(self, folder: Path, *, target: str, rules: str) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False, timeout=5)
        self._program = program("prometheus")
        folder.mkdir(parents=True)
        (folder / "prometheus.yml").write_text(_CONFIG.format(target=target))
        (folder / "rules.yml").write_text(rules)

    def __enter__(self) -> Prometheus:
        command = [
            self._program,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._url = f"http://{self.until(self._address)}"
            self.until(lambda: self._is_ready() or None)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series of an instant query; raises AssertionError with Prometheus' own words for one that is wrong."""
        answer = self._client.get(f"{self._url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer.get("error"))
        result = answer["data"]["result"]
        return result if answer["data"]["resultType"] == "vector" else [{"metric": {}, "value": result}]

    def numbers(self, query: str) -> list[float]:
        return [number for one in self.ask(query) if not math.isnan(number := float(one["value"][1]))]

    def firing(self) -> set[str]:
        answer = self._client.get(f"{self._url}/api/v1/alerts").json()
        return {one["labels"]["alertname"] for one in answer["data"]["alerts"] if one["state"] == "firing"}

    def await_alerts(self, names: set[str]) -> None:
        try:
            self.until(lambda: names <= self.firing() or None)
        except AssertionError:
            raise AssertionError(f"these do not fire: {sorted(names - self.firing())}") from None

    def scrapes(self) -> float:
        return sum(self.numbers("count_over_time(up[10m])"))

    def scrape(self, times: int = 2) -> None:
        """Wait until it has looked that often once more."""
        enough = self.scrapes() + times
        self.until(lambda: self.scrapes() >= enough or None)

    def until(self, found: Callable[[], Any], *, seconds: float = 15.0) -> Any:
        """What `found` gives as soon as that is not None."""
        until = time.monotonic() + seconds
        while (value := found()) is None:
            if time.monotonic() > until:
                raise AssertionError((self._folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.05)
        return value

    def _address(self) -> str | None:
        listens = _LISTENS.search((self._folder / "log").read_text(errors="replace"))
        return listens[1] if listens is not None else None

    def _is_ready(self) -> bool:
        try:
            return self._client.get(f"{self._url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _end(self) -> None:
        self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def check_rules(folder: Path, rules: str, tests: list[dict[str, Any]]) -> None:
    """`promtool test rules`; raises AssertionError with what it says."""
    (folder / "rules.yml").write_text(rules)
    suite = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yml").write_text(json.dumps(suite))  # which is YAML too
    made = subprocess.run(
        [program("promtool"), "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
