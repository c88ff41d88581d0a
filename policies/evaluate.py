"""Makes a plan: keep, rank, fallback, wait. Pure; it starts nothing and reads no clock."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contract.route import Candidate, Choice, Plan, Reason
from policies.document import Policy
from policies.keep import Code, Demand, Drop, dollars, drop, equivalents_of
from policies.rank import Draw, Ranked, order
from policies.shares import by_shares

_NO_FALLBACK = Drop((Reason(code=Code.PROVIDER, text="the policy has no fallback"),), None)
_LAST = (Reason(code=Code.FALLBACK, text="the last resort, whatever its price and rank"),)


def evaluate(
    policy: Policy,
    candidates: Sequence[Candidate],
    demand: Demand,
    *,
    excluded: frozenset[str] = frozenset(),
    draw: Draw,
) -> Plan:
    """
    The plan for one prediction: kept candidates best first, fallbacks last of them, then the dropped ones.

    `excluded` holds ids of offers that failed already. `draw` gives numbers from [0, 1).
    """
    fallbacks, unwanted = _roles(policy, candidates)
    equivalents = equivalents_of(policy.keep, candidates, demand)
    kept: list[Candidate] = []
    resorts: list[Candidate] = []
    dropped: list[tuple[Candidate, Drop]] = []
    for candidate in candidates:
        is_fallback = candidate.offer.id in fallbacks
        why = drop(policy.keep, candidate, demand, excluded=excluded, equivalents=equivalents, is_fallback=is_fallback)
        if why is None and candidate.offer.id in unwanted:
            why = _NO_FALLBACK
        if why is not None:
            dropped.append((candidate, why))
        elif is_fallback:
            resorts.append(candidate)
        else:
            kept.append(candidate)
    # What the policy names is the very last; before it come offers marked as fallbacks, as configured.
    resorts.sort(key=lambda candidate: candidate.offer.is_called(policy.fallback.provider))
    if policy.rank.by == "weighted":
        ranked = by_shares(policy, kept, demand, draw=draw)
    else:
        ranked = order(policy.rank, kept, may_explore=demand.attempts == 0, draw=draw)
    choices = [_choice(entry, is_fallback=False) for entry in ranked]
    choices += [_choice(Ranked(candidate, None, _LAST), is_fallback=True) for candidate in resorts]
    wait_seconds = None if choices else _wait_seconds([why for _, why in dropped], demand)
    choices += [_dropped(candidate, why, candidate.offer.id in fallbacks) for candidate, why in dropped]
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


def _roles(policy: Policy, candidates: Sequence[Candidate]) -> tuple[frozenset[str], frozenset[str]]:
    """
    Ids of the fallbacks, and ids of offers marked as fallbacks that a policy without one does not want.

    Where nothing else is offered at all, nothing is a fallback: it simply serves the model.
    """
    named = policy.fallback.provider
    ids = frozenset(c.offer.id for c in candidates if c.offer.is_fallback or c.offer.is_called(named))
    if len(ids) == len(candidates):
        return frozenset(), frozenset()
    if named:
        return ids, frozenset()
    # Whoever names the provider in `keep` wants it to compete like any other.
    wanted = policy.keep.providers
    return frozenset(), frozenset(
        c.offer.id for c in candidates if c.offer.id in ids and c.offer.provider not in wanted
    )


def _wait_seconds(drops: Sequence[Drop], demand: Demand) -> float | None:
    waits = [
        why.wait_seconds for why in drops if why.wait_seconds is not None and why.wait_seconds < demand.deadline_seconds
    ]
    return min(waits, default=None)


def _choice(entry: Ranked, *, is_fallback: bool) -> Choice:
    candidate = entry.candidate
    return Choice(
        offer=candidate.offer.id,
        provider=candidate.offer.provider,
        kept=True,
        reasons=entry.reasons,
        score=entry.score,
        expected_nanos=candidate.expected_nanos,
        expected_seconds=candidate.expected_seconds,
        is_fallback=is_fallback,
        quality=candidate.offer.quality,
    )


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
