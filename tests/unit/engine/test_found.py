"""What simulated universes have found, each as small as it can be shown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.contract.errors import OutcomeUnknown
from gateway.contract.fact import (
    Begun,
    CancelRequested,
    CancelSent,
    Fact,
    Learned,
    LedgerEntry,
    Phase,
    Source,
    SubmitFailed,
)
from gateway.contract.ledger import may_be_billed
from gateway.contract.money import Cost, CostBasis, Price
from gateway.contract.prediction import Status
from gateway.contract.provider import Cancel, Capabilities
from gateway.engine.lifecycle import reduce
from gateway.engine.watch import Watchers
from gateway.testing import Script
from tests.unit.engine.stage import POLLED, Stage, virtual
from tests.unit.engine.world import a_prediction, an_attempt, at, queued

# Polled so rarely that what happens between two looks is never seen.
SELDOM = Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, min_poll_seconds=60.0)


class TestACancelOfWhatWasLastSeenInTheQueue:
    @pytest.mark.parametrize(
        ("capabilities", "fails", "state"),
        [(POLLED, 0, "maybe"), (SELDOM, 0, "settled"), (SELDOM, 99, "maybe")],
        ids=["it is seen to run", "nobody saw it run", "and nobody can be asked"],
    )
    @virtual
    async def test_is_not_released_if_it_ran(
        self, tmp_path: Path, capabilities: Capabilities, fails: int, state: str
    ) -> None:
        """I5: a job that ran unseen is billed, and the ledger said that nothing was spent."""
        stage = Stage(tmp_path)
        script = Script(queue_seconds=2.0, run_seconds=50.0, polls_failing=fails)
        provider = stage.provider("first", script, capabilities=capabilities)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(10.0)
            await stage.cancel(id)
            assert (await stage.ended(id)).status is Status.CANCELED
            await stage.settled(id)
            assert provider.jobs[0].is_billed(stage.clock.monotonic())
            assert [row[1] for row in await stage.ledger(id)] == [state]
            await stage.check(id)

    @pytest.mark.parametrize(("ran", "state"), [(True, "settled"), (False, "released")])
    def test_and_told_of_later_is_released_only_if_it_never_ran(self, ran: bool, state: str) -> None:
        """I5: the callback that follows a confirmed cancel said when it had begun, and nobody read that."""
        cost = Cost(nanos=0, basis=CostBasis.COMPUTED)
        said = Fact(phase=Phase.CANCELED, handle={"id": "job"}, started_at=at(0.5) if ran else None)
        prediction, effects = a_prediction(), []
        for second, happening in enumerate(
            (
                Begun(attempt=an_attempt(1)),
                Learned(attempt=1, fact=queued(), source=Source.POLL),
                CancelRequested(),
                CancelSent(attempt=1, confirmed=True),
                Learned(attempt=1, fact=said, source=Source.CALLBACK, cost=cost),
            )
        ):
            reduction = reduce(prediction, happening, at(second))
            prediction = reduction.prediction
            effects += reduction.effects
        assert prediction.status is Status.CANCELED
        assert [one.state for one in effects if isinstance(one, LedgerEntry)][-2:] == ["maybe", state]

    @pytest.mark.parametrize(
        "price",
        [Price(per_prediction=5), Price(per_second=225_000), Price()],
        ids=["fixed", "by the second", "unknown"],
    )
    @virtual
    async def test_is_released_if_the_provider_says_that_it_never_ran(self, tmp_path: Path, price: Price) -> None:
        """The time in the queue was charged by the second; of an unknown price the caller was told of a `maybe`."""
        stage = Stage(tmp_path)
        stage.provider("first", Script(queue_seconds=50.0), capabilities=SELDOM)
        stage.prices["first"] = price
        async with stage:
            id = await stage.post()
            await asyncio.sleep(10.0)
            await stage.cancel(id)
            await stage.settled(id)
            assert [row[1:] for row in await stage.ledger(id)] == [("released", 0)]
            (attempt,) = (await stage.read(id)).attempts
            assert (attempt.cost.nanos, may_be_billed(attempt)) == (0, False), "the row and the attempt disagree"

    def test_and_only_stood_in_a_list_may_be_billed_by_row_and_attempt_alike(self) -> None:
        cost = Cost(nanos=0, basis=CostBasis.COMPUTED)
        prediction, effects = a_prediction(), []
        for second, happening in enumerate(
            (
                Begun(attempt=an_attempt(1)),
                SubmitFailed(attempt=1, failure=OutcomeUnknown("no answer").failure),
                Learned(attempt=1, fact=queued(), source=Source.LISTING),
                CancelRequested(),
                CancelSent(attempt=1, confirmed=False),
                Learned(attempt=1, fact=replace(queued(), phase=Phase.CANCELED), source=Source.POLL, cost=cost),
            )
        ):
            reduction = reduce(prediction, happening, at(second))
            prediction = reduction.prediction
            effects += reduction.effects
        assert [one.state for one in effects if isinstance(one, LedgerEntry)][-1] == "maybe"
        assert may_be_billed(prediction.attempts[0])


def test_who_waits_for_a_prediction_is_told_in_the_order_of_coming() -> None:
    """A set of them would be in the order of their addresses: no seed could replay that."""

    class Silent:
        def watch(self, id: str) -> None: ...

        def unwatch(self, id: str) -> None: ...

    watchers = Watchers(Silent(), is_driven=lambda id: True)  # type: ignore[arg-type]
    opened = [watchers.changes("p") for _ in range(50)]
    waiting = [each.__enter__() for each in opened]
    assert list(watchers._open["p"]) == waiting
    for each in opened:
        each.__exit__(None, None, None)
    assert watchers.ids() == []
