"""A real gateway whose offers have tiers: what a prediction is said to cost, and where the figure comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.upstream import Upstream

SCHEMA = {
    "Input": {
        "properties": {
            "do": {"type": "string", "default": "echo"},
            "text": {"type": "string"},
            "duration": {"type": "integer", "default": 5},
            "resolution": {"type": "string", "enum": ["720p", "1080p"], "default": "720p"},
            "generate_audio": {"type": "boolean"},
        }
    },
    "Output": {"type": "string"},
}
CONFIG = """
[local]
enabled = false
[catalogue]
enabled = false
[providers.jobs]
adapter = "replicate"
base_url = "{upstream}/v1"
[[models]]
name = "acme/film"
schema = "film.json"
[[models.offers]]
provider = "jobs"
name = "acme/film"
price = {{ per_video_second = "0.10" }}
source = "jobs.example/pricing"
date = "2026-11-01"
input.rename = {{ resolution = "size" }}
[[models.offers.price_tiers]]
when = {{ resolution = "1080p", audio = true }}
price = {{ per_video_second = "0.30" }}
[[models.offers.price_tiers]]
when = {{ resolution = "1080p" }}
price = {{ per_video_second = "0.20" }}
"""
HEADERS = {"prefer": "wait=10", "turnout-policy": "cheapest"}


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("tiers")
    (folder / "film.json").write_text(json.dumps(SCHEMA))
    with GatewayProcess(folder, CONFIG.format(upstream=upstream.url)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("input", "amount"),
    [
        ({"resolution": "1080p", "generate_audio": True}, "1.5"),
        ({"resolution": "1080p", "generate_audio": False, "duration": 2}, "0.4"),
        ({}, "0.5"),  # by the schema's defaults
        ({"resolution": "1080p"}, None),  # with sound or without: nobody said
    ],
)
def test_it_costs_what_its_tier_says_and_unknown_where_it_hangs_on_what_was_not_said(
    gateway: GatewayProcess, input: dict[str, Any], amount: str | None
) -> None:
    with gateway.client(seconds=15) as client:
        body = {"input": {"text": "a heron"} | input}
        answer = client.post("/v1/models/acme/film/predictions", json=body, headers=HEADERS)
    made = answer.json()
    assert made["status"] == "succeeded", answer.text
    basis = "unknown" if amount is None else "computed"
    (attempt,) = made["routing"]["attempts"]
    for cost in (made["routing"]["cost"], attempt["cost"]):
        assert (cost["amount"], cost["basis"]) == (amount, basis)
    assert answer.headers["turnout-cost"] == (amount or "unknown")
    assert answer.headers["turnout-cost-basis"] == basis
    (reason,) = made["routing"]["reasons"]
    expected = "cost unknown" if amount is None else f"${float(amount):.2f} expected"
    assert reason["text"].startswith(expected), "the estimate is of the same tier"
