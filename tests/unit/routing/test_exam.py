"""The entrance exam of the router, in small: `python -m tests.bench.routing` is the whole of it."""

from __future__ import annotations

import pytest

from tests.bench.routing import behaviour
from tests.bench.routing.regret import OURS, examine
from tests.bench.routing.truth import WORLDS
from tests.bench.routing.world import House, arrivals, play


@pytest.mark.parametrize("name", behaviour.EXAMS)
def test_what_others_fail_at_is_passed(name: str) -> None:
    mark = behaviour.EXAMS[name](behaviour.turnout)
    assert mark.is_passed, mark.said


@pytest.mark.parametrize(
    ("world", "policy"),
    [("flapping", "latency"), ("degrading", "goal"), ("bimodal", "cost"), ("rate limited", "cost")],
)
def test_it_loses_less_than_every_simple_strategy(world: str, policy: str) -> None:
    weather = next(weather for weather in WORLDS if weather.name == world)
    losses = {row.strategy: row.loss for row in examine(weather, policy, seed=3, count=900)}
    ours = losses.pop(OURS)
    losses.pop("oracle")
    assert all(ours < loss for loss in losses.values()), (ours, losses)


def test_two_strategies_meet_the_same_arrivals_and_the_same_luck() -> None:
    weather = WORLDS[0]
    assert arrivals(weather, 3, 50) == arrivals(weather, 3, 50) != arrivals(weather, 4, 50)
    books = [play(House(weather, 3, 200), weather, behaviour.turnout(weather), seed=3, count=200) for _ in range(2)]
    assert books[0] == books[1]
