"""What a real gateway's store holds of its traffic is rehearsed: while it runs, or is stopped, by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import write_schemas
from tests.e2e.upstream import Upstream

CONFIG = """
[local]
enabled = false
[catalogue]
enabled = false
[policies]
default = "cheapest"
[providers.one]
adapter = "replicate"
base_url = "{upstream}/v1"
[providers.two]
adapter = "replicate"
base_url = "{upstream}/v1"
[[models]]
name = "acme/job"
schema = "job.json"
[[models.offers]]
provider = "one"
name = "upstream/job"
price = {{ per_character = "0.00001" }}
[[models.offers]]
provider = "two"
name = "upstream/job"
price = {{ per_prediction = "0.002" }}
"""
PREDICTIONS = 8


def rehearse(gateway: GatewayProcess, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "policy", "rehearse", "--config", "config.toml", *words]
    return subprocess.run(
        command, cwd=gateway.folder, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )


def test_traffic_is_rehearsed_from_the_store(upstream: Upstream, tmp_path: Path) -> None:
    write_schemas(tmp_path, "job")
    (tmp_path / "dear.toml").write_text('name = "dear"\n[keep]\nproviders = ["two"]\n')
    with GatewayProcess(tmp_path, CONFIG.format(upstream=upstream.url)) as gateway:
        with gateway.client() as client:
            for number in range(PREDICTIONS):
                body = {"input": {"do": "echo", "text": "x" * (10 + number)}}
                answer = client.post("/v1/models/acme/job/predictions", json=body, headers={"prefer": "wait=10"})
                assert answer.status_code == 201, answer.text
                assert answer.json()["status"] == "succeeded"
        gateway.stop()
        done = rehearse(gateway, "dear.toml", "--json", "--save", "day.jsonl")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["recorded"]["predictions"] == PREDICTIONS
        assert found["candidate"]["shares"] == {"acme/job@two": 1.0}
        assert found["candidate"]["dollars"][0] == 0.002 * PREDICTIONS
        assert "xxxx" not in (tmp_path / "day.jsonl").read_text()
        again = rehearse(gateway, "dear.toml", "--json", "--against", "day.jsonl")
        assert json.loads(again.stdout) == found
