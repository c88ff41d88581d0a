"""What a policy has found out about a candidate, kept for as long as neither is another. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.contract.route import Candidate, Choice
from policies.document import Policy


class View:
    """
    One policy's of one candidate.

    Candidates are made anew when anything about them changes, and policies are swapped whole: what was reckoned of the
    one for the other holds until then. A plan of twenty then costs little more than looking at what has changed.
    """

    __slots__ = (
        "candidate",
        "choice",
        "choice_near",
        "choice_score",
        "hope",
        "is_resort",
        "kept_for",
        "policy",
        "score",
    )

    def __init__(self, policy: Policy, candidate: Candidate, *, is_resort: bool) -> None:
        self.policy = policy
        self.candidate = candidate
        self.is_resort = is_resort  # it is, or the policy names it as, a fallback
        self.kept_for: tuple[str, bool, bool] | None = None  # version, pinned, as a fallback: nothing was against it
        self.score: dict[str, float] = {}  # by measure, before what hangs on its siblings
        self.hope = math.nan
        self.choice: Choice | None = None  # as it is told when it is not the first
        self.choice_score = math.nan
        self.choice_near = 0

    def measured(self, measure: str, reckon: Callable[[Candidate, Policy], float]) -> float:
        known = self.score.get(measure)
        if known is None:
            known = self.score[measure] = reckon(self.candidate, self.policy)
        return known


def view_of(candidate: Candidate, policy: Policy) -> View:
    view = candidate.views.get(policy.name)
    if view is None or view.policy is not policy:
        is_resort = candidate.offer.is_fallback or candidate.offer.is_called(policy.fallback.provider)
        view = candidate.views[policy.name] = View(policy, candidate, is_resort=is_resort)
    return view
