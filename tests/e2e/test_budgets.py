"""Budgets of a real gateway, from a policy file to what callers and ops read; a kill in between changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.key import new_key
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import write_schemas
from tests.e2e.upstream import Upstream
from tests.waiting import until

OPS, SHOP, LAB = new_key("ops"), new_key("shop"), new_key("lab")
CONFIG = """
[keys.ops]
hash = "{ops}"
scopes = ["predictions", "admin"]
[keys.shop]
hash = "{shop}"
[keys.lab]
hash = "{lab}"

[local]
enabled = false
[catalogue]
enabled = false

[policies]
files = ["rules"]

[providers.jobs]
adapter = "replicate"
base_url = "{upstream}/v1"

[[models]]
name = "acme/job"
schema = "job.json"
[[models.offers]]
provider = "jobs"
name = "upstream/job"
price = {{ per_prediction = "0.001" }}
"""
RULES = """
name = "thrifty"

[match]
models = ["acme/*"]

[fallback]
provider = ""

[[budgets]]
limit = "0.0035"
per = "month"
by = "key"

[[budgets]]
name = "teams"
limit = "0.001"
per = "month"
by = "label:team"
when_spent = "cheapest"
"""
CENTS = 1_000_000


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    write_schemas(tmp_path, "job")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "all.toml").write_text(RULES)
    config = CONFIG.format(upstream=upstream.url, ops=OPS.hash, shop=SHOP.hash, lab=LAB.hash)
    with GatewayProcess(tmp_path, config) as gateway:
        yield gateway


def predict(gateway: GatewayProcess, key: str, text: str, *, do: str = "echo", wait: bool = True) -> dict[str, Any]:
    with gateway.client(key=key) as client:
        answer = client.post(
            "/v1/models/acme/job/predictions",
            json={"input": {"do": do, "text": text}},
            headers={"prefer": "wait=10"} if wait else {"turnout-labels": "team=red"},
        )
    assert answer.status_code in (201, 202), answer.text
    return dict(answer.json())


def lines(gateway: GatewayProcess) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Spent, set aside and left, by budget and whose."""
    with gateway.client(key=OPS.text) as client:
        shown = client.get("/ops/v1/budgets")
    assert shown.status_code == 200, shown.text
    assert [rule["budget"] for rule in shown.json()["rules"]] == ["thrifty", "teams"]
    return {
        (line["budget"], line["of"]): (line["spent_nanos"], line["reserved_nanos"], line["left_nanos"])
        for line in shown.json()["lines"]
    }


@pytest.mark.timeout(60)  # a gateway is started, killed and started again
def test_a_key_that_has_spent_its_budget_is_refused_and_no_kill_gives_it_back(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    assert [predict(gateway, SHOP.text, f"shop {n}")["status"] for n in range(2)] == ["succeeded"] * 2
    held = predict(gateway, SHOP.text, "long", do="hold", wait=False)
    upstream.held("long")
    until(lambda: lines(gateway)["thrifty", "shop"] == (2 * CENTS, 1 * CENTS, CENTS // 2))
    refused = predict(gateway, SHOP.text, "too much")
    assert refused["status"] == "failed"
    assert refused["error"].startswith('the budget "thrifty" of key shop ($0.0035 a month) is spent: $0.002 and $0.001')
    assert refused["routing"]["reasons"][0]["code"] == "budget"
    assert upstream.jobs("too much") == []
    assert predict(gateway, LAB.text, "lab")["status"] == "succeeded", "another key has its own"

    gateway.kill()
    gateway.start()
    assert lines(gateway)["thrifty", "shop"] == (2 * CENTS, 1 * CENTS, CENTS // 2)
    upstream.release("long")
    until(lambda: lines(gateway)["thrifty", "shop"] == (3 * CENTS, 0, CENTS // 2))
    assert lines(gateway) == {
        ("thrifty", "shop"): (3 * CENTS, 0, CENTS // 2),
        ("thrifty", "lab"): (1 * CENTS, 0, 5 * CENTS // 2),
        ("teams", "red"): (1 * CENTS, 0, 0),
        ("teams", ""): (3 * CENTS, 0, 0),  # those without the label: only the cheapest may go beyond it
    }
    with gateway.client(key=SHOP.text) as client:
        assert client.get(f"/v1/predictions/{held['id']}").json()["status"] == "succeeded"
        assert client.get("/ops/v1/budgets").status_code == 403
