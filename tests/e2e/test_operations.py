"""Operations on a real gateway whose cheapest provider is dead: what the overview says is true, what ops do holds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract.key import new_key
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import write_schemas
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import Upstream
from tests.waiting import until

OPS, CALLER = new_key("ops"), new_key("caller")
CONFIG = """
[webhooks]
allow = ["{receiver}"]
allow_http = true

[keys.ops]
hash = "{ops}"
scopes = ["predictions", "admin"]
[keys.shop]
hash = "{caller}"

[local]
enabled = false

[policies]
default = "cheapest"

[dashboard]
budget_per_hour = "20.00"

[providers.dead]
adapter = "replicate"
base_url = "http://127.0.0.1:{nobody}/v1"
[providers.jobs]
adapter = "replicate"
base_url = "{upstream}/v1"
[providers.spare]
adapter = "replicate"
base_url = "{upstream}/v1"

[[models]]
name = "acme/job"
schema = "job.json"
[[models.offers]]
provider = "dead"
name = "upstream/job"
price = {{ per_prediction = "0.0001" }}
[[models.offers]]
provider = "jobs"
name = "upstream/job"
price = {{ per_prediction = "0.0020" }}
[[models.offers]]
provider = "spare"
name = "upstream/job"
"""
JOBS = "acme/job@jobs"
WHY = {"reason": "they bill twice <script>alert(1)</script>"}


class Ops:
    """The two keys of one gateway process."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.admin = gateway.client(key=OPS.text)
        self.shop = gateway.client(key=CALLER.text)

    def predict(self, do: str, text: str, *, wait: bool = True, **body: Any) -> dict[str, Any]:
        answer = self.shop.post(
            "/v1/models/acme/job/predictions",
            json={"input": {"do": do, "text": text}, **body},
            headers={"prefer": "wait=10"} if wait else {},
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def get(self, path: str) -> dict[str, Any]:
        answer = self.admin.get(f"/ops/v1/{path}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def act(self, path: str, **body: str) -> httpx.Response:
        return self.admin.post(f"/ops/v1/{path}", json=body | WHY)

    def cell(self, offer: str) -> dict[str, Any]:
        return next(cell for cell in self.get("overview")["matrix"]["cells"] if cell["offer"] == offer)

    def trail(self) -> list[tuple[str, str, str]]:
        return [(line["action"], line["target"], line["outcome"]) for line in self.get("audit")["lines"]]


@pytest.fixture(scope="module")
def ops(upstream: Upstream, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ops]:
    folder: Path = tmp_path_factory.mktemp("operations")
    write_schemas(folder, "job")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listening: connections are refused
        config = CONFIG.format(
            receiver=receiver.place,
            upstream=upstream.url,
            nobody=nobody.getsockname()[1],
            ops=OPS.hash,
            caller=CALLER.hash,
        )
        with GatewayProcess(folder, config) as gateway:
            ops = Ops(gateway)
            with ops.admin, ops.shop:
                yield ops


def test_the_greeting_names_the_dashboard_and_it_is_there(ops: Ops) -> None:
    assert f"{ops.gateway.url}/dashboard" in (ops.gateway.folder / "stdout.log").read_text()
    page = httpx.get(f"{ops.gateway.url}/dashboard", trust_env=False)
    assert page.status_code == 200
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert ops.shop.get("/ops/v1/overview").status_code == 403
    assert httpx.get(f"{ops.gateway.url}/ops/v1/overview", trust_env=False).status_code == 401


def test_the_overview_of_a_gateway_whose_cheapest_provider_is_dead_is_the_truth(ops: Ops) -> None:
    ended = [ops.predict("echo", f"rescue {number}") for number in range(7)]
    assert {one["status"] for one in ended} == {"succeeded"}
    overview = ops.get("overview")
    dead = next(one for one in overview["providers"] if one["provider"] == "dead")
    assert (dead["state"], dead["why"][:19]) == ("out", "5 failures in a row")
    assert dead["until"] > overview["now"]
    assert overview["totals"]["rescued"] == 5
    assert overview["totals"]["succeeded"] >= 7
    [trouble] = [one for one in overview["troubles"] if one["provider"] == "dead"]
    assert (trouble["code"], trouble["count"], trouble["owners"]) == ("not_sent", 5, {"shop": 5})
    kinds = [one["kind"] for one in overview["timeline"]]
    assert (kinds.count("failover"), kinds.count("rescued"), kinds.count("ejected")) == (5, 5, 1)
    assert overview["burn"]["settled_nanos"] >= 7 * 2_000_000
    assert overview["burn"]["budget_nanos"] == 20_000_000_000
    assert overview["burn"]["unknown_share"] == 0.0
    rescued = ops.get("predictions?rescued=1&provider=dead")["predictions"]
    assert {row["id"] for row in rescued} == {one["id"] for one in ended[:5]}
    story = ops.get(f"predictions/{rescued[0]['id']}")["story"]
    assert any(line.startswith("dead was not reached:") and "moved on to jobs after" in line for line in story)


def test_a_provider_put_out_by_hand_stays_out_over_a_restart_until_it_is_released(ops: Ops) -> None:
    refused = ops.act("breakers", offer="acme/job@jbos", action="open")
    assert 'did you mean "acme/job@jobs"?' in refused.json()["detail"]
    assert ops.act("breakers", offer=JOBS, action="open").status_code == 200
    before = ops.get("overview")["totals"]

    def avoids() -> None:
        one = ops.predict("echo", "around it")
        assert (one["status"], one["routing"]["provider"]) == ("succeeded", "spare")
        [reason] = [one for one in one["routing"]["reasons"] if one["offer"] == JOBS]
        assert (reason["kept"], reason["code"]) == (False, "breaker")
        assert any("jobs, its breaker is open" in line for line in ops.get(f"predictions/{one['id']}")["story"])

    avoids()
    assert ops.get("overview")["burn"]["unknown_share"] > 0  # nobody knows what the spare costs
    ops.gateway.kill()
    ops.gateway.start()
    cell = ops.cell(JOBS)
    assert (cell["state"], cell["forced"]) == ("open", "open")
    assert "opened by ops: they bill twice <script>" in cell["why"]
    assert "acme/job@jobs is still held open by ops" in ops.gateway.log
    overview = ops.get("overview")
    assert overview["totals"]["rescued"] >= before["rescued"]  # a restart does not blank the page
    assert {"forced", "rescued", "started"} <= {one["kind"] for one in overview["timeline"]}
    avoids()
    assert ops.act("breakers", offer=JOBS, action="release").json()["outcome"] == "done"
    assert ops.predict("echo", "back again")["routing"]["provider"] == "jobs"
    assert ops.trail()[:3] == [
        ("breaker.release", JOBS, "done"),
        ("breaker.open", JOBS, "done"),
        ("breaker.open", "acme/job@jbos", refused.json()["detail"]),
    ]


def test_a_cancel_by_hand_stops_the_job_and_leaves_its_line(ops: Ops, upstream: Upstream) -> None:
    one = ops.predict("hold", "stop me", wait=False)
    held = upstream.held("stop me")
    row = until(lambda: ops.get("predictions?status=open")["predictions"])[0]
    assert (row["id"], row["owner"]) == (one["id"], "shop")
    assert ops.act(f"predictions/{one['id']}/cancel").json()["who"] == "ops"
    until(lambda: ops.shop.get(f"/v1/predictions/{one['id']}").json()["status"] == "canceled")
    assert held.status == "canceled"
    late = ops.act(f"predictions/{one['id']}/cancel")
    assert (late.status_code, late.json()["title"]) == (409, "Not possible now")
    assert ops.trail()[:2] == [
        ("prediction.cancel", one["id"], late.json()["detail"]),
        ("prediction.cancel", one["id"], "done"),
    ]


def test_a_webhook_sent_again_is_the_same_in_id_and_body(ops: Ops, receiver: Receiver) -> None:
    one = ops.predict("echo", "tell me twice", webhook=f"http://{receiver.place}/again")
    receiver.until("/again", lambda arrived: len(arrived) == 1)
    until(lambda: ops.get(f"predictions/{one['id']}")["deliveries"][-1]["ended"] == "delivered")
    assert ops.act(f"predictions/{one['id']}/redeliver").status_code == 200
    first, second = receiver.until("/again", lambda arrived: len(arrived) == 2)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    silent = ops.predict("echo", "nobody to tell")
    none = ops.act(f"predictions/{silent['id']}/redeliver")
    assert (none.status_code, none.json()["detail"]) == (409, "its caller asked for no webhook")


def test_whoever_listens_sees_a_prediction_move(ops: Ops) -> None:
    with ops.admin.stream("GET", "/ops/v1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert "event: overview" in (next(lines) for _ in range(10))
        one = ops.predict("echo", "seen live")
        for line in lines:
            if line.startswith("data: ") and one["id"] in line and '"status":"succeeded"' in line:
                break


def test_a_stop_does_not_wait_for_who_listens(ops: Ops) -> None:
    with ops.admin.stream("GET", "/ops/v1/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        begun = time.monotonic()
        ops.gateway.stop(seconds=15)
        assert time.monotonic() - begun < 10
        assert "the gateway is stopping" in "".join(lines)
    ops.gateway.start()
