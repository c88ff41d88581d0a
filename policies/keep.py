"""Which offers may serve a prediction, and the reason for each that may not. Does not order them."""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gateway.contract.budget import DROPPED
from gateway.contract.money import format_dollars, parse_dollars
from gateway.contract.reason import Reason
from gateway.contract.route import BreakerState, Candidate, Offer
from policies.document import Keep

# How long a prediction waits for a provider of ours that is only starting, counted from its last attempt.
READY_PATIENCE_SECONDS = 30.0
# When to look again for something that has no known end: a free slot, a process that starts.
LOOK_AGAIN_SECONDS = 0.5


class Code(enum.StrEnum):
    """The fixed vocabulary of `Reason.code`: first what drops a candidate, then where a kept one stands."""

    EXCLUDED = "excluded"  # it failed already for this prediction
    VERSION = "version"
    CAPABILITY = "capability"
    REGION = "region"
    QUALITY = "quality"
    PROVIDER = "provider"
    PRICE = "price"
    PRICE_UNKNOWN = "price_unknown"
    SUCCESS = "success"
    DEADLINE = "deadline"
    BREAKER = "breaker"
    RATE_LIMIT = "rate_limit"
    RETURNING = "returning"  # it was away: what waited for it goes there bit by bit
    CONCURRENCY = "concurrency"
    NOT_READY = "not_ready"
    BUDGET = DROPPED  # it has not enough left

    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    STEADIEST = "steadiest"
    BEST = "best"
    ORDERED = "ordered"
    SHARE = "share"  # of the traffic, as the policy shares it out
    NEXT = "next"  # behind the one that its reason names
    TIE = "tie"
    EXPLORED = "explored"
    FALLBACK = "fallback"
    GOAL = "goal"  # first of the plan that meets it
    GOAL_MISSED = "goal_missed"  # first of the most probable plan, for none meets it


class Demand(msgspec.Struct, kw_only=True, frozen=True):
    """What matters of a prediction for its route."""

    version: str  # the pinned one or the model's default: offers declared for it may serve
    is_pinned: bool = False  # the caller named it: no other will do, whatever the policy says
    key: str = ""  # the name of the API key that made it
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    deadline_seconds: float  # left
    capabilities: frozenset[str] = frozenset()  # asked for, beside the policy's
    attempts: int = 0  # made so far
    age_seconds: float = 0.0  # since it was made
    idle_seconds: float = 0.0  # since it was made, or since its newest attempt ended


class Drop(NamedTuple):
    """Why a candidate may not serve. `wait_seconds`: it may after so long; None: not for this prediction."""

    reasons: tuple[Reason, ...]
    wait_seconds: float | None


@functools.lru_cache(maxsize=1024)
def dollars(text: str) -> int:
    """Nano-dollars of an amount in a policy, checked when it was read."""
    return parse_dollars(text)


def drop(
    keep: Keep,
    candidate: Candidate,
    demand: Demand,
    *,
    excluded: frozenset[str],
    equivalents: frozenset[str] = frozenset(),
    is_fallback: bool,
) -> Drop | None:
    """
    Why `candidate` may not serve, or None if it may. A fallback is exempt from the price, and from nothing else here.

    `equivalents` are the classes of offers that may serve though they are declared for another version.
    What lasts is looked for first: an offer that never fits is not waited for.
    """
    reason = _unfit(keep, candidate, demand, excluded, equivalents)
    if reason is None and keep.max_price and not is_fallback:
        reason = _dear(keep, candidate)
    if reason is not None:
        return Drop((reason,), None)
    signals = candidate.signals
    if (
        signals.breaker is BreakerState.CLOSED
        and signals.limited_for_seconds <= 0
        and signals.pace_seconds <= 0
        and signals.turn_seconds <= 0
        and candidate.provider_ready
        and not candidate.provider_full
        and (candidate.offer.concurrency is None or signals.in_flight < candidate.offer.concurrency)
    ):
        return None
    return _not_now(candidate, demand)


def equivalents_of(keep: Keep, candidates: Sequence[Candidate], demand: Demand) -> frozenset[str]:
    """The classes of the demanded version's offers, where the policy takes one offer of a class for another."""
    if keep.version == "declared" or demand.is_pinned:
        return frozenset()
    return frozenset(
        candidate.offer.equivalent
        for candidate in candidates
        if candidate.offer.equivalent is not None and candidate.offer.version == demand.version
    )


def _misversioned(offer: Offer, demand: Demand, equivalents: frozenset[str]) -> Reason:
    text = f"declared for version {offer.version[:12]}, not {demand.version[:12]}"
    if equivalents:
        text += f", and equivalent to none of {', '.join(sorted(equivalents))}"
    elif demand.is_pinned and offer.equivalent is not None:
        text += ", which was asked for"
    return Reason(code=Code.VERSION, written=text)


