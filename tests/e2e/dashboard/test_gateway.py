"""The page over a real gateway process: real predictions, a real breaker, a real cancel, a real webhook sent again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import PIXEL
from tests.e2e.dashboard.test_hostile import is_unharmed
from tests.e2e.dashboard.visitor import Visitor
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.models import ENVIRON, write_schemas
from tests.e2e.receiver import Receiver
from tests.e2e.upstream import Upstream

CONFIG = """
[webhooks]
allow = ["{receiver}"]
allow_http = true

[dashboard]
budget_per_hour = "5.00"

[policies]
default = "cheapest"

[providers.first]
adapter = "replicate"
base_url = "{broken}/v1"
token = "env:UPSTREAM_TOKEN"

[providers.second]
adapter = "replicate"
base_url = "{upstream}/v1"
token = "env:UPSTREAM_TOKEN"

[[models]]
name = "acme/job"
schema = "job.json"
[[models.offers]]
provider = "first"
name = "upstream/job"
price = {{ per_prediction = "0.001" }}
[[models.offers]]
provider = "second"
name = "upstream/job"
price = {{ per_prediction = "0.002" }}
"""
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00 " + "W" * 5_000


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(
    upstream: Upstream, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Its cheapest provider does not answer: nothing listens where it should be."""
    folder = tmp_path_factory.mktemp("gateway")
    write_schemas(folder, "job")
    config = CONFIG.format(receiver=receiver.place, upstream=upstream.url, broken="http://127.0.0.1:9")
    with GatewayProcess(folder, config, environ=ENVIRON) as gateway:
        yield gateway


def make(gateway: GatewayProcess, *, wait: bool = True, webhook: str | None = None, **input: object) -> str:
    """The id of a new prediction."""
    with gateway.client() as client:
        body = {"input": input} | ({"webhook": webhook, "webhook_events_filter": ["completed"]} if webhook else {})
        headers = {"prefer": "wait=10"} if wait else {}
        answer = client.post("/v1/models/acme/job/predictions", json=body, headers=headers)
        assert answer.status_code in (201, 202), answer.text
        return str(answer.json()["id"])


def give_reason(page: Page, reason: str, button: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_be_hidden()


def test_a_rescue_is_seen_and_explained_as_it_happens(gateway: GatewayProcess, visitor: Visitor) -> None:
    page = visitor.open(gateway.url, key=gateway.key)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_label("Verdict")).to_be_visible()
    id = make(gateway, do="echo", text="hello")

    expect(page.get_by_label("Verdict").get_by_role("link", name="rescued")).to_contain_text("1")
    expect(page.locator(".panel--timeline")).to_contain_text("acme/job")
    page.get_by_label("Verdict").get_by_role("link", name="rescued").click()
    page.locator(f"#row-{id}").click()
    expect(page.locator(".story")).to_contain_text("first")
    expect(page.locator(".gantt__line")).to_have_count(2)
    expect(page.locator(".gantt__line").nth(1)).to_contain_text("second")
    expect(page.locator(".panel--output")).to_contain_text("hello")
    expect(page.locator(".panel--ledger")).to_contain_text("$0.0020")


def test_a_real_breaker_is_forced_and_routing_obeys(gateway: GatewayProcess, visitor: Visitor) -> None:
    page = visitor.open(gateway.url, key=gateway.key)
    cell = page.locator(".cell", has=page.locator(".badge")).nth(0)
    expect(cell).to_be_visible()
    cell.click()
    page.get_by_role("dialog").get_by_role("button", name="Force open…").click()
    give_reason(page, "nothing listens there", "Take it out")
    expect(cell.locator(".badge")).to_have_text("out, by hand")

    id = make(gateway, do="echo", text="straight to the second")
    page.goto(f"{gateway.url}/dashboard#/predictions/{id}")
    expect(page.locator(".gantt__line")).to_have_count(1)
    expect(page.locator(".panel--plan")).to_contain_text("dropped")
    page.get_by_role("link", name="Audit").click()
    line = page.get_by_role("row").nth(1)
    expect(line).to_contain_text("forced out")
    expect(line).to_contain_text("nothing listens there")
    expect(line).to_contain_text("done")

    page.get_by_role("link", name="Overview", exact=True).click()
    cell.click()
    page.get_by_role("dialog").get_by_role("button", name="Release…").click()
    give_reason(page, "the test is over", "Release it")
    expect(cell.locator(".badge")).not_to_contain_text("by hand")


