"""The whole page without a mouse."""

from __future__ import annotations

from datetime import datetime

from playwright.sync_api import expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.visitor import Visitor


def test_a_prediction_is_searched_for_opened_and_left_by_keys(serve: Serve, visitor: Visitor, now: datetime) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url)
    expect(page.locator("#connection")).to_have_text("live")
    keys = page.keyboard
    keys.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    keys.type("00300x0001")
    expect(page.locator(".row")).to_have_count(10)
    keys.press("Escape")
    expect(page.get_by_role("grid")).to_be_focused()
    for key in ("j", "ArrowDown", "j", "k"):
        keys.press(key)
    wanted = peer.scene.rows[11]
    expect(page.locator(f"#row-{wanted.id}")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("grid")).to_have_attribute("aria-activedescendant", f"row-{wanted.id}")
    keys.press("Enter")
    expect(page.locator(".why__id")).to_have_text(wanted.id)
    keys.press("Escape")
    expect(page.locator(f"#row-{wanted.id}")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("grid")).to_be_focused()
    keys.press("g")
    keys.press("a")
    expect(page.get_by_role("heading", name="What people did")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("grid")).to_be_visible()


def test_a_breaker_is_forced_by_keys_and_the_dialog_keeps_the_focus(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    page = visitor.open(serve(scene.burning(now)).url)
    cell = page.locator('[data-offer="acme/chat@together"]')
    cell.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    inside = (
        "document.getElementById('dialog').contains(document.activeElement) || document.activeElement === document.body"
    )
    for _ in range(9):
        page.keyboard.press("Tab")
        assert page.evaluate(inside)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cell).to_be_focused()

    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Force open…").press("Enter")
    page.keyboard.type("by hand, really")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Take it out")).to_be_focused()
    page.keyboard.press("Enter")
    expect(cell.locator(".badge")).to_have_text("out, by hand")
    expect(cell).to_be_focused()


def test_the_content_is_one_step_away_and_the_focus_is_seen(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url)
    expect(page.locator("#connection")).to_have_text("live")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    expect(page).to_have_url(page.url.partition("#")[0] + "#/")
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def test_the_keys_are_told(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url)
    expect(page.locator("#connection")).to_have_text("live")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("next and previous in the list")
