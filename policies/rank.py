"""In which order the kept offers are tried, and why. Chance is drawn from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gateway.contract.money import NANOS, format_dollars
from gateway.contract.reason import Reason, Value
from gateway.contract.route import Candidate, Choice
from policies.document import Goal, Policy
from policies.duration import seconds_of
from policies.goal import Aim, Solve, aims
from policies.keep import Code, Demand
from policies.score import cost, hope, is_stranger, latency, scores, shown
from policies.view import View

Draw = Callable[[], float]  # from [0, 1)

NEAR = 0.05  # a score that is so much worse is drawn a third as often
# Scores so close to the best are drawn among. Time to a result is the least certain of them.
_REACH = {"cost": NEAR, "latency": 4 * NEAR, "health": NEAR, "blend": NEAR, "ordered": 0.0}
STRANGERS = 4.0  # times as often as other offers in doubt one is tried that nobody has tried yet

_FIRST = {
    "cost": Code.CHEAPEST,
    "latency": Code.FASTEST,
    "health": Code.STEADIEST,
    "blend": Code.BEST,
    "ordered": Code.ORDERED,
    "goal": Code.CHEAPEST,
}


def choice_of(
    candidate: Candidate, reasons: tuple[Reason, ...], *, score: float | None, until_seconds: float | None = None
) -> Choice:
    offer = candidate.offer
    return Choice(
        offer=offer.id,
        provider=offer.provider,
        kept=True,
        reasons=reasons,
        score=score if score != math.inf else None,
        expected_nanos=candidate.expected_nanos,
        expected_seconds=candidate.expected_seconds,
        until_seconds=until_seconds,
        quality=offer.quality,
    )


def order(
    policy: Policy, views: Sequence[View], demand: Demand, *, attempts: int, draw: Draw, solve: Solve = aims
) -> list[Choice]:
    """
    Candidates, best first, of which at most `attempts` more will be tried.

    Those about as good as the best are drawn, the better the likelier and the busier the less: a rush spreads, and
    whoever is a little behind is still heard of. What comes after them is in the order of its score: if it comes to
    that a new plan is made. At its first plan an offer that may teach something may come to the front, by draw.
    """
    if not views:
        return []
    rank = policy.rank
    if rank.by == "goal" and isinstance(rank.goal, Goal):
        return _by_goal(policy, rank.goal, views, demand, attempts=attempts, draw=draw, solve=solve)
    found = scores(policy, views)
    places, near = _places(found, views, reach=_REACH[rank.by], draw=draw)
    choices = _told(policy, views, found, places, near)
    if demand.attempts == 0 and rank.explore > 0 and rank.by != "ordered":
        explored = _explored(views, min(found), draw, share=rank.explore)
        if explored is not None and explored != places[0]:
            _to_the_front(choices, views[explored].candidate)
    return choices


# -- places -----------------------------------------------------------------------------------------------------


def _places(found: list[float], views: Sequence[View], *, reach: float, draw: Draw) -> tuple[list[int], int]:
    """Places of the candidates, best first, and how many of them are about as good as the best."""
    places = sorted(range(len(found)), key=found.__getitem__)
    best = found[places[0]]
    limit = best * (1 + reach)
    near = 1
    while near < len(places) and found[places[near]] <= limit:
        near += 1
    if near > 1:
        # By place, lest the last digit of a score should decide who draws first.
        places[:near] = _drawn([(i, _utility(found[i], best)) for i in sorted(places[:near])], views, draw)
    return places, near


def _utility(score: float, best: float) -> float:
    """A third for each NEAR that it is worse. Rounded: the last digit of a price is no difference."""
    return math.exp(-round(score / best - 1, 9) / NEAR) if 0 < best < math.inf else 1.0


def _drawn(group: Sequence[tuple[int, float]], views: Sequence[View], draw: Draw) -> list[int]:
    """Places in the order in which they were drawn, without replacement, by weights utility / (1 + in flight)."""
    keys = {i: -math.log1p(-draw()) * (1 + views[i].candidate.signals.in_flight) / utility for i, utility in group}
    return sorted(keys, key=keys.__getitem__)


def _explored(views: Sequence[View], best: float, draw: Draw, *, share: float) -> int | None:
    """Whom to try so as to learn, by draw."""
    hopeful = [i for i, view in enumerate(views) if hope(view) < best]
    if not hopeful or len(hopeful) == len(views):
        return None  # where nobody has data, draws spread them already
    if any(is_stranger(views[i].candidate) for i in hopeful):
        share = min(share * STRANGERS, 0.5)  # the first attempt at somebody teaches most
    drawn = draw()
    return hopeful[int(drawn / share * len(hopeful))] if drawn < share else None


# -- what is told of them ---------------------------------------------------------------------------------------


def _told(
    policy: Policy, views: Sequence[View], found: Sequence[float], places: Sequence[int], near: int
) -> list[Choice]:
    rank = policy.rank
    choices = [_next(views[i], found[i], near if place < near else 1) for place, i in enumerate(places)]
    first = views[places[0]].candidate
    values: tuple[Value, ...] = shown(rank, first, found[places[0]])
    if len(places) > 1:
        values += shown(rank, views[places[1]].candidate, found[places[1]])[1:]
    reasons: tuple[Reason, ...] = (Reason(code=_FIRST[rank.by], values=values),)
    choices[0] = choice_of(first, reasons + choices[0].reasons[1:], score=found[places[0]])
    return choices


def _next(view: View, score: float, near: int) -> Choice:
    """The same from one plan to the next, until its candidate or its score is another."""
    if view.choice is not None and view.choice_score == score and view.choice_near == near:
        return view.choice
    reasons: tuple[Reason, ...] = (Reason(code=Code.NEXT, values=shown(view.policy.rank, view.candidate, score)),)
    if near > 1:
        reasons += (Reason(code=Code.TIE, values=(near,)),)
    view.choice, view.choice_score, view.choice_near = choice_of(view.candidate, reasons, score=score), score, near
    return view.choice


def _to_the_front(choices: list[Choice], candidate: Candidate) -> None:
    at = next(number for number, choice in enumerate(choices) if choice.offer == candidate.offer.id)
    reason = Reason(code=Code.EXPLORED, written=f"{candidate.signals.samples} samples: tried to learn more")
    first = choices.pop(at)
    choices.insert(0, choice_of(candidate, (reason, *first.reasons), score=first.score))


# -- the goal ---------------------------------------------------------------------------------------------------


def _by_goal(
    policy: Policy,
    goal: Goal,
    views: Sequence[View],
    demand: Demand,
    *,
    attempts: int,
    draw: Draw,
    solve: Solve,
) -> list[Choice]:
    rank = policy.rank
    candidates = [view.candidate for view in views]
    left = seconds_of(goal.within) - demand.age_seconds
    found = solve(candidates, success=goal.success, within_seconds=left, attempts=attempts) if left > 0 else []
    # Whoever is in no plan is there for what comes after it, and where nobody's time is known.
    measured = cost(policy, views) if left > 0 else latency(policy, views)
    places, near = _places(measured, views, reach=NEAR, draw=draw)
    rest = _told(policy, views, measured, places, near)
    if not found:
        return rest
    firsts = {aim.steps[0].candidate: aim for aim in found}
    best = found[0].per_result
    aim = firsts[_drawn([(i, _utility(one.per_result, best)) for i, one in firsts.items()], views, draw)[0]]
    row: list[Choice] = []
    for number, step in enumerate(aim.steps):
        candidate = candidates[step.candidate]
        reason = _goal_reason(aim, goal) if number == 0 else Reason(code=Code.NEXT, written="next of the plan")
        row.append(choice_of(candidate, (reason,), score=measured[step.candidate], until_seconds=step.until_seconds))
    planned = {choice.offer for choice in row}
    row += [choice for choice in rest if choice.offer not in planned]
    if demand.attempts == 0 and rank.explore > 0:
        # What is tried to learn more may well be late: only as often as the goal can bear. A plan that misses it has
        # little to lose, and bears strangers as often as it is bad.
        spare = aim.success - goal.success
        share = min(rank.explore, spare) if spare > 0 else max(rank.explore, -spare / 2)
        explored = _explored(views, aim.per_result / NANOS if spare > 0 else 0.0, draw, share=share)
        if explored is not None and row[0].offer != candidates[explored].offer.id:
            _to_the_front(row, candidates[explored])
    return row


def _goal_reason(aim: Aim, goal: Goal) -> Reason:
    text = f"{aim.success:.1%} within {goal.within} for {format_dollars(round(aim.nanos))} in the mean"
    if aim.is_met:
        return Reason(code=Code.GOAL, written=f"the cheapest plan for {goal.success:.4g}: {text}")
    return Reason(code=Code.GOAL_MISSED, written=f"no plan reaches {goal.success:.4g}; the most probable: {text}")
