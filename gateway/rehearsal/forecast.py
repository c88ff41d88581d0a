"""What recorded traffic would have come to under a set of policies, with intervals; and one set beside another."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from gateway.contract.money import Units
from gateway.contract.prediction import Request
from gateway.contract.route import Offer, Signals
from gateway.rehearsal.history import History, WhatIf
from gateway.rehearsal.play import Books, Coming, play
from gateway.rehearsal.router import PolicyRouter, Wanted
from gateway.rehearsal.trace import GOOD, Asked, Trace
from gateway.routing.catalog import Catalog
from gateway.routing.planner import expected_nanos
from policies.document import Policy
from policies.match import Subject, matches

RESAMPLES = 200
CERTAINTY = 0.95
FEW_ATTEMPTS = 30  # recorded: with less, what is said of an offer is little more than a guess


class Interval(NamedTuple):
    """A figure, and between what it lies with CERTAINTY."""

    value: float
    low: float
    high: float


class Figures(NamedTuple):
    """What a run came to. Dollars, seconds; shares of all predictions."""

    predictions: int
    dollars: Interval  # in all
    p50: Interval  # seconds to a result, of those that had one
    p95: Interval
    misses: Interval  # share without a result before the deadline
    attempts: int
    shares: dict[str, float]  # by offer: of those served


class Outcome(NamedTuple):
    """By prediction: what it cost, and when its result was there; inf: never."""

    dollars: tuple[float, ...]
    seconds: tuple[float, ...]
    served: Counter[str]
    attempts: int


class Rehearsed(NamedTuple):
    recorded: Outcome
    today: Outcome
    candidate: Outcome
    thin: dict[str, int]  # offers that served, and of which little or nothing was recorded: how many attempts


def rehearse(
    trace: Trace,
    catalog: Catalog,
    *,
    today: Sequence[Policy],
    candidate: Sequence[Policy],
    default: str,
    what_if: WhatIf | None = None,
    seed: int = 0,
) -> Rehearsed:
    """
    Today's policies and the candidate's, over the same traffic with the same luck. `what_if` holds for the candidate.

    A prediction goes by the first policy of `candidate` that has the name of its own or matches it; else by its own.
    Models and offers that are no longer configured are as good as gone.
    """
    asked = trace.asked
    plain, supposed = History(asked, seed=seed), History(asked, what_if=what_if, seed=seed)
    before = _played(trace, catalog, tuple(today), default, plain, lambda one: one.policy, seed)
    names = {policy.name for policy in candidate}
    known = (*candidate, *(policy for policy in today if policy.name not in names))
    after = _played(trace, catalog, known, default, supposed, lambda one: _chosen(one, candidate, trace), seed)
    used = {*before.served, *after.served}
    thin = {offer: count for offer in sorted(used) if (count := plain.attempts(offer)) < FEW_ATTEMPTS}
    return Rehearsed(_recorded(asked), before, after, thin)


def figures(outcome: Outcome, *, seed: int = 0) -> Figures:
    """With intervals by resampling predictions."""
    count = len(outcome.dollars)
    drawn = random.Random(seed)
    samples = [_measured(outcome, drawn.choices(range(count), k=count)) for _ in range(RESAMPLES if count else 0)]
    whole = _measured(outcome, range(count))
    dollars, p50, p95, misses = (
        Interval(value, *_between([sample[place] for sample in samples], value)) for place, value in enumerate(whole)
    )
    served = outcome.served.total() or 1
    shares = {offer: number / served for offer, number in outcome.served.most_common()}
    return Figures(count, dollars, p50, p95, misses, outcome.attempts, shares)


def change(before: Outcome, after: Outcome, *, seed: int = 0) -> tuple[Interval, Interval, Interval, Interval]:
    """What is different: dollars in all, p50, p95, misses. Pairs are drawn together: luck that both had cancels out."""
    count = len(before.dollars)
    drawn = random.Random(seed)
    differences: list[tuple[float, ...]] = []
    for _ in range(RESAMPLES if count else 0):
        places = drawn.choices(range(count), k=count)
        one, other = _measured(before, places), _measured(after, places)
        differences.append(tuple(b - a for a, b in zip(one, other, strict=True)))
    whole = [b - a for a, b in zip(_measured(before, range(count)), _measured(after, range(count)), strict=True)]
    dollars, p50, p95, misses = (
        Interval(value, *_between([one[place] for one in differences], value)) for place, value in enumerate(whole)
    )
    return dollars, p50, p95, misses


def _played(
    trace: Trace,
    catalog: Catalog,
    policies: tuple[Policy, ...],
    default: str,
    house: History,
    policy_of: Callable[[Asked], str],
    seed: int,
) -> Outcome:
    asked = trace.asked
    wanted = [_wanted(one, policy_of(one)) for one in asked]
    numbers = {one.id: number for number, one in enumerate(asked)}

    def estimate(request: Request, facts: Units, offer: Offer, signals: Signals) -> int | None:
        nanos = house.expected_nanos(numbers[request.fingerprint], offer.id)
        if nanos is None:
            listed = expected_nanos(request, facts, offer, signals)
            nanos = None if listed is None else round(listed * house.price_factor(offer.id))
        return nanos

    router = PolicyRouter(
        catalog,
        policies,
        default=default,
        start=trace.begun_at,
        seed=seed,
        wanted=wanted.__getitem__,
        estimate=estimate,
    )
    coming: list[Coming] = []
    own = {policy.name: policy for policy in policies}
    for number, one in enumerate(asked):
        policy = router.policy(number, came=one.at)
        seconds = _deadline(one, own.get(one.policy), policy)
        wanted[number].deadline_seconds = seconds
        coming.append(Coming(one.at, seconds, policy.limits.attempts))
    return _outcome(play(house, router, coming))


def _deadline(one: Asked, own: Policy | None, policy: Policy) -> float:
    """A caller's own is kept; where it was the policy's, it is the new policy's."""
    limit = policy.limits.deadline_seconds
    if own is not None and abs(own.limits.deadline_seconds - one.deadline_seconds) < 1.0:
        return limit
    return min(one.deadline_seconds, limit)


