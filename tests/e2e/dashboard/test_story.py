"""What people do here, clicked through from the first look to the audit trail."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec
from playwright.sync_api import expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.visitor import Visitor


def test_a_provider_in_trouble_is_taken_out_by_hand_with_a_reason(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    page = visitor.open(serve(scene.burning(now)).url)
    cell = page.locator('[data-offer="acme/flux-dev@replicate"]')
    cell.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("acme/flux-dev at replicate")
    dialog.get_by_role("button", name="Force open…").click()
    expect(dialog.get_by_label("Reason")).to_be_focused()

    dialog.get_by_role("button", name="Take it out").click()
    expect(dialog.get_by_role("alert")).to_have_text("Say why, in a word at least.")
    dialog.get_by_label("Reason").fill("they announced an outage")
    dialog.get_by_role("button", name="Take it out").click()

    expect(dialog).to_be_hidden()
    expect(page.locator("#toasts")).to_have_text("Taken out.")
    expect(cell.locator(".badge")).to_have_text("out, by hand")
    page.get_by_role("link", name="Audit").click()
    line = page.get_by_role("row").nth(1)
    expect(line).to_contain_text("forced out")
    expect(line).to_contain_text("acme/flux-dev@replicate")
    expect(line).to_contain_text("they announced an outage")
    expect(line).to_contain_text("nora")


def test_what_was_forced_can_be_released(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    cell = page.locator('[data-offer="acme/chat@together"]')
    dialog = page.get_by_role("dialog")
    for choose, confirm, word in (("Force closed…", "Keep it in", "ok, by hand"), ("Release…", "Release it", "ok")):
        cell.click()
        dialog.get_by_role("button", name=choose).click()
        dialog.get_by_label("Reason").fill("a rehearsal")
        dialog.get_by_role("button", name=confirm).click()
        expect(cell.locator(".badge")).to_have_text(word)
    assert [line.action for line in peer.scene.audit[:2]] == ["breaker.release", "breaker.close"]


def test_a_refused_deed_says_why_and_keeps_what_was_written(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    peer.answers["/ops/v1/breakers"] = (409, "There is no such offer any more")
    page = visitor.open(peer.url)
    page.locator('[data-offer="acme/chat@together"]').click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Force open…").click()
    dialog.get_by_label("Reason").fill("it is slow")
    dialog.get_by_role("button", name="Take it out").click()

    expect(dialog.get_by_role("alert")).to_contain_text("There is no such offer any more")
    expect(dialog.get_by_label("Reason")).to_have_value("it is slow")
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()


def test_a_rescued_prediction_is_found_and_says_why_it_went_there(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    peer = serve(scene.burning(now))
    rescued = next(row for row in peer.scene.rows if row.is_rescued)
    page = visitor.open(peer.url)
    page.get_by_role("link", name="41 rescued").click()
    expect(page.get_by_label("rescued only")).to_be_checked()
    rows = page.locator(".row")
    expect(rows).to_have_count(sum(row.is_rescued for row in peer.scene.rows))
    rows.first.click()

    expect(page.get_by_role("heading", level=1)).to_contain_text(rescued.model)
    expect(page.locator(".story li").nth(2)).to_contain_text("Tried fal first: it answered 503")
    expect(page.locator(".gantt__line")).to_have_count(2)
    expect(page.locator(".gantt__line").nth(0)).to_contain_text("failed")
    expect(page.locator(".gantt__line").nth(1)).to_contain_text("served")
    plan = page.get_by_role("region", name="Plan", exact=True).get_by_role("row")
    expect(plan.nth(1)).to_contain_text("cheapest that meets the deadline")
    expect(plan.nth(4)).to_contain_text("out: 4 of its last 6 attempts timed out")
    expect(page.get_by_role("region", name="Money", exact=True)).to_contain_text("released")
    expect(page.get_by_role("region", name="Deliveries", exact=True)).to_contain_text("hooks.web.example")
    page.go_back()
    expect(page.get_by_label("rescued only")).to_be_checked()
    expect(rows.first).to_contain_text(rescued.model)


def test_the_bars_of_attempts_stand_where_the_times_say(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.burning(now))
    rescued = next(row for row in peer.scene.rows if row.is_rescued)
    page = visitor.open(peer.url, f"#/predictions/{rescued.id}")
    track = page.locator(".gantt__track").nth(1).bounding_box()
    run = page.locator(".gantt__track").nth(1).locator(".gantt__bar--run").bounding_box()
    assert track is not None
    assert run is not None
    attempt = peer.scene.detail(rescued.id).attempts[1]  # type: ignore[union-attr]
    assert attempt.running_at is not None
    span = rescued.seconds * 1.04
    assert (
        abs((run["x"] - track["x"]) / track["width"] - (attempt.running_at - rescued.created_at).total_seconds() / span)
        < 0.02
    )
    assert (
        abs(run["width"] / track["width"] - (rescued.completed_at - attempt.running_at).total_seconds() / span) < 0.02
    )  # type: ignore[operator]


def test_times_that_contradict_each_other_still_make_a_picture(serve: Serve, visitor: Visitor, now: datetime) -> None:
    """A provider's own clock may say that it ran before we heard that it had the job, or for longer than all of it."""
    peer = serve(scene.healthy(now))
    row = next(row for row in peer.scene.rows if row.status == "succeeded")
    detail = peer.scene.detail(row.id)
    assert detail is not None
    early = msgspec.structs.replace(detail.attempts[0], running_at=row.created_at - timedelta(seconds=60))
    peer.scene.details[row.id] = msgspec.structs.replace(detail, attempts=(early,))
    page = visitor.open(peer.url, f"#/predictions/{row.id}")
    bars = page.locator(".gantt__bar")
    expect(bars).to_have_count(1)
    expect(bars).to_have_class(re.compile("gantt__bar--run"))
    track, bar = page.locator(".gantt__track").bounding_box(), bars.bounding_box()
    assert track is not None
    assert bar is not None
    assert track["x"] <= bar["x"]
    assert bar["x"] + bar["width"] <= track["x"] + track["width"]


