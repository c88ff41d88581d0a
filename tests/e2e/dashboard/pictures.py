"""The README's pictures of the dashboard: `python -m tests.e2e.dashboard.pictures [FOLDER]`. Asserts nothing."""

from __future__ import annotations

import io
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.e2e.dashboard import scene
from tests.e2e.dashboard.peer import KEY, OpsPeer
from tests.e2e.dashboard.visitor import DESKTOP, PHONE, Visitor

FOLDER = Path(__file__).parents[3] / ".github" / "images"
MOST_BYTES = 250_000
_LOADED = """() => Promise.all([...document.images]
  .filter((image) => image.getBoundingClientRect().top < innerHeight)
  .map((image) => image.decode()))"""


class Shot(NamedTuple):
    name: str
    state: Literal["healthy", "burning"]
    address: str  # "why": of a rescued prediction
    awaited: str
    size: tuple[int, int]
    theme: Literal["light", "dark"]


SHOTS = (
    Shot("dashboard-healthy", "healthy", "#/", ".matrix .cell", (1440, 1160), "light"),
    Shot("dashboard-burning", "burning", "#/", ".matrix .cell", (1440, 1160), "dark"),
    Shot("dashboard-why", "burning", "why", ".output img", (1440, 1000), "light"),
    Shot("dashboard-list", "burning", "#/predictions", ".row img", DESKTOP, "light"),
    Shot("dashboard-phone", "burning", "#/", ".matrix .cell", PHONE, "dark"),
)


def take(shots: tuple[Shot, ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        with playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser:
            for shot in shots:
                with Visitor(browser) as visitor:
                    _save(folder / f"{shot.name}.png", _shoot(visitor, shot))


def _shoot(visitor: Visitor, shot: Shot) -> bytes:
    state = getattr(scene, shot.state)(datetime.now(UTC))
    rescued = next(row for row in state.rows if row.is_rescued and row.output[0].kind == "image")
    address = f"#/predictions/{rescued.id}" if shot.address == "why" else shot.address
    with OpsPeer(state) as peer:
        page = visitor.open(peer.url, address, size=shot.size, theme=shot.theme, key=KEY)
        peer.await_streams(1)
        page.locator(shot.awaited).first.wait_for()
        page.evaluate(_LOADED)
        return page.screenshot(animations="disabled")


def _save(path: Path, raw: bytes) -> None:
    """With a palette: a page has few colours, and a repository is not an album."""
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has {size} bytes, more than {MOST_BYTES}")
    print(f"{path.name}: {size} bytes")


if __name__ == "__main__":
    take(SHOTS, Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