def _wanted(one: Asked, policy: str) -> Wanted:
    request = Request(
        model=one.model,
        version=one.version,
        is_pinned=one.is_pinned,
        input={},
        facts=one.facts,
        policy=policy or None,
        labels=one.labels,
        fingerprint=one.id,
    )
    return Wanted(one.id, request, owner=one.owner, deadline_seconds=one.deadline_seconds)


def _chosen(one: Asked, candidate: Sequence[Policy], trace: Trace) -> str:
    subject = Subject(
        model=one.model,
        key=one.owner,
        labels=one.labels,
        facts=lambda: one.facts,
        now=trace.begun_at + timedelta(seconds=one.at),
    )
    for policy in candidate:
        if policy.name == one.policy or matches(policy.match, subject):
            return policy.name
    return one.policy


def _outcome(books: Books) -> Outcome:
    return Outcome(books.dollars, books.seconds, books.served, books.attempts.total())


def _recorded(asked: Sequence[Asked]) -> Outcome:
    served: Counter[str] = Counter()
    for one in asked:
        if one.seconds is not None:
            served.update(tried.offer for tried in one.tried[::-1] if tried.how == GOOD)
    return Outcome(
        tuple(sum(tried.nanos or 0 for tried in one.tried) / 1e9 for one in asked),
        tuple(math.inf if one.seconds is None else one.seconds for one in asked),
        served,
        sum(len(one.tried) for one in asked),
    )


def _measured(outcome: Outcome, places: Sequence[int]) -> tuple[float, float, float, float]:
    dollars = sum(outcome.dollars[place] for place in places)
    done = sorted(seconds for place in places if not math.isinf(seconds := outcome.seconds[place]))
    misses = 1 - len(done) / len(places) if places else 0.0
    return dollars, _quantile(done, 0.5), _quantile(done, 0.95), misses


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


def _between(values: list[float], value: float) -> tuple[float, float]:
    known = sorted(one for one in values if not math.isnan(one))
    if not known:
        return value, value
    edge = (1 - CERTAINTY) / 2
    return known[int(edge * len(known))], known[min(int((1 - edge) * len(known)), len(known) - 1)]
