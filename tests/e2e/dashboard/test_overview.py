"""The first screen: what is wrong, for whom, in the order in which ops look."""

from __future__ import annotations

from datetime import datetime

import msgspec
from playwright.sync_api import Locator, Page, expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.parts import OUT, matrix_of
from tests.e2e.dashboard.visitor import Visitor


def panel(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def test_a_healthy_gateway_is_told_in_two_words(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url)

    expect(page.get_by_role("heading", level=1)).to_have_text("All well")
    expect(page.locator("#spoken")).to_have_text("All well")
    expect(page).to_have_title("✓ All well · Turnout")
    expect(panel(page, "Failing now")).to_contain_text("Nothing failed in the last 15 minutes.")
    expect(panel(page, "Stuck jobs and dead receivers")).to_contain_text("No job is stuck")


def test_what_fails_stands_first_and_says_for_whom(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.burning(now)).url)

    verdict = "No offer left for acme/voice, 2 providers out, 3 models affected, 41 predictions rescued"
    expect(page.get_by_role("heading", level=1)).to_have_text(verdict)
    expect(page.locator("#spoken")).to_have_text(verdict)
    expect(page.get_by_label("Verdict")).to_contain_text(
        "Also 38 predictions failed for studio and mobile, 1 job stuck, 1 receiver dead, burn over budget."
    )
    first = panel(page, "Failing now").get_by_role("listitem").first
    expect(first).to_contain_text("38")
    expect(first).to_contain_text("acme/voice")
    expect(first).to_contain_text("for studio 29, mobile 9")


def test_a_provider_that_is_out_says_why_and_until_when(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.burning(now)).url)

    first, second = (panel(page, "Providers").get_by_role("listitem").nth(place) for place in (0, 1))
    expect(first).to_contain_text("out")
    expect(first).to_contain_text("fal")
    expect(first).to_contain_text("9 of its last 12 attempts failed: server_error")
    expect(first.locator("time")).to_contain_text("again in")
    expect(second).to_contain_text("elevenlabs")
    expect(second.locator("time")).to_have_text("again in 24 min")


def test_money_time_and_stuck_work_are_told_in_numbers(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.burning(now)).url)

    money = panel(page, "Burn")
    expect(money).to_contain_text("$17.93 of $15.00 an hour")
    expect(money).to_contain_text("price unknown4.7 %")
    expect(money).to_contain_text("maybe billed3, $0.84")
    slowest = panel(page, "Latency").get_by_role("row").nth(1)
    expect(slowest).to_contain_text("acme/kling-video")
    expect(slowest.get_by_role("cell").nth(1)).to_have_text("7")
    expect(panel(page, "Latency")).to_contain_text("9 deadlines missed")
    expect(panel(page, "Pipeline").get_by_role("listitem").nth(1)).to_contain_text("24")
    expect(panel(page, "Pipeline").get_by_role("listitem").nth(1)).to_contain_text("18 min")
    stuck = panel(page, "Stuck jobs and dead receivers")
    expect(stuck).to_contain_text("running for 18 min; 95 % of its like are done after 1 min 34 s")
    expect(stuck).to_contain_text("hooks.studio.example")


def test_the_latency_table_fits_and_shows_only_what_takes_time(serve: Serve, visitor: Visitor, now: datetime) -> None:
    for scene_of, lost in ((scene.healthy, 0), (scene.burning, 1)):
        page = visitor.open(serve(scene_of(now)).url)
        table = page.locator(".latency")
        expect(table.get_by_role("columnheader", name="ours", exact=True)).to_be_in_viewport(ratio=1)
        expect(table.get_by_role("columnheader", name="lost", exact=True)).to_have_count(lost)
        assert (
            page.evaluate("(f => f.scrollWidth - f.clientWidth)(document.querySelector('.panel--latency .frame'))") <= 0
        )


def test_what_may_be_billed_at_an_unknown_price_is_not_nothing(serve: Serve, visitor: Visitor, now: datetime) -> None:
    told = scene.burning(now)
    burn = msgspec.structs.replace(told.overview.burn, maybe=11, maybe_nanos=0)
    told.overview = msgspec.structs.replace(told.overview, burn=burn)
    page = visitor.open(serve(told).url)
    expect(panel(page, "Burn")).to_contain_text("maybe billed11, price unknown")


