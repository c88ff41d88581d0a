"""What fits the types of a policy and still makes no sense, with what to do about it. Knows no lines, opens no file."""

from __future__ import annotations

import itertools
import re
import zoneinfo
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from gateway.contract.money import parse_dollars
from gateway.contract.toml import Path
from gateway.contract.wording import nearest, printable
from policies import budget
from policies.document import ANY, Bound, Goal, Hours, Match, Policy, Rank
from policies.duration import seconds_of
from policies.match import read_minutes, read_zone

_NAME = re.compile(r"[^#@\s]+(#[1-9]\d*)?")
_STICKY = re.compile(r"key|label:\S.*")


class Problem(NamedTuple):
    path: Path
    problem: str
    remedy: str


def mistakes(policy: Policy) -> Iterator[Problem]:
    return itertools.chain(
        _of_match(policy.match),
        _of_keep(policy),
        _of_rank(policy.rank),
        _of_goal(policy.rank),
        _of_fallback(policy),
        itertools.starmap(Problem, budget.mistakes(policy)),
    )


def _of_match(match: Match) -> Iterator[Problem]:
    for fact in match.inputs.__struct_fields__:
        yield from _of_bound(("match", "inputs", fact), getattr(match.inputs, fact))
    for index, hours in enumerate(match.hours):
        yield from _of_hours(("match", "hours", index), hours)


def _of_bound(path: Path, bound: Bound) -> Iterator[Problem]:
    if bound == ANY and bound is not ANY:  # an empty table stands there; the default is this very ANY
        yield Problem(path, "it bounds nothing", "write at_least, below, or both")
    elif bound.at_least is not msgspec.UNSET and bound.below is not msgspec.UNSET and bound.at_least >= bound.below:
        yield Problem((*path, "below"), "no number is so", "write a number that is more than at_least")


def _of_hours(path: Path, hours: Hours) -> Iterator[Problem]:
    read = {}
    for key, text in (("from", hours.since), ("to", hours.until)):
        try:
            read[key] = read_minutes(text)
        except ValueError as error:
            yield Problem((*path, key), printable(str(error)), f'write {key} = "HH:MM", from "00:00" to "24:00"')
    if len(read) == 2 and read["from"] == read["to"]:
        yield Problem((*path, "to"), "it ends where it begins", "leave both out for the whole day")
    elif read.get("from") == 24 * 60:
        yield Problem((*path, "from"), "no day has a minute that begins there", 'write from = "00:00"')
    try:
        read_zone(hours.zone)
    except (LookupError, ValueError, OSError):
        near = nearest(hours.zone, zoneinfo.available_timezones())
        remedy = f'did you mean "{near}"?' if near else 'write one by its IANA name, such as "Europe/Berlin"'
        yield Problem((*path, "zone"), f'no time zone "{printable(hours.zone)}" is known here', remedy)


def _of_keep(policy: Policy) -> Iterator[Problem]:
    keep = policy.keep
    for key, names in (("providers", keep.providers), ("without", keep.without)):
        yield from _of_providers(("keep", key), names)
    for path, text in (
        (("keep", "max_price"), keep.max_price or "0"),
        (("limits", "pay_twice_up_to"), policy.limits.pay_twice_up_to),
    ):
        try:
            parse_dollars(text)
        except ValueError as error:
            yield Problem(path, printable(str(error)), f'write dollars in quotes, as {path[-1]} = "0.05"')
    both = [name for name in keep.providers if name in keep.without]
    if both:
        yield Problem(
            ("keep", "without"), f'"{printable(both[0])}" is also among providers', "take it out of one of them"
        )
    if keep.unknown_price == "drop" and not keep.max_price:
        yield Problem(("keep", "unknown_price"), "it says what max_price does, and there is none", "add max_price")


def _of_rank(rank: Rank) -> Iterator[Problem]:
    yield from _of_providers(("rank", "order"), rank.order)
    if rank.by == "ordered" and not rank.order:
        yield Problem(("rank", "by"), "there is no order to go by", 'add order = ["PROVIDER", …] to [rank]')
    weights = rank.weights
    if rank.by == "blend" and not weights.cost + weights.latency + weights.health > 0:
        yield Problem(("rank", "weights"), "all weights are 0", "give one of cost, latency and health a weight")
    if rank.by == "weighted" and not any(rank.shares.values()):
        remedy = "add shares = { PROVIDER = 90, … } to [rank]"
        yield Problem(("rank", "shares" if rank.shares else "by"), "nobody has a share", remedy)
    for key in ("shares", "sticky"):
        if rank.by != "weighted" and getattr(rank, key):
            yield Problem(("rank", key), "it says nothing of any other order", 'write by = "weighted"')
    for name in rank.shares:
        yield from _of_name(("rank", "shares", name), name)
    if rank.sticky and _STICKY.fullmatch(rank.sticky) is None:
        problem = f'"{printable(rank.sticky)}" is nothing to hold on to'
        yield Problem(("rank", "sticky"), problem, 'write "key" or "label:NAME"')


def _of_goal(rank: Rank) -> Iterator[Problem]:
    if rank.by == "goal" and not isinstance(rank.goal, Goal):
        yield Problem(("rank", "by"), "there is no goal", 'add goal = { success = 0.99, within = "30s" } to [rank]')
    if not isinstance(rank.goal, Goal):
        return
    if rank.by != "goal":
        yield Problem(("rank", "goal"), f'by = "{rank.by}" takes no goal', 'write by = "goal", or leave it out')
    try:
        seconds_of(rank.goal.within)
    except ValueError as error:
        yield Problem(("rank", "goal", "within"), printable(str(error)), 'write within = "30s", "5m" or "1h30m"')


def _of_fallback(policy: Policy) -> Iterator[Problem]:
    if policy.fallback.provider:
        yield from _of_name(("fallback", "provider"), policy.fallback.provider)


def _of_providers(path: Path, names: tuple[str, ...]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if "#" in name:
            yield Problem((*path, index), f'"{printable(name)}" is one offer', "name whole providers here")


def _of_name(path: Path, name: str) -> Iterator[Problem]:
    """A provider, or one offer of it."""
    if _NAME.fullmatch(name) is None:
        yield Problem(path, f'"{printable(name)}" names no provider', "write PROVIDER, or PROVIDER#2 for its second")
