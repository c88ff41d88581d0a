"""Whether a policy is for a prediction, and which policies are never asked. Keeps and ranks no offer."""

from __future__ import annotations

import functools
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase

import msgspec

from gateway.contract.money import Units
from policies.document import ANY, Bound, Hours, Inputs, Match, Policy

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EVERY_MODEL = frozenset({"*", "*/*"})
_NO_INPUTS = Inputs()
_YESTERDAY = timedelta(days=-1)


class Subject(msgspec.Struct, kw_only=True, frozen=True):
    """
    What matters of a prediction for its policy. `facts` is called only if a policy asks for one; `now` is aware.

    `key` is the name of the API key that made it.
    """

    model: str
    key: str
    labels: Mapping[str, str]
    facts: Callable[[], Units]
    now: datetime


def matches(match: Match, subject: Subject) -> bool:
    """Whether every part of it fits. What costs most is looked at last."""
    return (
        (not match.models or any(fnmatchcase(subject.model, pattern) for pattern in match.models))
        and (not match.keys or subject.key in match.keys)
        and all(subject.labels.get(name) == value for name, value in match.labels.items())
        and (not match.hours or any(is_within(hours, subject.now) for hours in match.hours))
        and (match.inputs == _NO_INPUTS or _meets(match.inputs, subject.facts()))
    )


def is_within(hours: Hours, now: datetime) -> bool:
    """
    Whether a clock on the wall in the zone shows a time of the span.

    An hour that the clock goes through twice is in it twice, one that it leaves out is not missed: a span that would
    begin in it begins when it is over.
    """
    local = now.astimezone(read_zone(hours.zone))
    since, until = read_minutes(hours.since), read_minutes(hours.until)
    minute = local.hour * 60 + local.minute
    if since < until:
        return since <= minute < until and _begins_on(hours, local)
    # Over midnight: what is left of it belongs to the day on which it began.
    return (minute >= since and _begins_on(hours, local)) or (minute < until and _begins_on(hours, local + _YESTERDAY))


def _begins_on(hours: Hours, day: datetime) -> bool:
    return not hours.days or DAYS[day.weekday()] in hours.days


@functools.lru_cache(maxsize=256)
def read_zone(name: str) -> tzinfo:
    """Raises LookupError, ValueError or OSError where there is none of that name. UTC needs no database of zones."""
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


@functools.lru_cache(maxsize=2048)
def read_minutes(text: str) -> int:
    """Minutes since midnight of `HH:MM`; `24:00` is the next one. Raises ValueError."""
    hours, _, minutes = text.partition(":")
    if len(hours) == len(minutes) == 2 and (hours + minutes).isdecimal() and text.isascii():
        total = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and total <= 24 * 60:
            return total
    raise ValueError(f'"{text}" is no time of the day such as "08:30"')


def _meets(inputs: Inputs, facts: Units) -> bool:
    return all(is_met(bound, getattr(facts, fact)) for fact, bound in bounds(inputs))


@functools.lru_cache(maxsize=1024)
def bounds(inputs: Inputs) -> tuple[tuple[str, Bound], ...]:
    """Those that say anything, by the name of their fact."""
    every = ((fact, getattr(inputs, fact)) for fact in inputs.__struct_fields__)
    return tuple((fact, bound) for fact, bound in every if bound != ANY)


def is_met(bound: Bound, amount: float | None) -> bool:
    """Half open. An amount that is not known meets none."""
    if amount is None:
        return False
    return (bound.at_least is msgspec.UNSET or amount >= bound.at_least) and (
        bound.below is msgspec.UNSET or amount < bound.below
    )


def is_for_all(match: Match) -> bool:
    """Whether it leaves nothing to the policies after it."""
    rest = msgspec.structs.replace(match, models=())
    return rest == Match() and (not match.models or not _EVERY_MODEL.isdisjoint(match.models))


def shadowed(policies: Sequence[Policy]) -> tuple[Policy, tuple[Policy, ...]] | None:
    """The first policy that matches everything and those after it, which are never asked; None if there are none."""
    for place, policy in enumerate(policies, 1):
        if is_for_all(policy.match):
            return (policy, tuple(policies[place:])) if place < len(policies) else None
    return None
