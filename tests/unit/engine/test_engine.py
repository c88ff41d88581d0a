"""The engine over a real store, with providers that misbehave: what is run, what is paid, and how it ends."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import msgspec
import pytest

from gateway.contract.attempt import AttemptStatus
from gateway.contract.clock import SeededIds
from gateway.contract.errors import (
    AtCapacity,
    Blame,
    CallbackForged,
    InputRefused,
    JobLost,
    NotFound,
    NotSent,
    OutcomeUnknown,
    OutputModerated,
    PollFailed,
    RateLimited,
    StoreOverloaded,
)
from gateway.contract.fact import Fact, Learned, Phase, Planned, Source
from gateway.contract.prediction import Prediction, Status
from gateway.contract.provider import Call, Callbacks, Cancel, Cancellation, Capabilities
from gateway.engine.attempt import callback_token
from gateway.testing import Script
from tests.unit.engine.stage import (
    HELD,
    HELD_BREAKABLE,
    IDEMPOTENT,
    MODEL,
    PRICE,
    WITH_CALLBACKS,
    Stage,
    virtual,
)

LOST_ANSWER = Script(raises=OutcomeUnknown("the line broke"))
NEVER_CAME = Script(starts=False, raises=OutcomeUnknown("the line broke"))
DOWN = Script(starts=False, raises=NotSent("connection refused"))
BROKEN = Script(end=Phase.FAILED)
HANGS = Script(run_seconds=math.inf)


def statuses(prediction: Prediction) -> list[str]:
    return [f"{attempt.provider} {attempt.status}" for attempt in prediction.attempts]


class TestFailover:
    @pytest.mark.parametrize(
        "failing", [DOWN, BROKEN, Script(starts=False, raises=RateLimited()), Script(starts=False, raises=AtCapacity())]
    )
    @virtual
    async def test_a_failure_moves_on_to_the_next(self, failing: Script, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", failing)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert prediction.status is Status.SUCCEEDED
            assert prediction.winner == 2
            assert stage.observer.failovers == 1
            await stage.check(prediction.id)

    @virtual
    async def test_each_candidate_is_tried_once_and_the_error_names_them(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        for name in ("a", "b", "c"):
            stage.provider(name, BROKEN)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["a failed", "b failed", "c failed"]
            assert prediction.status is Status.FAILED
            assert prediction.failure is not None
            assert prediction.failure.code == "no_candidate"
            assert all(f"{name}: " in (prediction.error or "") for name in "abc")
            await stage.check(prediction.id)

    @virtual
    async def test_no_more_attempts_than_the_policy_allows(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, attempts=2)
        for name in ("a", "b", "c"):
            stage.provider(name, DOWN)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["a rejected", "b rejected"]
            await stage.check(prediction.id)

    @virtual
    async def test_the_last_attempt_belongs_to_the_fallback(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, attempts=2)
        stage.provider("a", DOWN)
        stage.provider("b")
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["a rejected", "local succeeded"]
            assert prediction.attempts[1].is_fallback

    @pytest.mark.parametrize(
        "final",
        [
            Script(starts=False, raises=InputRefused("a picture of 40000 px is too large")),
            Script(end=Phase.FAILED, failure=OutputModerated("withheld").failure),
        ],
    )
    @virtual
    async def test_a_final_failure_is_not_failed_over(self, final: Script, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", final)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert prediction.status is Status.FAILED
            assert len(prediction.attempts) == 1
            assert prediction.failure == prediction.attempts[0].failure
            assert stage.providers["second"].submits == []
            await stage.check(prediction.id)

    @virtual
    async def test_a_job_the_provider_forgot_is_failed_over(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(poll_raises=JobLost("404")))
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first failed", "second succeeded"]
            await stage.check(prediction.id)

    @virtual
    async def test_lost_files_are_made_again_elsewhere(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        picture = Script(output="https://provider.example/out.png")
        stage.provider("first", picture)
        stage.provider("second", picture)
        async with stage:
            stage.collector.lost = {"first"}
            prediction = await stage.run(file_output=True)
            assert prediction.status is Status.SUCCEEDED
            assert prediction.output == f"https://turnout.test/artifacts/{prediction.id}/2"
            assert prediction.attempts[0].failure is not None
            assert prediction.attempts[0].failure.code == "result_lost"
            assert stage.observer.ended == ["first failed", "second succeeded"]
            # Both ran and both are paid: the ledger must not forget the first.
            assert [(state, nanos) for _, state, nanos in await stage.ledger(prediction.id)] == [("settled", PRICE)] * 2

    @virtual
    async def test_while_nothing_may_be_tried_it_waits_and_does_not_spin(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("only")
        async with stage:
            for _ in range(5):
                ticket = stage.breakers.admit(f"{MODEL}@only")
                assert ticket is not None
                ticket.failure(Blame.PROVIDER)
            begun = stage.clock.monotonic()
            prediction = await stage.run()
            assert prediction.status is Status.SUCCEEDED
            assert 10 < stage.clock.monotonic() - begun < 40
            plans = [happening for _, happening, _ in stage.store.applied if isinstance(happening, Planned)]
            assert len(plans) <= 3


class TestUnknownOutcomes:
    @virtual
    async def test_an_idempotent_submit_is_sent_again_and_starts_nothing_twice(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        answers = iter([LOST_ANSWER, Script()])
        first = stage.provider("first", lambda call: next(answers), capabilities=IDEMPOTENT)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first succeeded"]
            assert len(first.jobs) == 1
            assert len({call.idempotency_id for call in first.submits}) == 1
            assert len(first.submits) == 2
            await stage.check(prediction.id)

    @virtual
    async def test_a_resend_that_does_not_get_through_proves_nothing(self, tmp_path: Path) -> None:
        # The first one may be running all the same: the dear one must not be started beside it.
        stage = Stage(tmp_path)
        answers = iter([LOST_ANSWER])
        stage.provider("first", lambda call: next(answers, DOWN), capabilities=IDEMPOTENT)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert stage.providers["second"].submits == []
            assert prediction.status is Status.FAILED
            assert prediction.attempts[0].status is AttemptStatus.ABANDONED
            assert [state for _, state, _ in await stage.ledger(prediction.id)] == ["maybe"]
            await stage.check(prediction.id)

    @virtual
    async def test_it_is_held_for_the_callback(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        stage.provider("first", Script(raises=OutcomeUnknown("cut"), run_seconds=10), capabilities=WITH_CALLBACKS)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first succeeded"]
            assert stage.providers["second"].submits == []
            assert 10 <= stage.clock.monotonic() < 15
            await stage.check(prediction.id)

    @virtual
    async def test_above_the_limit_nothing_is_started_beside_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="0.0009")
        stage.provider("first", NEVER_CAME)
        stage.provider("second", price=PRICE)
        stage.provider("third", price=None)
        async with stage:
            prediction = await stage.run()
            assert prediction.status is Status.FAILED
            assert len(prediction.attempts) == 1
            assert stage.clock.monotonic() >= 120  # it hopes until the deadline
            await stage.check(prediction.id)

    @virtual
    async def test_up_to_the_limit_another_is_started(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="0.001")
        stage.provider("first", LOST_ANSWER)
        stage.provider("second", price=PRICE)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first abandoned", "second succeeded"]
            assert [state for _, state, _ in await stage.ledger(prediction.id)] == ["maybe", "settled"]
            await stage.check(prediction.id, may_pay_twice=True)

    @virtual
    async def test_the_fallback_costs_nothing_and_is_always_started(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", NEVER_CAME)
        stage.provider("dear")
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first abandoned", "local succeeded"]
            assert stage.providers["dear"].submits == []
            await stage.check(prediction.id)

    @virtual
    async def test_an_unknown_attempt_that_runs_out_of_time_stays_one_that_may_be_billed(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, attempt_seconds=30)
        stage.provider("first", LOST_ANSWER)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert stage.providers["second"].submits == []
            assert [state for _, state, _ in await stage.ledger(prediction.id)] == ["maybe"]
            await stage.check(prediction.id)

    @virtual
    async def test_whichever_succeeds_first_is_taken_and_the_other_stopped(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, pay_twice_up_to="1")
        lost = Script(raises=OutcomeUnknown("cut"), run_seconds=30)
        stage.provider("first", lost, capabilities=WITH_CALLBACKS)
        second = stage.provider("second", Script(run_seconds=100))
        async with stage:
            prediction = await stage.run()
            assert prediction.winner == 1
            assert prediction.status is Status.SUCCEEDED
            assert second.jobs[0].canceled_at is not None
            assert statuses(prediction)[1] == "second canceled"
            await stage.check(prediction.id, may_pay_twice=True)


class TestSilence:
    @virtual
    async def test_a_job_outlasts_a_provider_that_cannot_be_asked_for_minutes(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=600)
        stage.provider("first", Script(run_seconds=60, polls_failing=40))
        stage.provider("dear")
        async with stage:
            prediction = await stage.run()
            assert stage.clock.monotonic() > 120
            assert statuses(prediction) == ["first succeeded"]
            await stage.check(prediction.id)

    @virtual
    async def test_what_costs_nothing_is_started_beside_it_after_a_minute(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=600)
        stage.provider("first", Script(run_seconds=600, polls_failing=10_000))
        stage.provider("dear")
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id)
            assert prediction.attempts[1].provider == "local"
            assert prediction.status is Status.SUCCEEDED
            assert 60 <= stage.clock.monotonic() < 80
            await stage.settled(id)
            assert stage.providers["dear"].submits == []
            await stage.check(id)


class TestTime:
    @virtual
    async def test_a_job_that_hangs_ends_with_the_deadline_and_is_stopped(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=60)
        first = stage.provider("first", HANGS)
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id)
            assert stage.clock.monotonic() == pytest.approx(60, abs=1)
            assert prediction.failure is not None
            assert prediction.failure.code == "deadline_exceeded"
            await stage.settled(id)
            assert first.jobs[0].canceled_at is not None
            await stage.check(id)

    @virtual
    async def test_an_attempt_has_its_own_time_and_the_rest_is_for_another(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, attempt_seconds=20)
        first = stage.provider("first", HANGS)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert prediction.winner == 2
            assert 20 <= stage.clock.monotonic() < 25
            assert first.jobs[0].canceled_at is not None
            await stage.check(prediction.id)

    @virtual
    async def test_an_attempt_is_looked_at_before_its_time_is_called_over(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, attempt_seconds=3)  # before the first poll of one that should have called back
        first = stage.provider("first", Script(run_seconds=2, callbacks=0), capabilities=WITH_CALLBACKS)
        second = stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first succeeded"]
            assert first.jobs[0].cancels == 0
            assert not second.jobs
            await stage.check(prediction.id)

    @virtual
    async def test_no_attempt_is_given_more_than_is_left(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=60, attempt_seconds=50)
        stage.provider("first", HANGS)
        second = stage.provider("second", HANGS)
        async with stage:
            prediction = await stage.run()
            assert prediction.attempts[1].deadline_at == prediction.deadline_at
            assert second.submits[0].deadline_seconds == pytest.approx(10, abs=1)
            await stage.check(prediction.id)

    @virtual
    async def test_a_caller_may_shorten_the_deadline(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", HANGS)
        async with stage:
            id = await stage.post(cancel_after=10)
            prediction = await stage.ended(id)
            assert stage.clock.monotonic() == pytest.approx(10, abs=1)
            assert prediction.status is Status.CANCELED
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_a_driver_that_never_answers_does_not_outlive_the_deadline(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=30)
        stage.provider("first", Script(answer_seconds=100_000))
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id, within=100)
            assert prediction.status is Status.FAILED
            await stage.settled(id)
            await stage.check(id)


class TestCancel:
    @pytest.mark.parametrize("answer", [Cancellation.STOPPED, Cancellation.REQUESTED])
    @virtual
    async def test_a_running_job_is_stopped(self, answer: Cancellation, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=50, cancel=answer))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            prediction = await stage.ended(id)
            assert prediction.status is Status.CANCELED
            assert stage.clock.monotonic() < 15
            await stage.settled(id)
            assert first.jobs[0].cancels == 1
            assert [state for _, state, _ in await stage.ledger(id)] in (["maybe"], ["settled"])
            await stage.check(id)

    @virtual
    async def test_what_was_stopped_in_the_queue_costs_nothing(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(queue_seconds=50))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            await stage.ended(id)
            await stage.settled(id)
            assert [(state, nanos) for _, state, nanos in await stage.ledger(id)] == [("released", 0)]
            await stage.check(id)

    @virtual
    async def test_a_job_that_had_ended_before_keeps_its_success(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        # Its end has not been heard: the poll is due later than the cancel.
        stage.provider("first", Script(run_seconds=4, callbacks=0), capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(4.05)
            assert stage.engine is not None
            assert (await stage.read(id)).status is not Status.SUCCEEDED
            await stage.cancel(id)
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_where_nothing_can_be_stopped_the_grace_ends_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=100, cancel=Cancellation.UNSUPPORTED))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            prediction = await stage.ended(id)
            assert prediction.status is Status.CANCELED
            assert 30 <= stage.clock.monotonic() <= 45
            assert first.jobs[0].cancels <= 5
            await stage.settled(id)
            assert [state for _, state, _ in await stage.ledger(id)] == ["maybe"]
            await stage.check(id)

    @virtual
    async def test_a_cancel_that_does_not_get_through_is_tried_again_with_pauses(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=200, cancel=PollFailed("503")))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            await asyncio.sleep(0.4)
            assert first.jobs[0].cancels == 1
            await asyncio.sleep(8)
            assert 3 <= first.jobs[0].cancels <= 5
            await stage.ended(id)
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_a_held_call_is_broken_off_where_that_stops_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=60, holds=True), capabilities=HELD_BREAKABLE)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            prediction = await stage.ended(id)
            assert prediction.status is Status.CANCELED
            assert stage.clock.monotonic() < 7
            assert first.jobs[0].canceled_at is not None
            await stage.settled(id)
            # It may have run all the while: only what was accepted and never begun is known to cost nothing.
            assert [state for _, state, _ in await stage.ledger(id)] == ["maybe"]

    @virtual
    async def test_a_held_call_that_cannot_be_stopped_ends_for_the_caller_after_the_grace(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(run_seconds=100, holds=True), capabilities=HELD)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(5)
            await stage.cancel(id)
            prediction = await stage.ended(id)
            assert prediction.status is Status.CANCELED
            assert stage.clock.monotonic() <= 45
            await stage.settled(id)
            assert [state for _, state, _ in await stage.ledger(id)] == ["maybe"]

    @virtual
    async def test_nobody_cancels_what_is_not_theirs(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first")
        async with stage:
            id = await stage.post()
            assert stage.engine is not None
            assert await stage.engine.cancel(id, owner="somebody") is None
            assert (await stage.ended(id)).status is Status.SUCCEEDED


class TestCallbacks:
    @virtual
    async def test_one_that_comes_before_the_submit_returned_ends_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        quick = Script(run_seconds=0.5, answer_seconds=3)
        first = stage.provider("first", quick, capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id)
            assert stage.clock.monotonic() < 1
            assert prediction.attempts[0].handle == {"id": first.jobs[0].id}
            await stage.settled(id)
            await asyncio.sleep(5)
            await stage.check(id)

    @virtual
    async def test_a_late_failure_of_the_submit_says_nothing_against_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        script = Script(run_seconds=0.5, answer_seconds=0.8, raises=OutcomeUnknown("cut"))
        stage.provider("first", script, capabilities=WITH_CALLBACKS)
        stage.provider("second")
        async with stage:
            prediction = await stage.run()
            assert statuses(prediction) == ["first succeeded"]
            await stage.check(prediction.id)

    @virtual
    async def test_duplicates_change_nothing(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(callbacks=5), capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await stage.ended(id)
            before = await stage.settled(id)
            await asyncio.sleep(10)
            assert stage.observer.callbacks == {"applied": 1, "duplicate": 4}
            assert await stage.read(id) == before
            await stage.check(id)

    @virtual
    async def test_a_forged_one_writes_nothing(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=20), capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            before = await stage.read(id)
            token = callback_token(b"s" * 32, id, 1)
            headers, body = first.callback(first.jobs[0])
            assert stage.engine is not None
            with pytest.raises(CallbackForged):
                await stage.engine.callback(token, headers | {"signature": "signed by somebody else"}, body)
            with pytest.raises(NotFound):
                await stage.engine.callback("x" * 43, headers, body)
            assert await stage.read(id) == before
            assert stage.observer.callbacks == {"forged": 1, "unknown": 1}

    @virtual
    async def test_one_that_names_another_job_is_only_a_reason_to_look(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=2, callbacks=0), capabilities=WITH_CALLBACKS)
        async with stage:
            a, b = await stage.post(), await stage.post()
            await asyncio.sleep(2.1)
            headers, body = first.callback(first.jobs[0])
            assert stage.engine is not None
            assert await stage.engine.callback(callback_token(b"s" * 32, b, 1), headers, body) == "nudge"
            assert (await stage.ended(b, within=0.5)).status is Status.SUCCEEDED
            assert not (await stage.read(a)).is_terminal

    @virtual
    @pytest.mark.parametrize("end", [Phase.RUNNING, Phase.FAILED])
    async def test_of_two_names_the_one_our_own_request_was_answered_is_believed(
        self, tmp_path: Path, end: Phase
    ) -> None:
        stage = Stage(tmp_path)
        late = Script(run_seconds=20, answer_seconds=0.5, callbacks=0)
        first = stage.provider("first", late, capabilities=WITH_CALLBACKS)
        stage.provider("second")
        async with stage:
            await stage.post()
            await asyncio.sleep(1)
            id = await stage.post()
            await asyncio.sleep(0.1)  # its job runs, and the answer to its submit is on the way
            strange = msgspec.json.encode(Fact(phase=end, handle={"id": first.jobs[0].id}))
            headers, _ = first.callback(first.jobs[0])
            assert stage.engine is not None
            assert await stage.engine.callback(callback_token(b"s" * 32, id, 1), headers, strange) == "applied"
            assert (await stage.read(id)).attempts[0].handle == {"id": first.jobs[0].id}
            await asyncio.sleep(1)
            assert (await stage.read(id)).attempts[0].handle == {"id": first.jobs[1].id}
            prediction = await stage.ended(id)
            assert statuses(prediction) == (
                ["first succeeded"] if end is Phase.RUNNING else ["first failed", "second succeeded"]
            )
            await stage.settled(id)
            await asyncio.sleep(5)
            # What ended by a word that was not meant for it runs for nobody: it is stopped, and asked to but once.
            assert (first.jobs[1].canceled_at is not None) == (end is Phase.FAILED)
            assert first.jobs[1].cancels == (end is Phase.FAILED)
            assert (await stage.read(id)).attempts[0].look_at is None

    @virtual
    async def test_an_unsigned_one_is_only_a_nudge_and_the_poll_ends_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        unsigned = Capabilities(modes=frozenset({"queue"}), callbacks=Callbacks.UNSIGNED, cancel=Cancel.ANY_TIME)
        stage.provider("first", Script(run_seconds=2), capabilities=unsigned)
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert stage.clock.monotonic() < 3
            assert stage.observer.callbacks == {"nudge": 1}
            sources = [h.source for _, h, _ in stage.store.applied if isinstance(h, Learned) and h.fact.phase.is_end]
            assert sources == [Source.POLL]

    @virtual
    async def test_lost_ones_are_made_up_for_by_polls(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider(
            "first", Script(run_seconds=12, callbacks=0, polls_failing=1), capabilities=WITH_CALLBACKS
        )
        async with stage:
            prediction = await stage.run()
            assert prediction.status is Status.SUCCEEDED
            assert stage.clock.monotonic() < 40
            assert first.jobs[0].polls <= 12
            await stage.check(prediction.id)

    @virtual
    async def test_one_that_comes_after_the_end_settles_the_money(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path, deadline_seconds=10)
        lost = Script(raises=OutcomeUnknown("cut"), run_seconds=60)
        stage.provider("first", lost, capabilities=WITH_CALLBACKS)
        async with stage:
            prediction = await stage.run()
            assert prediction.status is Status.FAILED
            assert [state for _, state, _ in await stage.ledger(prediction.id)] == ["maybe"]
            await asyncio.sleep(60)
            assert [(state, nanos) for _, state, nanos in await stage.ledger(prediction.id)] == [("settled", PRICE)]
            await stage.check(prediction.id)


class TestTheStoreIsOut:
    @pytest.mark.parametrize("after_seconds", [0.05, 0.6, 1.2, 3.0])
    @virtual
    async def test_it_goes_on_where_it_was(self, after_seconds: float, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(answer_seconds=1, run_seconds=3))
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await asyncio.sleep(after_seconds)
            stage.store.is_out = True
            await asyncio.sleep(20)
            stage.store.is_out = False
            prediction = await stage.ended(id)
            assert statuses(prediction) == ["first succeeded"]
            assert len(first.jobs) == 1
            await stage.settled(id)
            await stage.check(id)
            assert stage.board.in_flight("first") == 0

    @virtual
    async def test_what_a_submit_answered_while_it_was_out_is_not_forgotten(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=30))
        async with stage:
            stage.store.fails = lambda verb, happening: isinstance(happening, Learned)
            id = await stage.post()
            await asyncio.sleep(10)
            stage.store.fails = lambda verb, happening: False
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert len(first.submits) == 1
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_nothing_is_accepted_that_cannot_be_kept(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first")
        async with stage:
            stage.store.is_out = True
            with pytest.raises(Exception, match="disk"):
                await stage.post()
            stage.store.is_out = False
            await asyncio.sleep(10)
            assert first.submits == []


class TestDrain:
    @virtual
    async def test_a_submit_in_flight_is_awaited_and_its_job_is_found_again(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(answer_seconds=5, run_seconds=30))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            await stage.close()
            assert stage.clock.monotonic() == pytest.approx(5, abs=0.5)
            assert first.jobs[0].cancels == 0

            await stage.open()
            kept = await stage.read(id)
            assert kept.attempts[0].handle == {"id": first.jobs[0].id}
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert len(first.submits) == 1
            assert first.jobs[0].polls >= 1
            assert first.jobs[0].cancels == 0
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_a_running_job_is_left_alone_and_the_lease_is_let_go(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=30))
        async with stage:
            id = await stage.post()
            await asyncio.sleep(2)
            begun = stage.clock.monotonic()
            engine, store = stage.engine, stage.store
            assert engine is not None
            await engine.drain(seconds=20)
            assert stage.clock.monotonic() - begun < 0.5
            assert [held.prediction.id for held in await store.claim_due("another", limit=10)] == [id]
            await store.release("another")
            assert first.jobs[0].cancels == 0
            with pytest.raises(StoreOverloaded):
                await stage.post()

    @virtual
    async def test_waiting_callers_are_let_go_with_what_there_is(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(run_seconds=30))
        async with stage:
            id = await stage.post()
            assert stage.engine is not None
            waiting = asyncio.create_task(stage.engine.wait(id, seconds=60))
            await asyncio.sleep(1)
            stage.engine.begin_drain()
            await asyncio.sleep(0.01)
            assert waiting.done()
            assert not waiting.result().is_terminal


class TestACrash:
    @virtual
    async def test_a_known_job_is_polled_and_not_started_again(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(run_seconds=20))
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await asyncio.sleep(3)
            await stage.kill()
            await asyncio.sleep(2)
            await stage.open()
            prediction = await stage.ended(id)
            assert statuses(prediction) == ["first succeeded"]
            assert len(first.submits) == 1
            await stage.settled(id)
            await stage.check(id)

    @pytest.mark.parametrize("arrived", [True, False])
    @virtual
    async def test_between_intent_and_answer_it_is_unknown_and_never_sent_again(
        self, arrived: bool, tmp_path: Path
    ) -> None:
        stage = Stage(tmp_path)
        script = Script(arrive_seconds=0 if arrived else 10, answer_seconds=10, run_seconds=20)
        first = stage.provider("first", script)
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            await stage.kill()
            await stage.open()
            prediction = await stage.ended(id)
            assert len(first.submits) == 1
            assert stage.providers["second"].submits == []
            assert prediction.status is Status.FAILED
            assert prediction.attempts[0].unknown_at is not None
            await stage.settled(id)
            assert [state for _, state, _ in await stage.ledger(id)] == ["maybe"]
            await stage.check(id)

    @virtual
    async def test_its_callback_still_finds_it(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(answer_seconds=10, run_seconds=15), capabilities=WITH_CALLBACKS)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            await stage.kill()
            await stage.open()
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert len(first.submits) == 1
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_an_idempotent_submit_is_sent_again(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(answer_seconds=10, run_seconds=15), capabilities=IDEMPOTENT)
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            await stage.kill()
            await stage.open()
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
            assert len(first.submits) == 2
            assert len(first.jobs) == 1
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_an_idempotent_resend_that_is_refused_does_not_prove_that_nothing_runs(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        answers = iter([Script(answer_seconds=10, run_seconds=1000)])
        first = stage.provider("first", lambda call: next(answers, DOWN), capabilities=IDEMPOTENT)
        stage.provider("second")
        async with stage:
            id = await stage.post()
            await asyncio.sleep(1)
            await stage.kill()
            await stage.open()
            await stage.ended(id)
            await stage.settled(id)
            assert len(first.jobs) == 1
            assert stage.providers["second"].submits == []
            assert [state for _, state, _ in await stage.ledger(id)] == ["maybe"]
            await stage.check(id)

    @virtual
    async def test_files_that_were_being_copied_are_copied_again(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(output="https://provider.example/out.png"))
        async with stage:
            stage.collector.raises = asyncio.CancelledError()
            id = await stage.post(file_output=True)
            await stage.until(lambda: stage.collector.tries > 0)
            await stage.kill()
            stage.collector.raises = None
            await stage.open()
            prediction = await stage.ended(id)
            assert prediction.output == f"https://turnout.test/artifacts/{id}/1"
            await stage.settled(id)
            await stage.check(id)


class TestBugs:
    @virtual
    async def test_a_driver_that_raises_nonsense_in_a_submit_costs_one_attempt(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(starts=False, raises=RuntimeError("a bug in the adapter")))
        stage.provider("local", price=0, is_fallback=True)
        async with stage:
            prediction = await stage.run()
            # It may have been sent: nothing dear is started beside it, and it is not sent again.
            assert statuses(prediction) == ["first abandoned", "local succeeded"]
            assert len(first.submits) == 1
            await stage.check(prediction.id)

    @virtual
    async def test_an_input_that_cannot_be_made_ready_was_not_sent(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first")
        async with stage:
            stage.intake.raises = RuntimeError("a bug in the intake")
            prediction = await stage.run()
            assert prediction.status is Status.FAILED
            assert first.submits == []
            assert [(state, nanos) for _, state, nanos in await stage.ledger(prediction.id)] == [("released", 0)]
            await stage.check(prediction.id)

    @virtual
    async def test_a_driver_that_raises_nonsense_in_polls_ends_the_prediction(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        first = stage.provider("first", Script(poll_raises=RuntimeError("a bug in the adapter")))
        async with stage:
            id = await stage.post()
            prediction = await stage.ended(id, within=30)
            assert prediction.status is Status.FAILED
            assert prediction.failure is not None
            assert prediction.failure.code == "engine_failed"
            assert len(first.submits) == 1
            await stage.settled(id)
            await stage.check(id)
            assert stage.board.in_flight("first") == 0

    @virtual
    async def test_a_collector_that_raises_nonsense_ends_the_prediction(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first", Script(output="https://provider.example/out.png"))
        async with stage:
            stage.collector.raises = RuntimeError("a bug in the collector")
            id = await stage.post(file_output=True)
            prediction = await stage.ended(id, within=60)
            assert prediction.status is Status.FAILED
            assert stage.collector.tries == 3
            await stage.settled(id)
            await stage.check(id)

    @virtual
    async def test_one_bad_prediction_does_not_hurt_the_others(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)

        def script(call: Call) -> Script:
            return Script(starts=False, raises=RuntimeError("a bug")) if call.input.get("bad") else Script()

        stage.provider("first", script)
        async with stage:
            bad = await stage.post(bad=True)
            good = [await stage.post() for _ in range(10)]
            for id in good:
                assert (await stage.ended(id, within=10)).status is Status.SUCCEEDED
            assert (await stage.ended(bad)).status is Status.FAILED


class TestAcceptance:
    @virtual
    async def test_a_create_that_nobody_waits_for_any_more_is_driven_all_the_same(self, tmp_path: Path) -> None:
        stage = Stage(tmp_path)
        stage.provider("first")
        async with stage:
            posting = asyncio.create_task(stage.post())
            await asyncio.sleep(0)  # now it is in the writer's hands
            posting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await posting
            id = SeededIds(stage.seed).prediction()

            async def is_committed() -> bool:
                return await stage.store.get(id) is not None

            await stage.until(is_committed)
            prediction = await stage.ended(id)
            assert prediction.status is Status.SUCCEEDED
