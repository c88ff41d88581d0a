"""The live feed: it breaks, waits, comes back, is paused, and says so each time."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from playwright.sync_api import expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.peer import KEY
from tests.e2e.dashboard.visitor import DESKTOP, Visitor

_HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_broken_stream_is_told_and_taken_up_again_with_what_was_missed(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, "#/predictions")
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    peer.await_streams(1)
    page.mouse.move(5, 5)

    peer.answers["/ops/v1/events"] = (503, "Draining")
    peer.break_streams()
    expect(connection).to_contain_text("reconnecting in")
    missed = msgspec.structs.replace(peer.scene.rows[0], id="y" * 26, created_at=now + timedelta(seconds=1))
    peer.scene.rows.insert(0, missed)
    del peer.answers["/ops/v1/events"]

    expect(connection).to_have_text("live")
    expect(page.locator(".row").first).to_have_attribute("data-id", missed.id)


def test_waiting_grows_with_each_failure(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    page = visitor.blank(size=DESKTOP, theme="light", key=KEY)
    page.clock.install(time=now)
    page.goto(f"{peer.url}/dashboard#/")
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    peer.await_streams(1)
    page.clock.pause_at(now + timedelta(seconds=25))  # from here on time passes only when it is told to
    peer.answers["/ops/v1/events"] = (503, "Draining")
    peer.break_streams()
    waited = []
    for _ in range(6):
        expect(connection).to_contain_text("reconnecting in")
        waited.append(int((connection.text_content() or "").split()[-2]))
        with page.expect_response("**/ops/v1/events"):
            page.clock.run_for(waited[-1] * 1_000)
    assert all(seconds <= 2**failures for failures, seconds in enumerate(waited)), waited
    assert waited[-1] > 8, waited


def test_it_can_be_paused_and_then_catches_up(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    peer.await_streams(1)
    connection.click()
    expect(connection).to_have_text("paused")
    peer.await_streams(0)
    peer.change(totals=msgspec.structs.replace(peer.scene.overview.totals, rescued=77))
    expect(page.get_by_role("link", name="12 rescued")).to_be_visible()

    connection.click()
    expect(connection).to_have_text("live")
    expect(page.get_by_role("link", name="77 rescued")).to_be_visible()


def test_a_page_nobody_looks_at_lets_go_and_resumes_when_it_is_seen(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.blank(size=DESKTOP, theme="light", key=KEY)
    page.clock.install()
    page.goto(f"{peer.url}/dashboard#/")
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    page.evaluate(_HIDE, True)
    page.clock.run_for(20_000)
    expect(connection).to_have_text("live")  # a short look elsewhere costs nothing
    page.clock.run_for(300_000)
    expect(connection).to_have_text("paused")
    page.evaluate(_HIDE, False)
    expect(connection).to_have_text("live")


def test_a_stream_that_falls_silent_is_given_up(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.blank(size=DESKTOP, theme="light", key=KEY)
    page.clock.install()
    page.goto(f"{peer.url}/dashboard#/")
    expect(page.locator("#connection")).to_have_text("live")
    peer.await_streams(1)
    peer.answers["/ops/v1/events"] = (503, "Draining")
    page.clock.run_for(46_000)
    expect(page.locator("#connection")).to_contain_text("reconnecting in")


def test_nonsense_in_the_stream_is_survived(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    peer.await_streams(1)
    peer.answers["/ops/v1/events"] = (503, "Draining")  # or it might be live again before anybody has looked
    peer._to_all(b"event: overview\ndata: {not json\n\n")
    expect(page.locator("#connection")).to_contain_text("reconnecting in")
    del peer.answers["/ops/v1/events"]
    expect(page.locator("#connection")).to_have_text("live")
    peer.await_streams(1)
    peer._to_all(b"event: unknown\r\ndata: 1\r\n\r\n: a comment\r\n\r\n")
    peer.change(totals=msgspec.structs.replace(peer.scene.overview.totals, rescued=78))
    expect(page.get_by_role("link", name="78 rescued")).to_be_visible()


def test_a_key_that_ends_while_the_page_is_open_is_asked_for_again(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    visitor.expects_refusals = True
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    peer.await_streams(1)
    peer.answers["/ops/v1/events"] = (401, "You did not pass a valid authentication token")
    peer.break_streams()
    expect(page.get_by_role("alert")).to_contain_text("This key is not known here")
    expect(page.get_by_label("A key with the scope admin")).to_be_focused()
