"""Texts written to break the page: nothing of them runs, nothing leaves, nothing is pushed out of its place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.hostile import STRINGS, hostile
from tests.e2e.dashboard.peer import OpsPeer
from tests.e2e.dashboard.visitor import DESKTOP, PHONE, Visitor

# Elements that no text may bring along, attributes that run, addresses that are none of ours.
_INTRUDERS = """() => {
  const found = [];
  for (const element of document.querySelectorAll("*")) {
    if (["SCRIPT", "IFRAME", "OBJECT", "EMBED", "STYLE", "BASE", "LINK", "META"].includes(element.tagName)
        && !document.head.contains(element)) found.push(element.outerHTML.slice(0, 200));
    for (const { name, value } of element.attributes) {
      if (name.startsWith("on") || name === "srcdoc") found.push(`${name}=${value}`.slice(0, 200));
      const isAddress = name === "href" || name === "src";
      const isStrange = isAddress && !/^(https?:|#|\\/)/.test(value);
      const isElsewhere = name === "src" && /^(https?:)?\\/\\//.test(value);
      if (isStrange || isElsewhere) found.push(`${name}=${value}`.slice(0, 200));
    }
  }
  return found;
}"""
_WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SEEN_CONTROLS = (
    r"/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)"
)


@pytest.fixture
def peer(serve: Serve, now: datetime) -> Iterator[OpsPeer]:
    peer = serve(hostile(now))
    yield peer
    # What a browser would ask for if it took a text for an address.
    strange = [path for path in peer.asked if not path.startswith(("/dashboard", "/ops/v1/", "/artifacts/"))]
    assert strange == []


def is_unharmed(page: Page) -> None:
    assert page.evaluate("window.ran") is None
    assert page.evaluate(_INTRUDERS) == []
    assert page.evaluate(_WIDTH) <= 0, "something is wider than the window"
    assert page.evaluate(_SEEN_CONTROLS) is False
    assert page.evaluate("Object.getPrototypeOf({}).polluted") is None


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_overview_bears_hostile_texts(visitor: Visitor, peer: OpsPeer, size: tuple[int, int]) -> None:
    page = visitor.open(peer.url, size=size)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator(".matrix .cell").first).to_be_visible()
    for panel in ("failing", "providers", "timeline", "latency", "matrix"):
        expect(page.locator(f".panel--{panel}")).to_contain_text("<script>window.ran = 1; alert(1)</script>")
    is_unharmed(page)
    first = page.get_by_label("Verdict").bounding_box()
    assert first is not None
    assert first["height"] < size[1] * 0.6


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_list_bears_hostile_texts(visitor: Visitor, peer: OpsPeer, size: tuple[int, int]) -> None:
    page = visitor.open(peer.url, "#/predictions", size=size)
    expect(page.locator(".row").first).to_be_visible()
    page.get_by_role("grid").press("End")
    expect(page.locator(f'[data-id="{peer.scene.rows[-1].id}"]')).to_be_visible()
    is_unharmed(page)
    heights = page.evaluate("[...new Set([...document.querySelectorAll('.row')].map((row) => row.offsetHeight))]")
    assert len(heights) == 1


@pytest.mark.parametrize("place", range(len(STRINGS)))
def test_the_page_of_a_prediction_bears_hostile_texts(visitor: Visitor, peer: OpsPeer, place: int) -> None:
    visitor.expects_refusals = True  # the addresses of its pictures lead nowhere
    row = peer.scene.rows[place]
    page = visitor.open(peer.url, f"#/predictions/{row.id}", size=DESKTOP if place % 2 else PHONE)
    expect(page.locator(".story li")).to_have_count(len(STRINGS))
    expect(page.locator(".story li").first).to_have_text(STRINGS[0])
    is_unharmed(page)


def test_markup_is_shown_as_it_was_written(visitor: Visitor, peer: OpsPeer) -> None:
    row = peer.scene.rows[0]
    page = visitor.open(peer.url, f"#/predictions/{row.id}")
    visitor.expects_refusals = True
    for place in (0, 1, 2, 3, 5):
        expect(page.locator(".story li").nth(place)).to_have_text(STRINGS[place])
    # An override would turn the rest of the line round; a NUL would end it in other eyes.
    expect(page.locator(".story li").nth(6)).to_contain_text("⟨U+202E⟩gnp.exe⟨U+202C⟩")
    expect(page.locator(".story li").nth(7)).to_contain_text("nul␀ bell␇ escape␛[31mred")


def test_the_audit_trail_and_dialogs_bear_hostile_texts(visitor: Visitor, peer: OpsPeer) -> None:
    page = visitor.open(peer.url, "#/audit")
    expect(page.get_by_role("row")).to_have_count(len(peer.scene.audit) + 1)
    is_unharmed(page)
    page.get_by_role("link", name="Overview", exact=True).click()
    for cell in page.locator(".matrix .cell").all():
        cell.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        is_unharmed(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_hostile_texts_that_come_by_the_stream_are_borne(visitor: Visitor, peer: OpsPeer) -> None:
    page = visitor.open(peer.url, "#/predictions")
    expect(page.locator(".row").first).to_be_visible()
    peer.await_streams(1)
    for place, text in enumerate(STRINGS):
        peer.add(msgspec.structs.replace(peer.scene.rows[place], error=text, owner=text, status="failed"))
        peer.happen("refused", text, text=text, who=text)
    expect(page.locator(".row").nth(8)).to_contain_text("failed")
    is_unharmed(page)
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.locator(".event")).to_have_count(len(peer.scene.overview.timeline))
    is_unharmed(page)
