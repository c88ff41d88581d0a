"""Windows, counters and the words for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.contract.attempt import Attempt
from gateway.contract.budget import (
    MOST_LIMIT_NANOS,
    PERIODS,
    Counter,
    Rule,
    counter_of,
    hold_of,
    read_counter,
    read_reservation_id,
    reservation_id,
    say,
    window_of,
)
from gateway.contract.route import Plan
from tests.unit.engine.world import an_attempt

NOW = datetime(2026, 11, 24, 13, 59, 59, 999999, tzinfo=UTC)


def rule(**changes: object) -> Rule:
    known = {"policy": "p", "budget": "eu", "limit_nanos": 10**10, "per": "day", "by": "policy"}
    return Rule(**(known | {"when_spent": "refuse", "unknown_nanos": None} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("per", "at", "name", "ends_at"),
    [
        ("hour", NOW, "2026-11-24T13", datetime(2026, 11, 24, 14, tzinfo=UTC)),
        ("day", NOW, "2026-11-24", datetime(2026, 11, 25, tzinfo=UTC)),
        ("month", NOW, "2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2028, 2, 29, tzinfo=UTC), "2028-02", datetime(2028, 3, 1, tzinfo=UTC)),
        ("hour", datetime(2026, 12, 31, 23, tzinfo=UTC), "2026-12-31T23", datetime(2027, 1, 1, tzinfo=UTC)),
        (
            "day",
            datetime(2026, 11, 25, 0, 30, tzinfo=timezone(timedelta(hours=1))),
            "2026-11-24",
            datetime(2026, 11, 25, tzinfo=UTC),
        ),
    ],
)
def test_the_window_of_a_moment(per: str, at: datetime, name: str, ends_at: datetime) -> None:
    assert window_of(per, at) == (name, ends_at)


@given(st.integers(0, 10**17), st.sampled_from(PERIODS))
def test_windows_follow_each_other_without_a_gap(microseconds: int, per: str) -> None:
    at = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    name, ends_at = window_of(per, at)
    assert at < ends_at
    assert window_of(per, ends_at - timedelta(microseconds=1)) == (name, ends_at)
    following, later = window_of(per, ends_at)
    assert following > name
    assert later > ends_at


def test_no_other_periods_are_known() -> None:
    with pytest.raises(ValueError, match="'week' is none of hour, day, month"):
        window_of("week", NOW)


_words = st.text(max_size=20)


@given(_words, _words, _words)
def test_a_counter_reads_as_it_was_made_and_is_one_word(budget: str, by: str, of: str) -> None:
    counter = counter_of(budget, by=by, of=of, per="day", window="2026-11-24")
    assert read_counter(counter) == Counter(budget, by, of, "day", "2026-11-24")
    assert counter.isascii()
    assert counter.isprintable()
    assert counter.split() == [counter]


def test_what_counts_together_has_one_counter_and_nothing_else_has() -> None:
    labels = {"team": "red"}
    hours = [rule(per="hour", by=by) for by in ("policy", "key", "label:team")]
    names = [hold_of(one, key="alice", labels=labels, now=NOW).counter for one in hours]
    assert names == [
        "eu|policy||hour|2026-11-24T13",
        "eu|key|alice|hour|2026-11-24T13",
        "eu|label:team|red|hour|2026-11-24T13",
    ]
    assert hold_of(hours[0], key="bob", labels={}, now=NOW).counter == names[0]
    assert hold_of(hours[1], key="bob", labels=labels, now=NOW).counter != names[1]
    nameless = {hold_of(hours[2], key=key, labels={"other": "x"}, now=NOW).counter for key in ("alice", "bob")}
    assert len(nameless) == 1, "leaving the label out is no way round"


@pytest.mark.parametrize(
    ("by", "labels", "per", "said"),
    [
        ("policy", {}, "day", '"eu" ($10.00 a day)'),
        ("key", {}, "hour", '"eu" of key alice ($10.00 an hour)'),
        ("label:team", {"team": "red"}, "month", '"eu" of team = red ($10.00 a month)'),
        ("label:team", {}, "month", '"eu" of what has no label team ($10.00 a month)'),
    ],
)
def test_how_it_is_called(by: str, labels: dict[str, str], per: str, said: str) -> None:
    assert say(hold_of(rule(by=by, per=per), key="alice", labels=labels, now=NOW)) == said


def test_the_id_of_a_reservation_is_of_one_attempt() -> None:
    assert read_reservation_id(reservation_id("abc", 12)) == ("abc", 12)


def test_sums_up_to_the_greatest_limit_are_whole_as_floats_too() -> None:
    assert MOST_LIMIT_NANOS < 2**53


def test_plans_and_attempts_from_before_there_were_budgets_are_read() -> None:
    plan = Plan(policy="p", choices=(), max_attempts=1, pay_twice_up_to_nanos=0)
    fields = msgspec.to_builtins(plan)
    del fields["holds"]
    assert msgspec.convert(fields, Plan) == plan
    held = replace(plan, holds=(hold_of(rule(), key="a", labels={}, now=NOW),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(held), type=Plan) == held
    attempt = an_attempt(1)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(attempt))
    del fields["reserved_nanos"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=Attempt) == attempt
