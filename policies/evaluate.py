"""Makes a plan: keep, rank, fallback, wait. Pure; it starts nothing and reads no clock."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.contract.reason import Reason
from gateway.contract.route import Candidate, Choice, Plan
from policies.document import Policy
from policies.goal import Solve, aims
from policies.keep import Code, Demand, Drop, dollars, drop, equivalents_of
from policies.rank import Draw, choice_of, order
from policies.shares import by_shares
from policies.view import View, view_of

_NO_FALLBACK = Drop((Reason(code=Code.PROVIDER, written="the policy has no fallback"),), None)
_LAST = (Reason(code=Code.FALLBACK, written="the last resort, whatever its price and rank"),)


def evaluate(
    policy: Policy,
    candidates: Sequence[Candidate],
    demand: Demand,
    *,
    excluded: frozenset[str] = frozenset(),
    draw: Draw,
    solve: Solve = aims,
) -> Plan:
    """
    The plan for one prediction: kept candidates best first, fallbacks last of them, then the dropped ones.

    `excluded` holds ids of offers that failed already. `draw` gives numbers from [0, 1). `solve`
    finds the sequences for a goal.
    """
    equivalents = equivalents_of(policy.keep, candidates, demand)
    kept: list[View] = []
    resorts: list[Candidate] = []
    dropped: list[tuple[Candidate, Drop, bool]] = []
    has_resorts = _has_resorts(policy, candidates)
    for candidate in candidates:
        view = view_of(candidate, policy)
        is_resort = has_resorts and view.is_resort
        why = _drop(view, candidate, demand, excluded, equivalents, is_fallback=is_resort)
        if is_resort and why is None and not policy.fallback.provider:
            # Whoever names the provider in `keep` wants it to compete like any other.
            is_resort = False
            why = None if candidate.offer.provider in policy.keep.providers else _NO_FALLBACK
        if why is not None:
            dropped.append((candidate, why, is_resort and bool(policy.fallback.provider)))
        elif is_resort:
            resorts.append(candidate)
        else:
            kept.append(view)
    # What the policy names is the very last; before it come offers marked as fallbacks, as configured.
    resorts.sort(key=lambda candidate: candidate.offer.is_called(policy.fallback.provider))
    if policy.rank.by == "weighted":
        ranked = by_shares(policy, [view.candidate for view in kept], demand, draw=draw)
    else:
        attempts = max(policy.limits.attempts - demand.attempts, 1)
        ranked = order(policy, kept, demand, attempts=attempts, draw=draw, solve=solve)
    choices = ranked + [replace(choice_of(each, _LAST, score=None), is_fallback=True) for each in resorts]
    wait_seconds = None if choices else _wait_seconds([why for _, why, _ in dropped], demand)
    choices += [_dropped(candidate, why, is_fallback) for candidate, why, is_fallback in dropped]
    limits = policy.limits
    return Plan(
        policy=policy.name,
        choices=tuple(choices),
        max_attempts=limits.attempts,
        pay_twice_up_to_nanos=dollars(limits.pay_twice_up_to),
        attempt_seconds=limits.attempt_seconds or None,
        start_seconds=limits.start_seconds or None,
        run_seconds=limits.run_seconds or None,
        wait_seconds=wait_seconds,
    )


def _has_resorts(policy: Policy, candidates: Sequence[Candidate]) -> bool:
    """Where nothing else is offered at all, nothing is a fallback: it simply serves the model."""
    return not all(view_of(candidate, policy).is_resort for candidate in candidates)


def _drop(
    view: View,
    candidate: Candidate,
    demand: Demand,
    excluded: frozenset[str],
    equivalents: frozenset[str],
    *,
    is_fallback: bool,
) -> Drop | None:
    """What `keep` says; of a candidate that nothing was against the last time, only what is this prediction's own."""
    expected = candidate.expected_seconds
    if (
        view.kept_for == (demand.version, demand.is_pinned, is_fallback)
        and (expected is None or expected <= demand.deadline_seconds)
        and not (demand.capabilities or candidate.offer.id in excluded)
    ):
        return None
    keep = view.policy.keep
    why = drop(keep, candidate, demand, excluded=excluded, equivalents=equivalents, is_fallback=is_fallback)
    if why is None and not equivalents and not demand.capabilities:
        view.kept_for = (demand.version, demand.is_pinned, is_fallback)
    return why


def _wait_seconds(drops: Sequence[Drop], demand: Demand) -> float | None:
    waits = [
        why.wait_seconds for why in drops if why.wait_seconds is not None and why.wait_seconds < demand.deadline_seconds
    ]
    return min(waits, default=None)


def _dropped(candidate: Candidate, why: Drop, is_fallback: bool) -> Choice:
    return Choice(
        offer=candidate.offer.id,
        provider=candidate.offer.provider,
        kept=False,
        reasons=why.reasons,
        expected_nanos=candidate.expected_nanos,
        expected_seconds=candidate.expected_seconds,
        is_fallback=is_fallback,
        quality=candidate.offer.quality,
    )
