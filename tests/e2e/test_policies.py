"""Policies of a real gateway, from their files to what callers read: who is matched, kept, shared out, and degraded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import write_schemas
from tests.e2e.upstream import Upstream

CONFIG = """
[local]
enabled = false
[catalogue]
enabled = false

[policies]
files = ["rules"]

[providers.one]
adapter = "replicate"
base_url = "{upstream}/v1"
[providers.two]
adapter = "replicate"
base_url = "{upstream}/v1"

[[models]]
name = "acme/job"
schema = "job.json"
version = "{v1}"
[[models.offers]]
provider = "one"
name = "upstream/job"
price = {{ per_prediction = "0.001" }}
[[models.offers]]
provider = "two"
name = "upstream/job"
price = {{ per_prediction = "0.002" }}
quality = "reduced"
[[models.offers]]
provider = "two"
name = "upstream/job"
version = "{v2}"
equivalent = "sturdy"
price = {{ per_prediction = "0" }}
[[models.offers]]
provider = "one"
name = "upstream/job"
equivalent = "sturdy"
price = {{ per_prediction = "9" }}
version = "{v1}"
"""
V1, V2 = "1" * 64, "2" * 64
RULES = """
[[policies]]
name = "canary"
[policies.match]
labels = { use = "canary" }
[policies.rank]
by = "weighted"
shares = { "one#1" = 50, "two#1" = 50 }
sticky = "label:session"
[policies.fallback]
provider = ""

[[policies]]
name = "long"
[policies.match]
inputs.characters = { at_least = 100 }
[policies.keep]
without = ["one"]
[policies.rank]
by = "cost"
[policies.fallback]
provider = ""

[[policies]]
name = "fine"
[policies.keep]
quality = "full"
without = ["one"]
[policies.fallback]
provider = ""

[[policies]]
name = "family"
[policies.keep]
version = "equivalent"
[policies.rank]
by = "cost"
"""


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder: Path = tmp_path_factory.mktemp("policies")
    write_schemas(folder, "job")
    (folder / "rules").mkdir()
    (folder / "rules" / "all.toml").write_text(RULES)
    with GatewayProcess(folder, CONFIG.format(upstream=upstream.url, v1=V1, v2=V2)) as gateway:
        yield gateway


def predict(gateway: GatewayProcess, text: str = "hello", *, pinned: str = "", **headers: str) -> dict[str, Any]:
    """The prediction, ended."""
    path, body = "/v1/models/acme/job/predictions", {"input": {"do": "echo", "text": text}}
    with gateway.client() as client:
        asked = {"prefer": "wait=10", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if pinned:
            path, body = "/v1/predictions", {**body, "version": pinned}
        answer = client.post(path, json=body, headers=asked)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def first_reason(prediction: dict[str, Any]) -> str:
    return str(prediction["routing"]["reasons"][0]["text"])


def test_a_session_stays_where_it_is_and_the_reduced_offer_says_degraded(gateway: GatewayProcess) -> None:
    served: dict[str, set[str]] = {}
    for number in range(24):
        labels = f"use=canary,session=s{number % 8}"
        routing = predict(gateway, turnout_labels=labels)["routing"]
        assert routing["policy"] == "canary"
        assert routing.get("degraded", False) is (routing["provider"] == "two")
        assert routing["attempts"][0].get("degraded", False) is (routing["provider"] == "two")
        served.setdefault(f"s{number % 8}", set()).add(routing["provider"])
    assert all(len(providers) == 1 for providers in served.values()), served
    assert set.union(*served.values()) == {"one", "two"}
    made = predict(gateway, turnout_labels="use=canary,session=s0")
    assert first_reason(made) == "50 of 100 shares, sticky by label session"


def test_what_the_input_asks_for_chooses_the_policy(gateway: GatewayProcess) -> None:
    long, short = predict(gateway, "x" * 100), predict(gateway, "x" * 99)
    assert (long["routing"]["policy"], long["routing"]["provider"]) == ("long", "two")
    assert short["routing"]["policy"] == "fine"


def test_who_wants_full_quality_is_failed_rather_than_served_less(gateway: GatewayProcess) -> None:
    made = predict(gateway, turnout_policy="fine")
    assert made["status"] == "failed"
    reasons = {reason["offer"]: reason["code"] for reason in made["routing"]["reasons"]}
    assert reasons["acme/job@two"] == "quality"


def test_an_equivalent_version_serves_who_pins_none_and_is_told(gateway: GatewayProcess) -> None:
    free = predict(gateway, turnout_policy="family")
    assert (free["routing"]["attempts"][0]["offer"], free["routing"]["version"]) == ("acme/job@two#2", V2)
    pinned = predict(gateway, pinned=V1, turnout_policy="family")
    assert (pinned["routing"]["attempts"][0]["offer"], pinned["routing"]["version"]) == ("acme/job@one", V1)
