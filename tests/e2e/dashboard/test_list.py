"""The live list: ten thousand rows, filters in the address, what comes while somebody reads."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.peer import KEY
from tests.e2e.dashboard.rows import rows_of
from tests.e2e.dashboard.visitor import Visitor

MANY = 10_000
MOST_NODES = 1_500
MOST_TASK_MILLISECONDS = 400  # of one piece of work; two cores are shared by all tests

_WATCH_TASKS = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.tasks.push(entry.duration)))
    .observe({ type: "longtask" });
}"""
_FLING = """(frame) => new Promise((done) => {
  const end = frame.scrollHeight;
  let step = 0;
  const fling = () => {
    frame.scrollTop = (end * (step % 60)) / 60;
    step += 1;
    if (step < 120) requestAnimationFrame(fling);
    else done(Math.max(...[...document.querySelectorAll(".rows")].map((rows) => rows.querySelectorAll("*").length)));
  };
  fling();
})"""


def nodes(page: Page) -> int:
    return int(page.evaluate("document.querySelectorAll('*').length"))


@pytest.mark.timeout(60, func_only=False)
def test_ten_thousand_predictions_scroll_with_few_elements_and_no_stutter(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    peer = serve(scene.Scene(scene.healthy(now).overview, rows_of(now, MANY)))
    page = visitor.open(peer.url, "#/predictions")
    grid = page.get_by_role("grid")
    expect(grid.locator(".row").first).to_contain_text(peer.scene.rows[0].model)
    page.evaluate(_WATCH_TASKS)

    grid.focus()
    page.keyboard.press("End")
    last = page.locator(f"#row-{peer.scene.rows[-1].id}")
    expect(last).to_be_visible(timeout=30_000)
    expect(last).to_have_attribute("aria-selected", "true")
    expect(last).to_have_attribute("aria-rowindex", str(MANY))
    expect(page.locator(".listing__note")).to_have_text("10,000 predictions")
    assert nodes(page) < MOST_NODES

    assert grid.evaluate(_FLING) < MOST_NODES
    page.keyboard.press("Home")
    expect(page.locator(f"#row-{peer.scene.rows[0].id}")).to_be_visible()
    longest = max(page.evaluate("window.tasks"), default=0)
    assert longest < MOST_TASK_MILLISECONDS, longest


def test_outputs_are_pictures_players_or_text(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, "#/predictions")
    by_model = {row.model: row for row in reversed(peer.scene.rows) if row.status == "succeeded"}
    picture = page.locator(f"#row-{by_model['acme/flux-dev'].id} img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
    expect(page.locator(f"#row-{by_model['acme/chat'].id}")).to_contain_text(by_model["acme/chat"].output[0].text or "")
    expect(page.locator(f"#row-{by_model['acme/voice'].id} .thumb")).to_have_text("sound")

    page.goto(f"{peer.url}/dashboard#/predictions/{by_model['acme/voice'].id}")
    player = page.locator("audio")
    expect(player).to_be_visible()
    expect(player).to_have_js_property("duration", 0.5)
    page.goto(f"{peer.url}/dashboard#/predictions/{by_model['acme/flux-dev'].id}")
    expect(page.locator(".output img")).to_be_visible()
    assert page.locator(".output img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 320


def test_filters_stand_in_the_address_and_survive_the_way_back(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.burning(now))
    page = visitor.open(peer.url, "#/predictions")
    page.get_by_label("Status").select_option("failed or aborted")
    page.get_by_label("Model").select_option("acme/flux-dev")
    expect(page).to_have_url(f"{peer.url}/dashboard#/predictions?status=failed&model=acme%2Fflux-dev")
    expected = [row for row in peer.scene.rows if row.status == "failed" and row.model == "acme/flux-dev"]
    expect(page.locator(".listing__note")).to_have_text(f"{len(expected)} predictions")
    page.locator(".row").nth(1).click()
    expect(page.locator(".why__id")).to_have_text(expected[1].id)
    page.keyboard.press("Escape")
    expect(page.get_by_label("Status")).to_have_value("failed")
    expect(page.locator(f"#row-{expected[1].id}")).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="Clear").click()
    expect(page).to_have_url(f"{peer.url}/dashboard#/predictions")


def test_an_id_is_found_by_how_it_begins(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    wanted = peer.scene.rows[123]
    page = visitor.open(peer.url, "#/predictions")
    page.get_by_label("Search").fill(wanted.id[:14])
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".row")).to_have_attribute("data-id", wanted.id)
    page.get_by_label("Search").fill("nobody")
    expect(page.locator(".listing")).to_contain_text("No prediction fits these filters.")


def test_new_predictions_come_on_top_and_change_in_place(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, "#/predictions")
    expect(page.locator(".row").first).to_be_visible()
    page.mouse.move(5, 5)  # nobody points at the list
    peer.await_streams(1)
    first = peer.scene.rows[0]
    fresh = msgspec.structs.replace(first, id="z" * 26, created_at=now + timedelta(seconds=1))
    peer.add(fresh)
    expect(page.locator(".row").first).to_have_attribute("data-id", fresh.id)
    expect(page.locator(".row").first).to_contain_text("starting")
    peer.add(msgspec.structs.replace(fresh, status="failed", error="no luck", completed_at=now))
    expect(page.locator(".row").first).to_contain_text("no luck")


def test_nothing_moves_under_somebody_who_reads(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, "#/predictions")
    grid = page.get_by_role("grid")
    expect(page.locator(".row").first).to_be_visible()
    grid.evaluate("frame => { frame.scrollTop = 580; }")
    tenth = page.locator(f"#row-{peer.scene.rows[12].id}")
    expect(tenth).to_be_visible()
    before = tenth.bounding_box()
    peer.await_streams(1)
    for place in range(3):
        row = msgspec.structs.replace(
            peer.scene.rows[0], id=f"z{place}" * 13, created_at=now + timedelta(seconds=place + 1)
        )
        peer.add(row)
    fresh = page.get_by_role("button", name="3 new")
    expect(fresh).to_be_visible()
    assert tenth.bounding_box() == before
    fresh.click()
    expect(page.locator(".row").first).to_have_attribute("data-id", "z2" * 13)
    expect(fresh).to_have_count(0)


def test_a_rare_thing_is_searched_for_a_while_and_then_on_demand(serve: Serve, visitor: Visitor, now: datetime) -> None:
    """A page may be empty and have a next one: the page neither gives up at once nor asks for ever."""
    peer = serve(scene.healthy(now))
    page = visitor.blank(size=(1440, 900), theme="light", key=KEY)
    asked: list[str] = []

    def empty(route, request) -> None:  # type: ignore[no-untyped-def]
        asked.append(request.url)
        route.fulfill(json={"predictions": [], "next": str(len(asked))})

    page.route("**/ops/v1/predictions?**", empty)
    page.goto(f"{peer.url}/dashboard#/predictions?rescued=true")
    further = page.get_by_role("button", name="Search further back")
    expect(further).to_be_visible()
    tried = len(asked)
    assert 1 < tried <= 10
    further.click()
    expect(further).to_be_visible()
    assert tried < len(asked) <= 2 * tried


def test_a_list_that_cannot_be_had_says_so_and_tries_again(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    path = "/ops/v1/predictions"
    peer.answers[path] = (503, "The store does not take requests at the moment")
    page = visitor.open(peer.url, "#/predictions")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The store does not take requests at the moment")
    # It does not hammer: once for the list, once because the stream has come.
    assert sum(one.startswith("/ops/v1/predictions") for one in peer.asked) <= 2
    del peer.answers[path]
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".row").first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