def _unfit(
    keep: Keep, candidate: Candidate, demand: Demand, excluded: frozenset[str], equivalents: frozenset[str]
) -> Reason | None:
    offer, signals = candidate.offer, candidate.signals
    if offer.id in excluded:
        return Reason(code=Code.EXCLUDED, written="it failed already for this prediction")
    if offer.version != demand.version and offer.equivalent not in equivalents:
        return _misversioned(offer, demand, equivalents)
    if (demand.capabilities or keep.capabilities) and (
        lacking := demand.capabilities.union(keep.capabilities) - offer.capabilities
    ):
        return Reason(code=Code.CAPABILITY, written=f"it cannot {', '.join(sorted(lacking))}")
    if keep.providers and offer.provider not in keep.providers:
        return Reason(code=Code.PROVIDER, written=f"{offer.provider} is not among {', '.join(keep.providers)}")
    if offer.provider in keep.without:
        return Reason(code=Code.PROVIDER, written=f"the policy goes without {offer.provider}")
    if keep.regions and offer.region not in keep.regions:
        where = offer.region or "no stated region"
        return Reason(code=Code.REGION, written=f"{where}, not one of {', '.join(keep.regions)}")
    if keep.quality == "full" and offer.quality != "full":
        return Reason(code=Code.QUALITY, written=f"declared as {offer.quality}, {keep.quality} quality asked")
    if signals.success is not None and signals.success < keep.min_success:
        return Reason(code=Code.SUCCESS, written=f"{signals.success:.0%} succeed, {keep.min_success:.0%} asked")
    expected = candidate.expected_seconds
    if expected is not None and expected > demand.deadline_seconds:
        return Reason(
            code=Code.DEADLINE, written=f"takes {expected:.3g} s, {max(demand.deadline_seconds, 0):.3g} s are left"
        )
    return None


def _dear(keep: Keep, candidate: Candidate) -> Reason | None:
    expected = candidate.expected_nanos
    if expected is None:
        if keep.unknown_price == "keep":
            return None
        return Reason(code=Code.PRICE_UNKNOWN, written="its price for this input is not known")
    limit = dollars(keep.max_price)
    if expected <= limit:
        return None
    return Reason(code=Code.PRICE, written=f"{format_dollars(expected)} expected, at most {format_dollars(limit)}")


def _not_now(candidate: Candidate, demand: Demand) -> Drop | None:
    """What passes by itself: every such reason, and when the last of them is over."""
    offer, signals = candidate.offer, candidate.signals
    reasons: list[Reason] = []
    waits: list[float | None] = []
    until = signals.breaker_until_seconds
    if signals.breaker is BreakerState.OPEN:
        ends = "until it is released" if until is None else f"for another {until:.3g} s"
        reasons.append(Reason(code=Code.BREAKER, written=f"its breaker is open {ends}"))
        waits.append(until)
    elif signals.breaker is BreakerState.PROBING and until:
        reasons.append(Reason(code=Code.BREAKER, written="its breaker waits for the outcome of a probe"))
        waits.append(until)
    if signals.limited_for_seconds > 0:
        reasons.append(Reason(code=Code.RATE_LIMIT, written=f"rate limited for {signals.limited_for_seconds:.3g} s"))
        waits.append(signals.limited_for_seconds)
    elif signals.pace_seconds > 0:
        text = f"as many as its limit seems to allow; the next in {signals.pace_seconds:.3g} s"
        reasons.append(Reason(code=Code.RATE_LIMIT, written=text))
        waits.append(signals.pace_seconds)
    if signals.turn_seconds > 0:
        reasons.append(
            Reason(code=Code.RETURNING, written=f"it was away; this one's turn comes in {signals.turn_seconds:.3g} s")
        )
        waits.append(signals.turn_seconds)
    if offer.concurrency is not None and signals.in_flight >= offer.concurrency:
        reasons.append(Reason(code=Code.CONCURRENCY, written=f"{signals.in_flight} of {offer.concurrency} in flight"))
        waits.append(LOOK_AGAIN_SECONDS)
    elif candidate.provider_full:
        reasons.append(Reason(code=Code.CONCURRENCY, written=f"{offer.provider} has all it may have in flight"))
        waits.append(LOOK_AGAIN_SECONDS)
    if not candidate.provider_ready:
        reasons.append(Reason(code=Code.NOT_READY, written=f"{offer.provider} is not ready"))
        waits.append(LOOK_AGAIN_SECONDS if demand.idle_seconds < READY_PATIENCE_SECONDS else None)
    if not reasons:
        return None
    known = [wait for wait in waits if wait is not None]
    return Drop(tuple(reasons), max(known) if len(known) == len(waits) else None)
