"""What budgets say of one prediction, and the words in which stores keep count. Pure; it counts nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from gateway.contract.money import format_dollars

PERIODS = ("hour", "day", "month")
DROPPED = "budget"  # code of the reason of a choice that a budget did not let through
LOCAL = "local"  # the provider that a budget with `when_spent = "local"` lets go beyond its limit
# The most that one attempt counts, and the most a budget may allow: sums stay whole numbers wherever they are kept,
# also where numbers are floats. A million dollars for one attempt is no price, and nine millions are no limit.
MOST_NANOS = 10**15
MOST_LIMIT_NANOS = 9 * 10**15


class Rule(msgspec.Struct, kw_only=True, frozen=True):
    """One budget of one policy, as ops wrote it. `by`: "policy", "key" or "label:NAME"."""

    policy: str
    budget: str  # budgets of one name count together, whatever policy they stand in
    limit_nanos: int
    per: str  # one of PERIODS
    by: str
    when_spent: str  # refuse, cheapest, local
    unknown_nanos: int | None  # reserved for an offer of unknown price; None: such a one is not started


class Hold(msgspec.Struct, kw_only=True, frozen=True):
    """What one budget says of a prediction, in the window that runs now."""

    counter: str  # what is counted together, see `counter_of`
    limit_nanos: int
    ends_at: datetime  # of the window; its first moment is of the next one
    when_spent: str = "refuse"
    unknown_nanos: int | None = None
    is_soft: bool = False  # it counts, and refuses nothing


class Reservation(msgspec.Struct, kw_only=True, frozen=True):
    """
    Money put aside for one attempt, under every budget it falls under. Each counter stands in it once.

    `fence` is that of the lease under which it is asked for: what an older holder asks for changes nothing any more.
    """

    id: str  # see `reservation_id`
    nanos: int
    holds: tuple[Hold, ...]
    fence: int = 0


class Refusal(msgspec.Struct, kw_only=True, frozen=True):
    """The first hold that had not enough left, and its figures at that moment, without the reservation's own."""

    hold: Hold
    settled_nanos: int
    reserved_nanos: int


class Spending(msgspec.Struct, kw_only=True, frozen=True):
    """What a counter has come to in one window."""

    counter: str
    ends_at: datetime
    limit_nanos: int  # of whoever reserved last
    settled_nanos: int
    reserved_nanos: int
    open: int  # reservations that make up what is reserved


class Reserved(msgspec.Struct, kw_only=True, frozen=True):
    """A reservation as it is kept. `nanos` is what was reserved; of one that is settled, what it came to."""

    id: str
    nanos: int
    counters: tuple[str, ...]
    at: datetime  # when it was reserved last, or settled first
    is_open: bool
    fence: int = 0
    revision: int = 0  # of its prediction, when what is said here was true


class Counter(NamedTuple):
    """What a counter's name says. `of` is the key or the label's value, empty for all of a policy."""

    budget: str
    by: str
    of: str
    per: str
    window: str  # 2026-11-24T13, 2026-11-24 or 2026-11


def window_of(per: str, at: datetime) -> tuple[str, datetime]:
    """Name and end of the hour, day or month (UTC) in which `at` lies."""
    at = at.astimezone(UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "hour":
        hour = day.replace(hour=at.hour)
        return f"{hour:%Y-%m-%dT%H}", hour + timedelta(hours=1)
    if per == "day":
        return f"{day:%Y-%m-%d}", day + timedelta(days=1)
    if per == "month":
        first = day.replace(day=1)
        return f"{first:%Y-%m}", (first + timedelta(days=32)).replace(day=1)
    raise ValueError(f"{per!r} is none of {', '.join(PERIODS)}")


def counter_of(budget: str, *, by: str, of: str, per: str, window: str) -> str:
    """One word of printable ASCII without a blank, whatever is in the names."""
    return "|".join(quote(part, safe=":", errors="replace") for part in (budget, by, of, per, window))


def read_counter(counter: str) -> Counter:
    budget, by, of, per, window = map(unquote, counter.split("|"))
    return Counter(budget, by, of, per, window)


def hold_of(rule: Rule, *, key: str, labels: Mapping[str, str], now: datetime) -> Hold:
    """Predictions without the label share one counter: leaving it out is no way round the budget."""
    of = key if rule.by == "key" else ""
    if rule.by.startswith("label:"):
        of = labels.get(rule.by.removeprefix("label:"), "")
    window, ends_at = window_of(rule.per, now)
    return Hold(
        counter=counter_of(rule.budget, by=rule.by, of=of, per=rule.per, window=window),
        limit_nanos=rule.limit_nanos,
        ends_at=ends_at,
        when_spent=rule.when_spent,
        unknown_nanos=rule.unknown_nanos,
    )


def reservation_id(prediction: str, attempt: int) -> str:
    return f"{prediction}/{attempt}"


def read_reservation_id(id: str) -> tuple[str, int]:
    prediction, _, attempt = id.rpartition("/")
    return prediction, int(attempt)


def say(hold: Hold) -> str:
    """Which budget, as a person calls it: `"eu" of key acme ($10.00 a day)`."""
    counter = read_counter(hold.counter)
    whose = ""
    if counter.by == "key":
        whose = f" of key {counter.of}"
    elif counter.by != "policy":
        label = counter.by.removeprefix("label:")
        whose = f" of {label} = {counter.of}" if counter.of else f" of what has no label {label}"
    article = "an" if counter.per == "hour" else "a"
    return f'"{counter.budget}"{whose} ({format_dollars(hold.limit_nanos)} {article} {counter.per})'
