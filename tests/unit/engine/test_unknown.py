"""Submits nobody answered: sent again, called back, found in a list, or paid twice for; and what is found too late."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import OutcomeUnknown, PollFailed
from gateway.contract.fact import Fact, Phase, Sought
from gateway.contract.prediction import Status
from gateway.contract.provider import Call, Callbacks, Cancel, Cancellation, Capabilities
from gateway.engine.attempt import Timing
from gateway.engine.lifecycle import is_open
from gateway.store.protocol import Held
from gateway.testing import Job, Script
from tests.unit.engine.stage import IDEMPOTENT, POLLED, PRICE, WITH_CALLBACKS, Stage, virtual

LISTED = replace(POLLED, lists=True)
LISTED_WITH_CALLBACKS = replace(WITH_CALLBACKS, lists=True)
LOST = Script(raises=OutcomeUnknown("the line broke"), run_seconds=6, callbacks=0)
NEVER_CAME = replace(LOST, starts=False)


def once(first: Script, then: Script) -> Callable[[Call], Script]:
    """What becomes of the first submit, and of those after it."""
    scripts = iter((first,))
    return lambda call: next(scripts, then)


async def first_attempt(stage: Stage, id: str) -> Attempt:
    return (await stage.read(id)).attempts[0]


class TestTheLadder:
    @virtual
    async def test_an_idempotent_submit_is_sent_again_before_anything_is_looked_for(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        provider = stage.provider("first", once(LOST, Script()), capabilities=replace(IDEMPOTENT, lists=True))
        async with stage:
            prediction = await stage.run()
            assert prediction.attempts[0].resolved_by == "submit"
            assert len(provider.submits) == 2
            assert len(provider.jobs) == 1
            await stage.check(prediction.id)

    @virtual
    async def test_nothing_is_paid_twice_for_as_long_as_it_can_be_sent_again(self, tmp_path: Path) -> None:
        """Each time it takes a quarter of a minute to hear nothing: in all longer than anything else is waited for."""
        stage = Stage(tmp_path, pay_twice_up_to="1", deadline_seconds=300)
        scripts = iter([replace(LOST, answer_seconds=15)] * 3)
        provider = stage.provider("first", lambda call: next(scripts, Script()), capabilities=IDEMPOTENT)
        second = stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert (prediction.winner, second.submits, len(provider.jobs)) == (1, [], 1)
            await stage.check(prediction.id)

    @virtual
    async def test_a_callback_ends_the_doubt(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", replace(LOST, callbacks=1, run_seconds=3), capabilities=LISTED_WITH_CALLBACKS)
        async with stage:
            prediction = await stage.run()
            assert prediction.attempts[0].resolved_by == "callback"
            assert prediction.status is Status.SUCCEEDED
            await stage.check(prediction.id)

    @pytest.mark.parametrize("capabilities", [LISTED, LISTED_WITH_CALLBACKS], ids=["by input", "by address"])
    @virtual
    async def test_a_job_that_is_listed_is_adopted_and_nothing_is_paid_twice(
        self, tmp_path: Path, capabilities: Capabilities
    ) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        provider = stage.provider("first", LOST, capabilities=capabilities)
        second = stage.provider("second")
        async with stage:
            prediction = await stage.run(prompt="a heron")
            attempt = prediction.attempts[0]
            assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 1)
            assert attempt.resolved_by == "listing"
            assert attempt.handle == {"id": provider.jobs[0].id}
            assert second.submits == []
            assert await stage.ledger(prediction.id) == [(1, "settled", PRICE)]
            await stage.check(prediction.id)

    @virtual
    async def test_a_list_that_lags_is_looked_at_once_more_before_another_is_paid(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        stage.provider("first", replace(LOST, run_seconds=30, listed_seconds=10), capabilities=LISTED)
        second = stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert prediction.attempts[0].resolved_by == "listing"
            assert second.submits == []

    @virtual
    async def test_a_list_that_shows_nothing_says_nothing_and_the_policy_decides(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        stage.provider("first", NEVER_CAME, capabilities=LISTED)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            first, second = prediction.attempts
            assert (first.status, first.resolved_by) == (AttemptStatus.ABANDONED, None)
            assert second.pays_twice
            assert (second.begun_at - first.begun_at).total_seconds() >= 20
            assert await stage.ledger(prediction.id) == [(1, "maybe", PRICE), (2, "settled", PRICE)]
            await stage.check(prediction.id, may_pay_twice=True)

    @pytest.mark.parametrize("hold_seconds", [0.0, 5.0, 60.0])
    @virtual
    async def test_how_long_is_waited_for_it_is_the_providers_own_setting(
        self, tmp_path: Path, hold_seconds: float
    ) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        stage.provider("first", NEVER_CAME, capabilities=LISTED, hold_seconds=hold_seconds)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            one, other = prediction.attempts
            assert one.unknown_at is not None
            assert hold_seconds <= (other.begun_at - one.unknown_at).total_seconds() < hold_seconds + 1.0
            await stage.check(prediction.id, may_pay_twice=True)

    @virtual
    async def test_after_a_crash_between_intent_and_answer_the_same_ladder_is_climbed(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        slow = Script(answer_seconds=30, run_seconds=8, callbacks=0)
        provider = stage.provider("first", slow, capabilities=LISTED_WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(provider.jobs))
            await stage.kill()
            await stage.open()
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert prediction.attempts[0].resolved_by == "listing"
            assert len(provider.submits) == 1, "what may have been sent is not sent again"
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_who_takes_it_over_when_the_hold_is_over_looks_for_itself_before_another_is_paid(
        self, tmp_path: Path
    ) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        provider = stage.provider("first", replace(LOST, run_seconds=200), capabilities=LISTED)
        second = stage.provider("second")
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(provider.jobs))
            await asyncio.sleep(1)  # it is unknown, and nobody has looked yet
            await stage.kill()
            await asyncio.sleep(60)
            await stage.open()
            assert (await stage.ended(id)).attempts[0].resolved_by == "listing"
            assert second.submits == []
            await stage.settled(id)
            await stage.check(id)


class TestWhoseJob:
    """One job is not two attempts', whoever asked for the same thing in the same second."""

    @virtual
    async def test_what_another_attempt_has_is_left_to_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30)
        provider = stage.provider("first", once(Script(run_seconds=1), NEVER_CAME), capabilities=LISTED)
        async with stage:
            one = await stage.post(prompt="a heron")
            await stage.until(lambda: bool(provider.jobs))
            other = await stage.post(prompt="a heron")
            await stage.ended(one)
            assert (await stage.ended(other)).status is Status.FAILED
            assert (await first_attempt(stage, other)).handle is None
            assert provider.jobs[0].cancels == 0

    @virtual
    async def test_what_may_be_either_ones_is_neithers(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30)
        script = once(replace(LOST, run_seconds=math.inf), NEVER_CAME)
        provider = stage.provider("first", script, capabilities=LISTED)
        async with stage:
            ids = [await stage.post(prompt="a heron") for _ in range(2)]
            for id in ids:
                assert (await stage.ended(id)).status is Status.FAILED
                assert (await first_attempt(stage, id)).handle is None
            assert len(provider.jobs) == 1
            assert provider.jobs[0].cancels == 0

    @virtual
    async def test_two_jobs_that_fit_are_one_too_many(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30)
        provider = stage.provider("first", replace(LOST, run_seconds=math.inf), capabilities=LISTED)
        async with stage:
            id = await stage.post(prompt="a heron")
            await stage.until(lambda: bool(provider.jobs))
            provider.jobs.append(Job("somebody-elses", provider.submits[0], Script(), stage.clock.monotonic()))
            assert (await stage.ended(id)).status is Status.FAILED
            assert (await first_attempt(stage, id)).handle is None

    @virtual
    async def test_another_input_is_another_job(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", LOST, capabilities=LISTED)
        async with stage:
            ids = [await stage.post(prompt=prompt) for prompt in ("a heron", "a crane")]
            for id in ids:
                assert (await stage.ended(id)).status is Status.SUCCEEDED
            one, other = [await first_attempt(stage, id) for id in ids]
            assert one.handle != other.handle


class TestOrphans:
    @virtual
    async def test_a_loser_that_is_found_is_stopped_and_settled(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        script = replace(LOST, run_seconds=math.inf, listed_seconds=30)
        provider = stage.provider("first", script, capabilities=LISTED_WITH_CALLBACKS)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert prediction.winner == 2
            first = prediction.attempts[0]
            assert (first.status, first.resolved_by) == (AttemptStatus.CANCELED, "listing")
            [job] = provider.jobs
            assert job.canceled_at is not None
            assert job.canceled_at - (job.started_at + 30) <= 120
            assert await stage.ledger(prediction.id) == [(1, "settled", 0), (2, "settled", PRICE)]

    @virtual
    async def test_an_orphan_is_looked_for_after_the_end_and_after_a_restart(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30, timing=Timing())
        script = replace(LOST, run_seconds=math.inf, listed_seconds=200)
        provider = stage.provider("first", script, capabilities=LISTED)
        async with stage:
            id = await stage.post()
            ended = await stage.ended(id)
            assert ended.status is Status.FAILED
            await asyncio.sleep(20)
            await stage.kill()
            await asyncio.sleep(60)
            await stage.open()
            prediction = await stage.settled(id, within=4_000)
            assert prediction.attempts[0].status is AttemptStatus.CANCELED
            assert provider.jobs[0].canceled_at is not None
            assert (prediction.status, prediction.completed_at) == (ended.status, ended.completed_at)

    @virtual
    async def test_who_only_waits_for_an_orphan_is_in_nobodys_way(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30, timing=Timing())
        stage.provider("first", replace(LOST, run_seconds=math.inf, listed_seconds=math.inf), capabilities=LISTED)
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            claim, claims = stage.store.store.claim_due, 0

            async def counted(worker: str, *, limit: int) -> list[Held]:
                nonlocal claims
                held = await claim(worker, limit=limit)
                claims += len(held)
                return held

            stage.store.store.claim_due = counted  # type: ignore[method-assign]
            await asyncio.sleep(60)
            prediction = await stage.read(id)
            assert is_open(prediction)
            assert claims <= prediction.attempts[0].looks + 1, "it is taken up to be laid down again"
            assert stage.engine is not None
            assert stage.engine.open_count == 0, "it counts against what may be in flight"
            assert stage.engine.open_predictions() == []
            began = stage.clock.monotonic()
            await stage.close()
            assert stage.clock.monotonic() - began < 1, "it held up the drain"
            await stage.open()
            prediction = await stage.settled(id, within=4_000)
            assert prediction.attempts[0].looks == len(Timing().look_pauses)
            assert await stage.ledger(id) == [(1, "maybe", PRICE)]
            looks = [happening for _, happening, _ in stage.store.applied if isinstance(happening, Sought)]
            assert len(looks) <= len(Timing().look_pauses)

    @virtual
    async def test_a_look_that_a_shutdown_breaks_off_is_none_of_its_looks(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30)
        script = replace(LOST, run_seconds=math.inf, listed_seconds=math.inf)
        provider = stage.provider("first", script, capabilities=LISTED)
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            provider.list_seconds, whole = 50.0, len(provider.looks)
            await stage.until(lambda: len(provider.looks) == whole + 1)
            ward, began = stage.store, stage.clock.monotonic()
            await stage.close()
            assert stage.clock.monotonic() - began < 1, "it was waited for"
            assert not [happening for _, happening, _ in ward.applied if isinstance(happening, Sought)]
            provider.list_seconds = 0.0
            await stage.open()
            prediction = await stage.settled(id)
            assert prediction.attempts[0].looks == len(stage.timing.look_pauses)
            assert len(provider.looks) == whole + 1 + len(stage.timing.look_pauses), "it was not made up for"

    @virtual
    async def test_a_callback_that_finds_an_orphan_has_it_stopped(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=10)
        script = replace(LOST, run_seconds=math.inf)
        provider = stage.provider("first", script, capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            await stage.settled(id)
            [job] = provider.jobs
            assert job.callback_url is not None
            assert job.canceled_at is None
            heard_at = stage.clock.monotonic()
            await stage.deliver(job.callback_url, *provider.callback(job))
            await stage.until(lambda: job.canceled_at is not None, within=120)
            assert stage.clock.monotonic() - heard_at < 10
            prediction = await stage.settled(id)
            assert (prediction.attempts[0].status, prediction.attempts[0].resolved_by) == (
                AttemptStatus.CANCELED,
                "callback",
            )
            assert await stage.ledger(id) == [(1, "maybe", PRICE)], "it ran until then, and may be billed"

    @virtual
    async def test_a_cancel_that_nobody_hears_is_asked_again_and_what_became_of_it_is_settled(
        self, tmp_path: Path
    ) -> None:
        stage = Stage(tmp_path, deadline_seconds=120, attempt_seconds=10, timing=Timing())
        script = Script(run_seconds=300, cancel=PollFailed("503"), callbacks=0)
        provider = stage.provider("first", script, capabilities=POLLED)
        stage.provider("second")
        async with stage:
            id = await stage.post()
            assert (await stage.ended(id)).winner == 2
            prediction = await stage.settled(id, within=4_000)
            [job] = provider.jobs
            assert job.cancels == stage.timing.cancel_tries
            assert prediction.attempts[0].status is AttemptStatus.SUCCEEDED, "it could not be stopped, and ended"
            assert prediction.winner == 2
            assert await stage.ledger(id) == [(1, "settled", PRICE), (2, "settled", PRICE)]

    @virtual
    async def test_an_orphan_its_provider_has_forgotten_is_let_go(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=120, attempt_seconds=10, timing=Timing())
        script = Script(run_seconds=60, is_forgotten=True, cancel=Cancellation.UNSUPPORTED, callbacks=0)
        stage.provider("first", script, capabilities=replace(POLLED, cancel=Cancel.ANY_TIME))
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            prediction = await stage.settled(id, within=400)
            assert prediction.attempts[0].status is AttemptStatus.ABANDONED
            assert await stage.ledger(id) == [(1, "maybe", PRICE), (2, "settled", PRICE)]

    @virtual
    async def test_a_bug_in_a_look_costs_the_look_alone(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=10)
        provider = stage.provider("first", NEVER_CAME, capabilities=LISTED)

        async def stumble(call: Call, *, since: object) -> tuple[()]:
            raise ValueError("a bug in the adapter")

        provider.find = stumble  # type: ignore[method-assign, assignment]
        async with stage:
            id = await stage.post()
            assert (await stage.ended(id)).status is Status.FAILED
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_a_callback_that_comes_while_it_is_of_use_takes_it_up_again(self, tmp_path: Path) -> None:
        """A stream that broke: nobody could ask about it, until the provider named it."""
        stage = Stage(tmp_path, deadline_seconds=60)
        both = replace(WITH_CALLBACKS, callbacks=Callbacks.SIGNED, modes=frozenset({"queue", "stream"}))
        provider = stage.provider("first", replace(LOST, run_seconds=25), capabilities=both)
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(provider.jobs))
            [job] = provider.jobs
            assert job.callback_url is not None
            await asyncio.sleep(5)
            await stage.deliver(job.callback_url, *provider.callback(job))
            attempt = await first_attempt(stage, id)
            assert (attempt.status, attempt.resolved_by) == (AttemptStatus.RUNNING, "callback")
            prediction = await stage.ended(id)
            assert prediction.winner == 1
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_a_stream_that_broke_is_looked_for_where_its_job_is_listed(self, tmp_path: Path) -> None:
        """Nobody did: what ran on was billed, and nobody stopped it."""
        stage = Stage(tmp_path, deadline_seconds=60)
        provider = stage.provider("first", Script(run_seconds=600), capabilities=LISTED)
        submit = provider.submit

        async def breaks(call: Call, *, on_fact: Any = None, may_send: Any = None) -> Fact:
            await submit(call, may_send=may_send)
            await on_fact(Fact(phase=Phase.RUNNING))
            raise OutcomeUnknown("the stream broke off")

        provider.submit = breaks  # type: ignore[method-assign]
        async with stage:
            id = await stage.post()
            assert (await stage.ended(id)).status is Status.FAILED
            await stage.settled(id)
            [job] = provider.jobs
            assert job.canceled_at is not None, "it runs on"
            assert (await first_attempt(stage, id)).resolved_by == "listing"
            await stage.check(id)


class TestFoundBesideAnother:
    """The list showed it too late: another was begun, and paid for, and the prediction has not ended yet."""

    @virtual
    async def test_it_is_adopted_and_wins_if_it_is_done_first(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        stage.provider("first", replace(LOST, run_seconds=60, listed_seconds=30), capabilities=LISTED)
        slow = stage.provider("second", Script(run_seconds=90))
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(slow.jobs))
            assert (await first_attempt(stage, id)).handle is None, "it was found before another was begun"
            prediction = await stage.ended(id)
            assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 1)
            assert prediction.attempts[0].resolved_by == "listing"
            assert stage.clock.monotonic() < 75, "the other was waited for"
            prediction = await stage.settled(id)
            assert prediction.attempts[1].status is AttemptStatus.CANCELED
            assert slow.jobs[0].canceled_at is not None
            assert await stage.ledger(id) == [(1, "settled", PRICE), (2, "maybe", PRICE)]
            await stage.check(id, may_pay_twice=True)

    @virtual
    async def test_it_is_adopted_and_stopped_if_the_other_is_done_first(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        script = replace(LOST, run_seconds=math.inf, listed_seconds=30)
        provider = stage.provider("first", script, capabilities=LISTED)
        stage.provider("second", Script(run_seconds=50))
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(provider.jobs))
            await asyncio.sleep(60)
            attempt = await first_attempt(stage, id)
            assert (attempt.status, attempt.resolved_by) == (AttemptStatus.RUNNING, "listing")
            assert not (await stage.read(id)).is_terminal
            prediction = await stage.ended(id)
            assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 2)
            prediction = await stage.settled(id)
            assert prediction.attempts[0].status is AttemptStatus.CANCELED
            assert provider.jobs[0].canceled_at is not None
            assert await stage.ledger(id) == [(1, "maybe", PRICE), (2, "settled", PRICE)]
            await stage.check(id, may_pay_twice=True)

    @virtual
    async def test_if_its_time_is_over_it_is_stopped_while_the_other_still_runs(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1", attempt_seconds=25)
        script = replace(LOST, run_seconds=math.inf, listed_seconds=28)
        provider = stage.provider("first", script, capabilities=LISTED)
        second = stage.provider("second", Script(run_seconds=20))
        async with stage:
            id = await stage.post()
            await stage.until(lambda: bool(second.jobs))
            await stage.until(lambda: provider.jobs[0].canceled_at is not None)
            assert not (await stage.read(id)).is_terminal, "it ran on until nobody waited for anything"
            prediction = await stage.ended(id)
            assert (prediction.status, prediction.winner) == (Status.SUCCEEDED, 2)
            prediction = await stage.settled(id)
            first = prediction.attempts[0]
            assert (first.status, first.resolved_by) == (AttemptStatus.CANCELED, "listing")
            assert await stage.ledger(id) == [(1, "settled", 0), (2, "settled", PRICE)]
            await stage.check(id, may_pay_twice=True)


@virtual
async def test_what_may_not_be_sent_any_more_is_not_sent(tmp_path: Path) -> None:
    """Asked in the last moment, when all is ready: no byte leaves, and that is known."""
    stage = Stage(tmp_path)
    provider = stage.provider("first")
    async with stage:
        submit = provider.submit

        async def late(call: Call, *, on_fact: object = None, may_send: Callable[[], bool] | None = None) -> Fact:
            assert may_send is not None
            return await submit(call, on_fact=on_fact, may_send=lambda: False)

        provider.submit = late  # type: ignore[method-assign]
        prediction = await stage.run()
        assert provider.submits == []
        assert prediction.attempts[0].status is AttemptStatus.REJECTED
        assert prediction.failure is not None
        assert prediction.failure.code == "send_withheld"
        assert await stage.ledger(prediction.id) == [(1, "released", 0)]


@virtual
async def test_a_cancel_of_the_caller_stops_what_was_found_late(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    script = replace(LOST, run_seconds=math.inf, listed_seconds=40)
    provider = stage.provider("first", script, capabilities=LISTED_WITH_CALLBACKS)
    async with stage:
        id = await stage.post()
        await stage.until(lambda: bool(provider.jobs))
        await stage.cancel(id)
        assert (await stage.ended(id)).status is Status.CANCELED
        prediction = await stage.settled(id)
        assert provider.jobs[0].phase(stage.clock.monotonic()) is Phase.CANCELED
        assert prediction.attempts[0].status is AttemptStatus.CANCELED
