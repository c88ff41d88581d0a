"""The key: asked for once, kept for the tab, refused in words."""

from __future__ import annotations

from datetime import datetime

from playwright.sync_api import expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.peer import KEY, WEAK_KEY
from tests.e2e.dashboard.visitor import Visitor


def test_the_key_is_asked_for_once_and_forgotten_on_demand(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url, "#/audit", key=None)
    field = page.get_by_label("A key with the scope admin")
    expect(field).to_be_focused()
    field.fill(f"  {KEY}\n")
    field.press("Enter")
    expect(page.get_by_role("heading", name="What people did")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="What people did")).to_be_visible()
    assert page.evaluate("localStorage.getItem('turnout.key')") is None

    page.get_by_role("button", name="forget key").click()
    expect(field).to_be_visible()
    page.reload()
    expect(field).to_be_visible()
    expect(page.locator("#connection")).to_have_count(0)


def test_a_wrong_key_is_explained(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    page = visitor.open(serve(scene.healthy(now)).url, key="to_somebody_else")
    expect(page.get_by_role("alert")).to_contain_text("This key is not known here")
    expect(page.get_by_role("alert")).to_contain_text("ends with the next start")


def test_a_key_without_the_scope_is_explained(serve: Serve, visitor: Visitor, now: datetime) -> None:
    visitor.expects_refusals = True
    page = visitor.open(serve(scene.healthy(now)).url, key=WEAK_KEY)
    expect(page.get_by_role("alert")).to_contain_text("This key may not look at operations")
    expect(page.get_by_role("alert")).to_contain_text('It needs the scope "admin"')