def test_every_state_in_the_matrix_has_a_word_and_a_shape(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.burning(now)).url)

    matrix = panel(page, "Routes")
    shapes = set()
    for place, word in {
        "acme/flux-dev@fal": "out",
        "acme/flux-dev@replicate": "ok",
        "acme/flux-dev@runpod": "probing",
        "acme/whisper@together": "limited",
    }.items():
        cell = matrix.locator(f'[data-offer="{place}"]')
        expect(cell.locator(".badge")).to_have_text(word)
        shapes.add(cell.locator(".badge svg").inner_html())
    assert len(shapes) == 4
    expect(matrix.get_by_role("columnheader", name="replicate")).to_be_visible()
    expect(matrix.get_by_role("rowheader", name="acme/kling-video")).to_be_visible()


def test_an_unused_gateway_tells_how_to_make_the_first_request(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.empty(now))
    page = visitor.open(peer.url)

    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
    expect(page.locator("#first-command")).to_contain_text(f"curl -s {peer.url}/v1/models/acme/flux-dev/predictions")
    page.get_by_role("link", name="Predictions", exact=True).click()
    expect(page.locator(".listing")).to_contain_text("Nothing was asked for yet.")


def test_the_frame_stands_before_the_first_answer_and_stays_where_it_is(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    peer = serve(scene.burning(now))
    peer.gate.clear()
    page = visitor.open(peer.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Asking the gateway…")
    titles = ("Failing now", "Providers", "Burn")
    before = {title: panel(page, title).bounding_box() for title in titles}

    peer.gate.set()
    expect(page.get_by_role("heading", level=1)).to_contain_text("No offer left")
    for title in titles:
        box, was = panel(page, title).bounding_box(), before[title]
        assert box is not None
        assert was is not None
        assert (box["x"], box["width"], box["height"]) == (was["x"], was["width"], was["height"])
        assert abs(box["y"] - was["y"]) <= 10  # the verdict may take a second line


def test_an_update_leaves_focus_scrolling_and_layout_alone(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, size=(800, 700))
    expect(page.locator("#connection")).to_have_text("live")
    cell = page.locator('[data-offer="acme/chat@local"]')
    cell.focus()
    frame = page.get_by_role("region", name="Route matrix")
    where = "frame => [frame.scrollLeft, frame.scrollTop]"
    scrolled, box = frame.evaluate(where), cell.bounding_box()
    assert scrolled[0] > 0

    overview = peer.scene.overview
    peer.change(
        totals=msgspec.structs.replace(overview.totals, succeeded=4_321),
        matrix=matrix_of(now, OUT),
    )
    expect(page.get_by_label("Verdict")).to_contain_text("4,321")
    expect(page.locator('[data-offer="acme/flux-dev@fal"]')).to_contain_text("out")
    expect(cell).to_be_focused()
    assert frame.evaluate(where) == scrolled
    after = cell.bounding_box()
    assert box is not None
    assert after is not None
    assert max(abs(after[side] - box[side]) for side in ("x", "y", "width", "height")) <= 1


def test_what_happens_appears_by_itself_and_once(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    peer.await_streams(1)
    first = panel(page, "What happened").get_by_role("listitem").first
    expect(first).to_be_visible()  # an overview that was asked for before knows nothing of what happens now

    peer.happen("ejected", "together is out for 30 s", text="timeouts")
    expect(first).to_contain_text("together is out for 30 s")
    peer.change()
    peer.happen("recovered", "together is back")
    expect(first).to_contain_text("together is back")
    expect(panel(page, "What happened").get_by_text("together is out for 30 s")).to_have_count(1)


def test_a_gateway_that_cannot_answer_is_told_with_what_to_do(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    peer.answers["/ops/v1/overview"] = (503, "The store does not take requests at the moment")
    page = visitor.open(peer.url)

    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The gateway could not answer")
    expect(alert).to_contain_text("The store does not take requests at the moment. Its log says why")
    del peer.answers["/ops/v1/overview"]
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("All well")
    expect(page.get_by_role("alert")).to_have_count(0)
