"""Budgets in the engine: set aside before an intent, settled by what it cost, whoever dies in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.budget import Hold, Reservation, Spending, counter_of, window_of
from gateway.contract.errors import BudgetSpent, NotSent, OutcomeUnknown, RateLimited
from gateway.contract.fact import Begun, LedgerEntry
from gateway.contract.money import Cost, CostBasis
from gateway.contract.prediction import Status
from gateway.contract.route import Choice
from gateway.engine import sweep
from gateway.engine.purse import Purse, amount_of, is_soft, settle, without
from gateway.engine.sweep import KEPT_SECONDS, PATIENCE_SECONDS, STALE_SECONDS, SWEEP_SECONDS, End, end_of
from gateway.store.protocol import Applied, KeptReservation
from gateway.testing import START, Script
from policies.document import Budget
from tests.unit.engine.stage import PRICE, Stage, virtual
from tests.unit.engine.test_engine import BROKEN, DOWN, HANGS, LOST_ANSWER, NEVER_CAME, statuses
from tests.unit.engine.test_failover import a_choice, a_plan, tried
from tests.unit.engine.world import a_prediction, an_attempt

DOLLAR = 1_000_000_000
HOUR = timedelta(hours=1)


def dollars(nanos: int) -> str:
    return f"{nanos / DOLLAR:.9f}"


def budget(nanos: int, per: Any = "day", **rest: Any) -> Budget:
    return Budget(limit=dollars(nanos), per=per, **rest)


def staged(folder: Path, *budgets: Budget, **limits: Any) -> Stage:
    stage = Stage(folder, **limits)
    stage.budgets = budgets
    return stage


async def sums(stage: Stage) -> list[tuple[int, int, int]]:
    """Settled, reserved and how many are open, window by window."""
    rows: list[Spending] = await stage.store.spending(ends_after=START)
    return [(row.settled_nanos, row.reserved_nanos, row.open) for row in rows]


async def comes_to(stage: Stage, expected: list[tuple[int, int, int]]) -> None:
    """Within moments: callers hear of an end before its budgets do."""

    async def holds() -> bool:
        return await sums(stage) == expected

    try:
        await stage.until(holds, within=2)
    except AssertionError:
        assert await sums(stage) == expected
        raise


class TestWhatIsSpent:
    @virtual
    async def test_what_is_begun_is_set_aside_and_what_is_over_is_spent(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(10 * PRICE))
        stage.provider("first", Script(run_seconds=5, cost=Cost(nanos=PRICE // 2, basis=CostBasis.REPORTED)))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(2)
            await comes_to(stage, [(0, PRICE, 1)])
            assert (await stage.read(id)).attempts[0].reserved_nanos == PRICE
            await stage.settled(id)
            await comes_to(stage, [(PRICE // 2, 0, 0)])
            await stage.check(id)

    @virtual
    async def test_of_many_at_once_as_many_are_served_as_the_budget_has_room_for(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(7 * PRICE + PRICE // 2))
        first = stage.provider("first", Script(run_seconds=3))
        async with stage:
            ids = [await stage.post() for _ in range(25)]
            ended = [await stage.settled(id) for id in ids]
            assert [one.status for one in ended].count(Status.SUCCEEDED) == 7
            refused = [one for one in ended if one.status is Status.FAILED]
            assert {one.failure.code for one in refused if one.failure} == {"budget_spent"}
            assert all(one.attempts == () for one in refused)
            assert len(first.submits) == 7
            await comes_to(stage, [(7 * PRICE, 0, 0)])
            for id in ids:
                await stage.check(id)

    @virtual
    async def test_the_error_says_which_budget_how_much_of_it_and_until_when(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE, name="eu", by="key"))
        stage.provider("first")
        async with stage:
            await stage.run()
            prediction = await stage.run()
            assert prediction.error == (
                'the budget "eu" of key acme ($0.001 a day) is spent: $0.001, so that $0.001 for acme/upscaler@first'
                " does not fit; the next day begins at 2026-01-02T00:00Z"
            )
            assert prediction.plan is not None
            [choice] = prediction.plan.choices
            assert (choice.kept, choice.reasons[0].code, choice.reasons[0].text) == (False, "budget", prediction.error)

    @virtual
    async def test_the_next_window_begins_with_nothing_and_late_money_counts_in_its_own(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE, per="hour"), deadline_seconds=86_400)
        stage.provider("first", Script(run_seconds=2 * 3_600))
        async with stage:
            early = await stage.post()
            await asyncio.sleep(1)
            assert (await stage.run()).failure is not None
            await asyncio.sleep(3_600)
            late = await stage.post()
            await asyncio.sleep(1)
            await comes_to(stage, [(0, PRICE, 1), (0, PRICE, 1)])
            await stage.ended(early, within=10_000)
            await stage.settled(early)
            await comes_to(stage, [(PRICE, 0, 0), (0, PRICE, 1)])
            await stage.ended(late, within=10_000)
            await stage.settled(late)
            await comes_to(stage, [(PRICE, 0, 0), (PRICE, 0, 0)])

    @virtual
    async def test_what_a_provider_refused_is_free_again_and_the_next_is_paid_from_it(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE))
        stage.provider("first", Script(starts=False, raises=RateLimited()))
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first rejected", "second succeeded"]
            await comes_to(stage, [(PRICE, 0, 0)])

    @virtual
    async def test_each_budget_must_have_room(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(5 * PRICE, per="month"), budget(2 * PRICE, per="hour"))
        stage.provider("first")
        async with stage:
            done = [(await stage.run()).status for _ in range(3)]
            assert done == [Status.SUCCEEDED] * 2 + [Status.FAILED]
            await comes_to(stage, [(2 * PRICE, 0, 0)] * 2)

    @virtual
    async def test_where_there_is_no_budget_the_store_is_not_asked(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first")
        asked: list[str] = []
        async with stage:
            stage.store.fails = lambda verb, happening: bool(asked.append(verb))
            prediction = await stage.run()
            await asyncio.sleep(3 * SWEEP_SECONDS)
            assert prediction.attempts[0].reserved_nanos is None
            assert "apply" in asked
            assert {"reserve", "settle", "reservations", "forget_spending"}.isdisjoint(asked)


class TestWhatIsLeftToTry:
    @virtual
    async def test_a_cheaper_one_that_fits_is_tried(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE))
        stage.provider("dear", price=2 * PRICE)
        stage.provider("cheap")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["cheap succeeded"]
            assert prediction.plan is not None
            [kept, dropped] = prediction.plan.choices
            assert (kept.provider, kept.kept, dropped.provider, dropped.kept) == ("cheap", True, "dear", False)
            assert dropped.reasons[0].code == "budget"

    @pytest.mark.parametrize(
        ("when_spent", "served"),
        [("refuse", None), ("cheapest", "cheap succeeded"), ("local", "local succeeded")],
    )
    @virtual
    async def test_what_may_go_beyond_the_limit(self, when_spent: Any, served: str | None, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE // 2, when_spent=when_spent))
        stage.provider("dear", price=2 * PRICE)
        stage.provider("cheap", price=PRICE)
        stage.provider("local", price=3 * PRICE, is_fallback=True)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ([served] if served else [])
            assert (prediction.status is Status.SUCCEEDED) is (served is not None)
            cost = {"cheap succeeded": PRICE, "local succeeded": 3 * PRICE}.get(served or "")
            await comes_to(stage, ([(cost, 0, 0)] if cost else []))

    @pytest.mark.parametrize(("when_spent", "served"), [("refuse", []), ("local", ["local succeeded"])])
    @virtual
    async def test_a_free_fallback_stands_in_only_where_the_budget_says_so(
        self, when_spent: Any, served: list[str], tmp_path: Path
    ) -> None:
        stage = staged(tmp_path, budget(PRICE // 2, when_spent=when_spent))
        stage.provider("first")
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == served
            if not served:
                assert prediction.failure is not None
                assert prediction.failure.code == "budget_spent"

    @virtual
    async def test_a_free_fallback_is_there_for_what_is_broken(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE))
        stage.provider("first", BROKEN)
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            assert statuses(await stage.run()) == ["first failed", "local succeeded"]

    @pytest.mark.parametrize(("unknown_price", "reserved"), [("drop", None), (dollars(2 * PRICE), 2 * PRICE)])
    @virtual
    async def test_an_unknown_price_is_not_started_or_counts_what_ops_say(
        self, unknown_price: str, reserved: int | None, tmp_path: Path
    ) -> None:
        stage = staged(tmp_path, budget(3 * PRICE, unknown_price=unknown_price))
        first = stage.provider("first", price=None)
        async with stage:
            prediction = await stage.run()
            assert len(first.submits) == (reserved is not None)
            # What it cost is never told: what was set aside counts.
            await comes_to(stage, ([(reserved, 0, 0)] if reserved else []))
            if reserved is None:
                assert "what acme/upscaler@first costs is not known" in (prediction.error or "")
            else:
                assert (await stage.run()).status is Status.FAILED


class TestWhatIsNotKnown:
    @virtual
    async def test_what_may_have_been_billed_stays_set_aside_until_it_is_known(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(4 * PRICE), pay_twice_up_to="1")
        first = stage.provider("first", replace(LOST_ANSWER, run_seconds=400), hold_seconds=5)
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            await comes_to(stage, [(PRICE, PRICE, 1)])
            await stage.settled(id)
            assert (await stage.ledger(id))[0] == (1, "maybe", PRICE)
            await asyncio.sleep(STALE_SECONDS + 2 * SWEEP_SECONDS)
            # Nobody looks for it any more: it counts as spent, as what it was expected to cost.
            await comes_to(stage, [(2 * PRICE, 0, 0)])
            assert first.jobs

    @virtual
    async def test_an_end_that_is_told_late_corrects_what_was_given_up(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(4 * PRICE), pay_twice_up_to="1")
        stage.provider("first", NEVER_CAME, hold_seconds=5)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            await asyncio.sleep(STALE_SECONDS + 2 * SWEEP_SECONDS)
            await comes_to(stage, [(2 * PRICE, 0, 0)])
            told = prediction.attempts[0]
            told = replace(told, status=AttemptStatus.FAILED, cost=Cost(nanos=3, basis=CostBasis.REPORTED))
            entry = LedgerEntry(attempt=1, offer="o", provider="p", state="settled", nanos=3, basis="reported")
            after = replace(prediction, revision=prediction.revision + 1, attempts=(told, *prediction.attempts[1:]))
            await settle(stage.store, Applied(prediction=after, changed=True, effects=(entry,)))  # type: ignore[arg-type]
            await comes_to(stage, [(PRICE + 3, 0, 0)])

    @virtual
    async def test_an_attempt_that_goes_on_is_not_swept(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(2 * PRICE), deadline_seconds=7_200)
        stage.provider("first", Script(run_seconds=3_600))
        async with stage:
            id = await stage.post()
            for _ in range(10):
                await asyncio.sleep(SWEEP_SECONDS)
                await comes_to(stage, [(0, PRICE, 1)])
            await stage.ended(id, within=7_200)
            await stage.settled(id)
            await comes_to(stage, [(PRICE, 0, 0)])


class TestWhoDiesInBetween:
    @virtual
    async def test_before_the_intent_the_next_worker_takes_the_reservation_over(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE))
        first = stage.provider("first")
        async with stage:
            stage.store.fails = lambda verb, happening: isinstance(happening, Begun)
            id = await stage.post()
            await asyncio.sleep(0.5)
            await comes_to(stage, [(0, PRICE, 1)])
            assert (await stage.read(id)).attempts == ()
            await stage.kill()
            await stage.open()
            assert (await stage.settled(id)).status is Status.SUCCEEDED
            assert len(first.submits) == 1
            await comes_to(stage, [(PRICE, 0, 0)])

    @virtual
    async def test_before_the_intent_of_what_is_never_begun_the_sweep_releases_it(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(PRICE), deadline_seconds=20)
        stage.provider("first")
        async with stage:
            stage.store.fails = lambda verb, happening: isinstance(happening, Begun)
            id = await stage.post()
            await asyncio.sleep(0.5)
            await stage.kill()
            stage.clock.advance(60)
            await stage.open()
            prediction = await stage.settled(id)
            assert (prediction.status, prediction.attempts) == (Status.FAILED, ())
            await comes_to(stage, [(0, PRICE, 1)])
            await asyncio.sleep(STALE_SECONDS + SWEEP_SECONDS)
            await comes_to(stage, [(0, 0, 0)])

    @virtual
    async def test_between_the_end_and_the_settlement_the_sweep_settles_it(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(4 * PRICE))
        stage.provider("first")
        stage.provider("second", DOWN)
        async with stage:
            stage.store.fails = lambda verb, happening: verb == "settle"
            id = await stage.post()
            assert (await stage.settled(id)).status is Status.SUCCEEDED
            await comes_to(stage, [(0, PRICE, 1)])
            stage.store.fails = lambda verb, happening: False
            await asyncio.sleep(STALE_SECONDS + SWEEP_SECONDS)
            await comes_to(stage, [(PRICE, 0, 0)])
            await stage.check(id)

    @pytest.mark.parametrize("is_canceled", [False, True])
    @virtual
    async def test_what_ends_while_it_is_reserved_is_not_begun_and_its_money_is_released(
        self, is_canceled: bool, tmp_path: Path
    ) -> None:
        stage = staged(tmp_path, budget(PRICE), deadline_seconds=3)
        first = stage.provider("first")
        async with stage:
            gate = asyncio.Event()
            reserve = stage.store.reserve

            async def slow(reservation: Reservation) -> Any:
                answer = await reserve(reservation)
                gate.set()
                await asyncio.sleep(5)
                return answer

            stage.store.reserve = slow
            id = await stage.post()
            await gate.wait()
            if is_canceled:
                await stage.cancel(id)
            prediction = await stage.settled(id)
            assert prediction.status is (Status.CANCELED if is_canceled else Status.FAILED)
            assert (prediction.attempts, first.submits) == ((), [])
            if is_canceled:  # it is nobody's any more, so that nobody but the sweep may say so
                await comes_to(stage, [(0, PRICE, 1)])
                await asyncio.sleep(STALE_SECONDS + SWEEP_SECONDS)
            await comes_to(stage, [(0, 0, 0)])

    @pytest.mark.parametrize("is_taken", [False, True])
    @virtual
    async def test_who_writes_an_intent_late_reserves_again_before_a_byte_leaves(
        self, is_taken: bool, tmp_path: Path
    ) -> None:
        """Meanwhile the sweep has released it, and another prediction may have taken the money."""
        stage = staged(tmp_path, budget(PRICE), deadline_seconds=3_600)
        first = stage.provider("first")
        async with stage:
            slept: list[float] = []
            apply = stage.store.apply

            async def late(id: str, happening: Any, **rest: Any) -> Any:
                if isinstance(happening, Begun) and not slept:
                    slept.append(STALE_SECONDS + 2 * SWEEP_SECONDS)
                    await asyncio.sleep(slept[0])
                return await apply(id, happening, **rest)

            stage.store.apply = late
            id = await stage.post()
            await stage.until(lambda: bool(slept))
            await asyncio.sleep(STALE_SECONDS + SWEEP_SECONDS)
            await comes_to(stage, [(0, 0, 0)])
            if is_taken:
                other = await stage.post()
                assert (await stage.ended(other)).status is Status.SUCCEEDED
            prediction = await stage.settled(id)
            await comes_to(stage, [(PRICE, 0, 0)])
            assert len(first.submits) == 1
            assert prediction.status is (Status.FAILED if is_taken else Status.SUCCEEDED)
            if is_taken:
                assert prediction.attempts[0].status is AttemptStatus.REJECTED
                assert prediction.failure is not None
                assert prediction.failure.code == "budget_spent"
                assert await stage.ledger(id) == [(1, "released", 0)]
            assert slept[0] > PATIENCE_SECONDS

    @virtual
    async def test_a_worker_that_has_lost_it_lowers_nothing(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(10 * PRICE))
        stage.provider("first", HANGS)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            prediction = await stage.read(id)
            assert prediction.plan is not None
            stale = Purse(stage.store, fence=0)  # type: ignore[arg-type]
            cheap = replace(prediction.plan.choices[0], expected_nanos=1)
            before = replace(prediction, attempts=())
            assert await stale.reserve(before, 1, cheap, prediction.plan) == 1
            await comes_to(stage, [(0, PRICE, 1)])

    @virtual
    async def test_what_was_reserved_anew_while_the_sweep_read_is_left(self, tmp_path: Path) -> None:
        stage = staged(tmp_path, budget(10 * PRICE))
        stage.provider("first")
        async with stage:
            plan = a_plan(holds=(_hold(10 * PRICE),))
            prediction = a_prediction()
            purse = Purse(stage.store, fence=1)  # type: ignore[arg-type]
            await purse.reserve(prediction, 1, a_choice("first", PRICE), plan)
            stage.clock.advance(2 * STALE_SECONDS)
            get = stage.store.get

            async def meanwhile(id: str, **rest: Any) -> Any:
                found = await get(id, **rest)
                await purse.reserve(prediction, 1, a_choice("first", PRICE), plan)
                return found

            stage.store.get = meanwhile
            assert stage.engine is not None
            await stage.engine._sweep.step()
            await comes_to(stage, [(0, PRICE, 1)])
            stage.store.get = get
            stage.clock.advance(2 * STALE_SECONDS)
            await stage.engine._sweep.step()
            await comes_to(stage, [(0, 0, 0)])

    @virtual
    async def test_the_sweep_goes_through_many_and_forgets_what_is_long_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage = staged(tmp_path, budget(10_000 * PRICE, per="hour"))
        stage.provider("first")
        async with stage:
            purse = Purse(stage.store, fence=1)  # type: ignore[arg-type]
            plan = a_plan(holds=(_hold(10_000 * PRICE, per="hour"),))
            for number in range(450):
                await purse.reserve(a_prediction(id=f"{number:026d}"), 1, a_choice("first", 1), plan)
            await asyncio.sleep(STALE_SECONDS + SWEEP_SECONDS + 5)
            await comes_to(stage, [(0, 0, 0)])
            stage.clock.advance(3_600 + KEPT_SECONDS)
            assert stage.engine is not None
            monkeypatch.setattr(sweep, "FORGOTTEN", 100)
            await stage.engine._sweep.step()
            await comes_to(stage, [])
            assert [record async for record in stage.store.dump() if isinstance(record, KeptReservation)] == []


def _hold(limit: int, *, per: str = "day", **rest: Any) -> Hold:
    window, ends_at = window_of(per, START)
    counter = counter_of("b", by="policy", of="", per=per, window=window)
    return Hold(counter=counter, limit_nanos=limit, ends_at=ends_at, **rest)


class TestWhoMayGoBeyond:
    CHOICES = (
        a_choice("dear", 500),
        a_choice("cheap", 100),
        a_choice("even", 100),
        a_choice("unknown", None),
        a_choice("local", 50, is_fallback=True),
        a_choice("dropped", 1, kept=False),
    )

    @pytest.mark.parametrize(
        ("when_spent", "soft"), [("refuse", set()), ("cheapest", {"cheap", "even"}), ("local", {"local"})]
    )
    def test_by_its_word(self, when_spent: str, soft: set[str]) -> None:
        plan = a_plan(*self.CHOICES)
        hold = _hold(0, when_spent=when_spent)
        assert {choice.provider for choice in plan.kept if is_soft(hold, choice, plan)} == soft

    def test_nobody_is_the_cheapest_where_no_price_is_known(self) -> None:
        plan = a_plan(a_choice("unknown", None))
        assert not is_soft(_hold(0, when_spent="cheapest"), plan.choices[0], plan)

    @pytest.mark.parametrize(
        ("expected", "holds", "amount"),
        [
            (7, (_hold(9),), 7),
            (10**18, (_hold(9),), 10**15),
            (None, (_hold(9, unknown_nanos=3), _hold(9, unknown_nanos=5)), 5),
            (None, (_hold(9, unknown_nanos=3), _hold(9)), None),
            (None, (_hold(9, is_soft=True),), 0),
        ],
    )
    def test_what_is_set_aside(self, expected: int | None, holds: tuple[Hold, ...], amount: int | None) -> None:
        choice: Choice = a_choice("x", expected)
        if amount is None:
            with pytest.raises(BudgetSpent, match="is not known"):
                amount_of(choice, holds)
        else:
            assert amount_of(choice, holds) == amount

    def test_refused_ones_stand_first_among_the_dropped(self) -> None:
        plan = a_plan(*self.CHOICES)
        refused = {self.CHOICES[1].offer: BudgetSpent("no")}
        assert [choice.provider for choice in without(plan, refused).choices] == [
            "dear",
            "even",
            "unknown",
            "local",
            "cheap",
            "dropped",
        ]
        assert without(plan, {}) is plan


UNKNOWN = OutcomeUnknown("cut").failure
KNOWN = Cost(nanos=9, basis=CostBasis.REPORTED)


class TestWhatAnAttemptCameTo:
    @pytest.mark.parametrize(
        ("attempt", "end"),
        [
            (None, End(0)),
            ({"reserved_nanos": None}, End(0)),
            ({}, None),
            ({"status": AttemptStatus.ACCEPTED}, None),
            ({"status": AttemptStatus.UNKNOWN, "failure": UNKNOWN}, None),
            ({"status": AttemptStatus.COLLECTING, "cost": KNOWN}, End(9)),
            ({"status": AttemptStatus.SUCCEEDED, "cost": KNOWN}, End(9)),
            ({"status": AttemptStatus.SUCCEEDED}, End(None)),
            ({"status": AttemptStatus.REJECTED, "failure": NotSent().failure}, End(0)),
            ({"status": AttemptStatus.ABANDONED, "failure": UNKNOWN, "look_at": START + HOUR}, None),
        ],
    )
    def test_while_the_prediction_is_open(self, attempt: dict[str, Any] | None, end: End | None) -> None:
        made = () if attempt is None else ({"reserved_nanos": 5} | attempt,)
        assert end_of(tried(*made), 1) == end

    def test_once_nobody_looks_for_it_any_more(self) -> None:
        given_up = {"status": AttemptStatus.ABANDONED, "failure": UNKNOWN, "reserved_nanos": 5}
        assert end_of(tried(given_up, status=Status.FAILED), 1) == End(None)

    def test_a_prediction_that_is_not_there_has_begun_nothing(self) -> None:
        assert end_of(None, 1) == End(0)


@virtual
async def test_only_rows_that_say_what_it_cost_are_settled_and_only_of_what_was_reserved(tmp_path: Path) -> None:
    stage = staged(tmp_path, budget(10 * PRICE))
    async with stage:
        purse = Purse(stage.store, fence=1)  # type: ignore[arg-type]
        attempts: tuple[Attempt, ...] = (an_attempt(1, reserved_nanos=PRICE), an_attempt(2))
        prediction = a_prediction(attempts=attempts, revision=4)
        for number in (1, 2):
            await purse.reserve(prediction, number, a_choice("first", PRICE), a_plan(holds=(_hold(9 * PRICE),)))
        for attempt, state, expected in (
            (1, "reserved", (0, 2 * PRICE, 2)),
            (1, "maybe", (0, 2 * PRICE, 2)),
            (2, "settled", (0, 2 * PRICE, 2)),
            (1, "settled", (7, PRICE, 1)),
            (1, "released", (7, PRICE, 1)),
        ):
            entry = LedgerEntry(attempt=attempt, offer="o", provider="p", state=state, nanos=7, basis="reported")
            await settle(stage.store, Applied(prediction=prediction, changed=True, effects=(entry,)))  # type: ignore[arg-type]
            await comes_to(stage, [expected])
