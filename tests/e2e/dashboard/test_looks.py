"""Phone and desktop, light and dark: nothing is cut off, everything can be read."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.conftest import Serve
from tests.e2e.dashboard.visitor import DESKTOP, PHONE, Visitor

# WCAG 2: contrast of each text with the ground it stands on, as far as that is one colour.
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null;
      const colour = rgb(style.backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb(getComputedStyle(document.documentElement).backgroundColor);
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
    const isSeen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!own || !isSeen || element.closest("svg, .sr, [aria-hidden=true], .matrix__none")) continue;
    const behind = ground(element);
    if (behind === null) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(rgb(style.color)), light(behind)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight, 10) >= 700);
    if (ratio >= (isLarge ? 3 : 4.5)) continue;
    poor.push(`${ratio.toFixed(2)} ${element.className} ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""
VIEWS = ("#/", "#/predictions", "why", "#/audit")


def arrive(page: Page, view: str) -> None:
    awaited = {"#/": ".matrix .cell", "#/predictions": ".row", "why": ".story li", "#/audit": ".table--audit tbody tr"}
    expect(page.locator(awaited[view]).first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_text_has_contrast(
    serve: Serve, visitor: Visitor, now: datetime, view: str, theme: Literal["light", "dark"]
) -> None:
    peer = serve(scene.burning(now))
    rescued = next(row for row in peer.scene.rows if row.is_rescued)
    address = f"#/predictions/{rescued.id}" if view == "why" else view
    page = visitor.open(peer.url, address, theme=theme)
    arrive(page, view)
    assert page.evaluate(_CONTRAST) == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_every_view_without_sideways_scrolling(
    serve: Serve, visitor: Visitor, now: datetime, view: str
) -> None:
    peer = serve(scene.burning(now))
    rescued = next(row for row in peer.scene.rows if row.is_rescued)
    page = visitor.open(peer.url, f"#/predictions/{rescued.id}" if view == "why" else view, size=PHONE)
    arrive(page, view)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    expect(page.get_by_role("link", name="Audit")).to_be_in_viewport()
    expect(page.locator("#connection")).to_be_in_viewport()


def test_on_a_phone_a_breaker_is_forced_and_a_prediction_canceled(
    serve: Serve, visitor: Visitor, now: datetime
) -> None:
    peer = serve(scene.healthy(now))
    page = visitor.open(peer.url, size=PHONE)
    cell = page.locator('[data-offer="acme/flux-dev@fal"]')
    cell.click()
    page.get_by_role("dialog").get_by_role("button", name="Force open…").click()
    page.get_by_label("Reason").fill("from the train")
    page.get_by_role("button", name="Take it out").click()
    expect(cell.locator(".badge")).to_have_text("out, by hand")

    page.get_by_role("link", name="Predictions", exact=True).click()
    running = next(row for row in peer.scene.rows if row.status == "processing")
    page.locator(f"#row-{running.id}").click()
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_label("Reason").fill("from the train")
    page.get_by_role("button", name="Cancel it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("canceled")


def test_the_matrix_keeps_its_heads_in_sight(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.burning(now)).url, size=PHONE)
    frame = page.get_by_role("region", name="Route matrix")
    arrive(page, "#/")
    corner = frame.get_by_role("rowheader").first
    before = corner.bounding_box()
    frame.evaluate("frame => { frame.scrollLeft = 300; }")
    assert corner.bounding_box() == before


def test_colours_can_be_chosen_and_are_kept(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Colours")
    button.click()
    expect(button).to_have_text("light")
    button.click()
    expect(button).to_have_text("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(button).to_have_text("dark")
    assert page.evaluate(ground) == dark


def test_movement_can_be_turned_off(serve: Serve, visitor: Visitor, now: datetime) -> None:
    page = visitor.open(serve(scene.healthy(now)).url, size=DESKTOP)  # the visitor prefers less of it
    expect(page.locator("#connection")).to_have_text("live")
    assert page.evaluate("document.getAnimations().length") == 0