def test_a_running_prediction_is_canceled_with_a_reason(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    running = next(row for row in peer.scene.rows if row.status == "processing")
    page = visitor.open(peer.url, f"#/predictions/{running.id}")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_label("Reason").fill("the customer left")
    page.get_by_role("button", name="Cancel it").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("canceled")
    expect(page.get_by_role("button", name="Cancel…")).to_have_count(0)
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("the customer left")
    page.get_by_role("row").nth(1).get_by_role("link").click()
    expect(page.locator(".why__id")).to_have_text(running.id)


def test_a_webhook_is_sent_again_with_a_reason(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    done = next(row for row in peer.scene.rows if row.status == "succeeded")
    page = visitor.open(peer.url, f"#/predictions/{done.id}")
    page.get_by_role("button", name="Redeliver…").click()
    page.get_by_label("Reason").fill("their receiver was down")
    page.get_by_role("button", name="Redeliver it").click()

    expect(page.locator("#toasts")).to_have_text("On its way again.")
    assert peer.scene.audit[0].action == "prediction.redeliver"
    assert peer.scene.audit[0].reason == "their receiver was down"


def test_a_prediction_that_ends_is_seen_to_end(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    running = next(row for row in peer.scene.rows if row.status == "processing")
    page = visitor.open(peer.url, f"#/predictions/{running.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    peer.await_streams(1)
    peer.add(msgspec.structs.replace(running, status="failed", completed_at=now, error="it fell over"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("failed")
    expect(page.locator(".why__head")).to_contain_text("it fell over")


def test_an_unknown_prediction_is_told_as_such(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    page = visitor.open(serve(scene.healthy(now)).url, "#/predictions/%E0%A4%A")
    expect(page.get_by_role("alert")).to_contain_text("There is no such thing here")
