"""Two catalogs compared: what came, what went, what costs something else, and nothing else."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.contract.money import Price, Tier, read_when
from gateway.dashboard.change import changes_between, listing_of
from gateway.dashboard.journal import Journal
from gateway.testing import ManualClock
from tests.unit.dashboard.test_view import NORTH, OTHER, SOUTH, model


def test_what_came_went_and_costs_something_else_is_told() -> None:
    before = listing_of([model("acme/upscale", NORTH, replace(SOUTH, price=Price(per_image=20_000_000)))])
    after = listing_of(
        [model("acme/upscale", replace(SOUTH, price=Price(per_image=30_000_000, per_second=1))), model("a/b", OTHER)]
    )
    assert changes_between(before, after) == [
        "+acme/other@north",
        "-acme/upscale@north",
        "acme/upscale@south: $0.02 for images → $0.000000001 for seconds, $0.03 for images",
    ]
    assert changes_between(before, before) == []


def test_a_tier_that_costs_something_else_is_a_change() -> None:
    def listing(nanos: int) -> dict[str, str]:
        loud = Tier(when=read_when({"audio": True}), price=Price(per_video_second=nanos))
        return listing_of([model("acme/upscale", replace(SOUTH, price=Price(tiers=(loud,))))])

    assert changes_between(listing(300_000_000), listing(400_000_000)) == [
        "acme/upscale@south: $0.30 for video_seconds where audio true; no price"
        " → $0.40 for video_seconds where audio true; no price"
    ]


def test_very_many_changes_are_told_in_one_line() -> None:
    journal = Journal(ManualClock(), version="1")
    journal.catalog_changed([f"+offer-{n}" for n in range(500)])
    [told] = journal.timeline.newest(9)
    assert told.kind == "reloaded"
    assert told.text.endswith("+offer-11, and 488 more")
