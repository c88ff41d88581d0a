"""Which policy is for a prediction: by name, key, label, what the input asks for, and the clock on some wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.money import Units
from policies.document import Bound, Hours, Inputs, Match, Policy
from policies.match import DAYS, Subject, is_within, matches, shadowed

TUESDAY = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def unasked() -> Units:
    raise AssertionError("nobody needs the facts of the input here")


def subject(units: Units | None = None, **more: Any) -> Subject:
    labels = {"tier": "free", "day": "mon"}
    facts = unasked if units is None else lambda: units
    return Subject(**{"model": "acme/up", "key": "app", "labels": labels, "facts": facts, "now": TUESDAY, **more})


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), True),
        (Match(models=("acme/*",)), True),
        (Match(models=("other/*", "acme/u?")), True),
        (Match(models=("ACME/*",)), False),
        (Match(keys=("app",)), True),
        (Match(keys=("batch",)), False),
        (Match(labels={"tier": "free"}), True),
        (Match(labels={"tier": "free", "team": "x"}), False),
        (Match(models=("acme/*",), keys=("batch",)), False),
        (Match(hours=(Hours(days=("mon",)), Hours(days=("tue",)))), True),
        (Match(hours=(Hours(days=("mon",)), Hours(days=("wed",)))), False),
        # What does not fit already needs no look at the input.
        (Match(models=("other/*",), inputs=Inputs(images=Bound(at_least=1))), False),
        (Match(hours=(Hours(days=("mon",)),), inputs=Inputs(images=Bound(at_least=1))), False),
    ],
)
def test_every_part_of_a_match_must_fit(match: Match, expected: bool) -> None:
    assert matches(match, subject()) is expected


# -- input facts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", Inputs.__struct_fields__)
def test_every_fact_is_bounded_half_open_and_one_that_is_not_told_meets_no_bound(fact: str) -> None:
    def meets(amount: float | None, **bound: float) -> bool:
        return matches(Match(inputs=Inputs(**{fact: Bound(**bound)})), subject(Units(**{fact: amount})))

    assert meets(2, at_least=2)
    assert not meets(1.999, at_least=2)
    assert meets(1.999, below=2)
    assert not meets(2, below=2)
    assert meets(2, at_least=2, below=2.5)
    assert not meets(None, at_least=0)
    assert not meets(None, below=1e9)


def test_all_bounds_of_the_input_must_be_met() -> None:
    match = Match(inputs=Inputs(images=Bound(at_least=2), megapixels=Bound(below=4)))
    assert matches(match, subject(Units(images=2, megapixels=3.9)))
    assert not matches(match, subject(Units(images=2, megapixels=4)))
    assert not matches(match, subject(Units(images=1, megapixels=3.9)))


def test_each_fact_that_can_be_asked_for_is_one_that_inputs_are_reckoned_in() -> None:
    assert set(Inputs.__struct_fields__) <= set(Units.__struct_fields__)


# -- hours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "at", "expected"),
    [
        (Hours(since="08:00", until="18:00"), "2026-11-24T08:00", True),
        (Hours(since="08:00", until="18:00"), "2026-11-24T07:59:59.999999", False),
        (Hours(since="08:00", until="18:00"), "2026-11-24T17:59:59.999999", True),
        (Hours(since="08:00", until="18:00"), "2026-11-24T18:00", False),
        (Hours(since="08:00"), "2026-11-24T23:59:59", True),
        (Hours(since="22:00", until="00:00"), "2026-11-24T23:59", True),
        (Hours(since="22:00", until="00:00"), "2026-11-25T00:00", False),
        (Hours(days=("sat", "sun")), "2026-11-28T00:00", True),
        (Hours(days=("sat", "sun")), "2026-11-30T00:00", False),
        # Over midnight: it belongs to the day on which it begins. The 27th is a Friday.
        (Hours(days=("fri",), since="22:00", until="06:00"), "2026-11-27T22:00", True),
        (Hours(days=("fri",), since="22:00", until="06:00"), "2026-11-28T05:59", True),
        (Hours(days=("fri",), since="22:00", until="06:00"), "2026-11-28T06:00", False),
        (Hours(days=("fri",), since="22:00", until="06:00"), "2026-11-27T05:00", False),
        (Hours(days=("fri",), since="22:00", until="06:00"), "2026-11-28T22:00", False),
        (Hours(days=("sun",), since="22:00", until="06:00"), "2026-11-30T01:00", True),
        # Another zone, another day: 23:30 in Berlin is 22:30 in UTC, and 00:30 there is still yesterday here.
        (Hours(since="23:00", zone="Europe/Berlin"), "2026-11-24T22:30", True),
        (Hours(since="23:00", zone="Europe/Berlin"), "2026-11-24T23:30", False),
        (Hours(days=("wed",), zone="Europe/Berlin"), "2026-11-24T23:30", True),
        (Hours(days=("tue",), zone="America/Los_Angeles"), "2026-11-25T07:30", True),
        # The same hours on the wall in summer.
        (Hours(since="09:00", until="10:00", zone="Europe/Berlin"), "2026-07-01T07:30", True),
        (Hours(since="09:00", until="10:00", zone="Europe/Berlin"), "2026-01-02T08:30", True),
        (Hours(since="09:00", until="10:00", zone="Europe/Berlin"), "2026-07-01T08:30", False),
        # In the night to the 25th of October 2026 Berlin goes through 02:00 to 03:00 twice: 00:00 to 02:00 in UTC.
        (Hours(since="02:00", until="03:00", zone="Europe/Berlin"), "2026-10-24T23:59", False),
        (Hours(since="02:00", until="03:00", zone="Europe/Berlin"), "2026-10-25T00:30", True),
        (Hours(since="02:00", until="03:00", zone="Europe/Berlin"), "2026-10-25T01:30", True),
        (Hours(since="02:00", until="03:00", zone="Europe/Berlin"), "2026-10-25T02:00", False),
        # In the night to the 29th of March 2026 it leaves out 02:00 to 03:00, at 01:00 in UTC.
        (Hours(since="02:30", until="04:00", zone="Europe/Berlin"), "2026-03-29T00:59", False),
        (Hours(since="02:30", until="04:00", zone="Europe/Berlin"), "2026-03-29T01:00", True),
        (Hours(since="01:00", until="02:30", zone="Europe/Berlin"), "2026-03-29T00:59", True),
        (Hours(since="01:00", until="02:30", zone="Europe/Berlin"), "2026-03-29T01:00", False),
    ],
)
def test_hours_are_those_of_a_clock_on_the_wall(hours: Hours, at: str, expected: bool) -> None:
    assert is_within(hours, datetime.fromisoformat(at).replace(tzinfo=UTC)) is expected


minutes = st.integers(0, 24 * 60 - 1)


@given(
    since=minutes,
    length=st.integers(1, 24 * 60 - 1),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    later=st.timedeltas(timedelta(0), timedelta(days=230)),
)
def test_a_span_is_what_lies_between_its_two_times_on_the_wall(
    since: int, length: int, days: set[Any], later: timedelta
) -> None:
    at = datetime(2026, 3, 20, tzinfo=UTC) + later  # over both changes of the clock

    def text(minute: int) -> str:
        return f"{minute // 60:02d}:{minute % 60:02d}"

    hours = Hours(since=text(since), until=text((since + length) % 1440), days=tuple(days), zone="Europe/Berlin")
    wall = at.astimezone(BERLIN).replace(tzinfo=None)
    begun = [wall.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back) for back in (0, 1)]
    spans = [
        (day + timedelta(minutes=since), day + timedelta(minutes=since + length))
        for day in begun
        if DAYS[day.weekday()] in days
    ]
    assert is_within(hours, at) is any(start <= wall < end for start, end in spans)


# -- never asked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("all_of_them", [Match(), Match(models=("acme/*", "*")), Match(models=("*/*",))])
def test_what_comes_after_a_policy_that_matches_everything_is_never_asked(all_of_them: Match) -> None:
    first, wide, hidden = (
        Policy(name="a", match=Match(keys=("x",))),
        Policy(name="b", match=all_of_them),
        Policy(name="c"),
    )
    assert shadowed([first, wide, hidden]) == (wide, (hidden,))
    assert shadowed([first, wide]) is None
    assert shadowed([]) is None


@pytest.mark.parametrize(
    "some",
    [
        Match(models=("acme/*",)),
        Match(models=("*",), keys=("app",)),
        Match(labels={"tier": "free"}),
        Match(inputs=Inputs(images=Bound(at_least=1))),
        Match(hours=(Hours(since="08:00"),)),
    ],
)
def test_a_policy_that_leaves_something_hides_nothing(some: Match) -> None:
    assert shadowed([Policy(name="a", match=some), Policy(name="b")]) is None


def test_bounds_that_are_not_written_are_not_there() -> None:
    assert msgspec.to_builtins(Inputs(images=Bound(at_least=1)))["images"] == {"at_least": 1}
