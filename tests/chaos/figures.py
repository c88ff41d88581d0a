"""Figures that a run writes into a marked part of a page, so that none is copied by hand. Judges none of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway import __version__

README = Path(__file__).with_name("README.md")


def write_figures(name: str, lines: Sequence[str], *, page: Path = README) -> None:
    """Replace what stands between the marks of `name` on the page. Raises ValueError if it has none."""
    begin, end = f"<!-- figures of {name}: begin -->", f"<!-- figures of {name}: end -->"
    text = page.read_text("utf-8")
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page.name} has no part marked {begin!r} … {end!r}")
    page.write_text("\n".join([head + begin, *lines, end + tail]), "utf-8")


def has_part(name: str, *, page: Path = README) -> bool:
    """Whether there is a place on the page for these figures: to be asked before a run of hours."""
    return f"<!-- figures of {name}: begin -->" in page.read_text("utf-8")


def provenance() -> str:
    """What a figure is worth nothing without, beside its seed."""
    return f"{datetime.now(UTC):%Y-%m-%d} (UTC), version {__version__}"