def test_a_real_prediction_is_canceled(gateway: GatewayProcess, upstream: Upstream, visitor: Visitor) -> None:
    id = make(gateway, wait=False, do="hold", text="to be canceled")
    upstream.held("to be canceled")
    page = visitor.open(gateway.url, f"#/predictions/{id}", key=gateway.key)
    page.get_by_role("button", name="Cancel…").click()
    give_reason(page, "asked for by mistake", "Cancel it")
    expect(page.get_by_role("heading", level=1)).to_contain_text("canceled")
    with gateway.client() as client:
        assert client.get(f"/v1/predictions/{id}").json()["status"] == "canceled"


def test_a_real_webhook_is_sent_again(gateway: GatewayProcess, receiver: Receiver, visitor: Visitor) -> None:
    id = make(gateway, do="echo", text="told twice", webhook=f"{receiver.url}/told-twice")
    receiver.until("/told-twice", lambda arrived: len(arrived) == 1)
    page = visitor.open(gateway.url, f"#/predictions/{id}", key=gateway.key)
    page.get_by_role("button", name="Redeliver…").click()
    give_reason(page, "they lost it", "Redeliver it")
    again = receiver.until("/told-twice", lambda arrived: len(arrived) == 2)
    assert again[0].prediction["id"] == again[1].prediction["id"] == id


def test_hostile_prompts_and_errors_of_a_real_gateway_are_borne(gateway: GatewayProcess, visitor: Visitor) -> None:
    id = make(gateway, do="fail", text=HOSTILE)
    page = visitor.open(gateway.url, f"#/predictions/{id}", key=gateway.key)
    expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
    expect(page.locator(".panel--input")).to_contain_text("<img src=x onerror=alert(1)>")
    is_unharmed(page)
    for address in ("#/predictions", "#/"):
        page.goto(f"{gateway.url}/dashboard{address}")
        expect(page.locator(".row, .cell").first).to_be_visible()
        is_unharmed(page)


@pytest.mark.timeout(40)
def test_a_real_picture_is_shown(gateway: GatewayProcess, visitor: Visitor) -> None:
    with gateway.client(seconds=35) as client:
        body = {"input": {"image": PIXEL}}
        made = client.post("/v1/models/turnout/upscaler/predictions", json=body, headers={"prefer": "wait=30"})
        assert made.json()["status"] == "succeeded", made.text
    page = visitor.open(gateway.url, f"#/predictions/{made.json()['id']}", key=gateway.key)
    picture = page.locator(".panel--output img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 1
    page.get_by_role("link", name="Predictions", exact=True).click()
    expect(page.locator(f"#row-{made.json()['id']} img")).to_be_visible()


def test_the_page_survives_a_restart_of_the_gateway(gateway: GatewayProcess, visitor: Visitor) -> None:
    """The key that was printed ends with the process: the page says so instead of hammering."""
    visitor.expects_refusals = True
    page = visitor.open(gateway.url, key=gateway.key)
    expect(page.locator("#connection")).to_have_text("live")
    gateway.restart()
    expect(page.get_by_role("alert")).to_contain_text("This key is not known here")
    page.get_by_label("A key with the scope admin").fill(gateway.key)
    page.get_by_role("button", name="Open the dashboard").click()
    expect(page.locator("#connection")).to_have_text("live")
