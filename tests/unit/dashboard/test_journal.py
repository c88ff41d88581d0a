"""The journal: what it counts is what happened, it stays small whatever comes, and a restart does not blank it."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta

import pytest
from msgspec.structs import replace

from gateway.contract.attempt import AttemptStatus
from gateway.contract.errors import (
    DeadlineExceeded,
    InputRefused,
    JobTimedOut,
    ModelFailed,
    NoLongerNeeded,
    RateLimited,
)
from gateway.contract.fact import LedgerEntry
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.prediction import Prediction, Status
from gateway.dashboard import journal as module
from gateway.dashboard.journal import Journal
from gateway.dashboard.minute import MOST_OWNERS, MOST_TROUBLES, TROUBLE_MINUTES, Minute
from gateway.dashboard.timeline import MOST_COMMON, MOST_RARE
from gateway.store.protocol import AuditRow
from gateway.testing import ManualClock
from tests.unit.dashboard.making import START, after, attempt, prediction


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def journal(clock: ManualClock) -> Journal:
    return Journal(clock, version="1.2.3")


def lived(journal: Observer, one: Prediction) -> Prediction:
    """Everything that is announced of a prediction, in its order."""
    journal.prediction_created(one)
    for made in one.attempts:
        journal.attempt_begun(replace(one, attempts=one.attempts[: made.number]), made)
        if made.status.is_closed:
            journal.attempt_ended(one, made)
    if one.is_terminal:
        journal.prediction_ended(one)
    return one


def only(journal: Journal) -> Minute:
    [minute] = journal.minutes.since(START)
    return minute


FAILED = attempt(failure=ModelFailed("out of memory"), ended=0.5, nanos=300)
WON = attempt(2, "south", begun=0.6, ended=1.5, nanos=500)


def test_a_rescue_is_counted_where_it_belongs(journal: Journal) -> None:
    lived(journal, prediction(FAILED, WON))
    minute = only(journal)
    assert (minute.created, minute.succeeded, minute.failed, minute.rescued) == (1, 1, 0, 1)
    assert (minute.nanos, minute.wasted) == (800, 300)
    north, south = minute.offers["acme/upscale@north"], minute.offers["acme/upscale@south"]
    assert (north.attempts, north.told, north.good, north.served) == (1, 1, 0, 0)
    assert (south.attempts, south.told, south.good, south.served, south.served_nanos) == (1, 1, 1, 1, 500)
    assert [one.kind for one in journal.timeline.newest(9)] == ["rescued", "failover"]
    assert journal.timeline.newest(9)[1].title == "north → south: model failed"


@pytest.mark.parametrize(
    ("status", "failure", "cancel", "counted", "missed"),
    [
        (Status.FAILED, DeadlineExceeded(), False, "failed", 1),
        (Status.FAILED, ModelFailed(), False, "failed", 0),
        (Status.ABORTED, None, False, "failed", 1),
        (Status.CANCELED, None, False, "canceled", 1),  # at its deadline, while it ran
        (Status.CANCELED, None, True, "canceled", 0),
    ],
)
def test_an_end_is_counted_by_what_it_was(
    journal: Journal, status: Status, failure: ModelFailed | None, cancel: bool, counted: str, missed: int
) -> None:
    ended = prediction(
        status=status,
        failure=failure.failure if failure is not None else None,
        cancel_requested_at=START if cancel else None,
    )
    lived(journal, ended)
    assert getattr(only(journal), counted) == 1
    assert only(journal).models["acme/upscale"].deadline_misses == missed
    assert bool(only(journal).troubles) == (counted == "failed")


def test_a_cost_that_nobody_knows_is_not_nothing(journal: Journal) -> None:
    unpriced = attempt(nanos=None)
    gone = attempt(failure=JobTimedOut(), status=AttemptStatus.ABANDONED, nanos=None)
    stopped = attempt(status=AttemptStatus.CANCELED, running=0.2, nanos=None)
    never_ran = attempt(status=AttemptStatus.CANCELED, nanos=None)
    refused = attempt(failure=RateLimited(), nanos=0)
    for made in (unpriced, gone, stopped, never_ran, refused, WON):
        journal.attempt_ended(prediction(replace(made, number=1)), replace(made, number=1))
    minute = only(journal)
    assert (minute.ran, minute.unknown) == (2, 1)
    assert (minute.maybe, minute.maybe_nanos) == (2, 4_000_000)


def test_what_a_caller_did_wrong_says_nothing_of_an_offer(journal: Journal) -> None:
    for failure in (InputRefused(), NoLongerNeeded()):
        made = attempt(failure=failure)
        journal.attempt_ended(prediction(made), made)
    count = only(journal).offers["acme/upscale@north"]
    assert (count.attempts, count.told, count.good) == (2, 0, 0)
    assert [code for _, _, code in only(journal).troubles] == ["input_refused"]


def test_troubles_tell_for_whom_and_name_the_latest(journal: Journal, clock: ManualClock) -> None:
    last = None
    for minute, owner in ((0, "alice"), (1, "bob"), (1, "alice"), (2, "alice")):
        failure = ModelFailed(f"broken in minute {minute}")
        made = attempt(failure=failure, begun=minute * 60, ended=minute * 60 + 1)
        last = replace(prediction(made, ended=minute * 60 + 2), owner=owner, created_at=after(minute * 60))
        lived(journal, last)
    assert last is not None
    troubles = journal.troubles(after(180), TROUBLE_MINUTES)
    attempts, ends = troubles["acme/upscale", "north", "model_failed"], troubles["acme/upscale", None, "model_failed"]
    assert (attempts.count, attempts.owners) == (4, {"alice": 3, "bob": 1})
    assert (ends.count, ends.example, ends.prediction) == (4, "broken in minute 2", last.id)
    assert (attempts.first_at, attempts.last_at) == (after(1), after(121))
    assert journal.troubles(after(180 + 60 * TROUBLE_MINUTES), TROUBLE_MINUTES) == {}


def test_the_parts_of_a_predictions_time_add_up(journal: Journal, clock: ManualClock) -> None:
    failed = attempt(begun=0.2, ended=1.0, failure=ModelFailed())
    won = attempt(2, "south", begun=1.5, running=2.5, ended=5.5, metrics={"setup_time": 0.7})
    lived(journal, prediction(failed, won, ended=6.0))
    [sample] = journal.samples("acme/upscale", START)
    assert (sample.total, sample.lost, sample.run, sample.collect) == (6.0, 0.8, 3.0, 0.5)
    assert (sample.queue, sample.cold_start) == (pytest.approx(0.3), 0.7)
    assert sample.overhead == pytest.approx(0.2 + 0.5)
    assert sum(part or 0 for part in sample[2:]) == pytest.approx(sample.total)
    assert journal.seconds_of("acme/upscale@south", START) == [4.0]
    assert journal.samples("acme/upscale", after(3700)) == []


@pytest.mark.parametrize("told", [float("nan"), float("inf"), -1, True, "3", None, [1]])
def test_a_providers_nonsense_is_no_time(journal: Journal, told: object) -> None:
    lived(journal, prediction(attempt(running=0.5, ended=1.5, metrics={"predict_time": told, "setup_time": told})))
    [sample] = journal.samples("acme/upscale", START)
    assert (sample.run, sample.cold_start) == (1.0, None)


def test_how_long_accepting_took_is_told_by_who_waited_for_the_store(journal: Journal) -> None:
    journal.prediction_accepted(prediction(), 0.004)
    assert journal.accept_seconds("acme/upscale", START) == [0.004]
    assert journal.accept_seconds("acme/upscale", after(3_700)) == []


def test_an_end_that_is_told_after_the_attempt_was_given_up_takes_its_doubt_away(journal: Journal) -> None:
    lost = attempt(failure=JobTimedOut(), status=AttemptStatus.ABANDONED, nanos=None)
    gone = prediction(lost, WON)
    lived(journal, gone)
    assert (only(journal).maybe, only(journal).maybe_nanos, only(journal).nanos) == (1, 2_000_000, 500)
    told = attempt(nanos=300, ended=9)
    late = LedgerEntry(
        attempt=1, offer=told.offer, provider=told.provider, state="settled", nanos=300, basis="reported",
        given_up_at=lost.ended_at,
    )  # fmt: skip
    after_all = replace(gone, attempts=(told, WON))
    journal.committed(None, after_all, (late,))
    minute = only(journal)
    assert (minute.maybe, minute.maybe_nanos, minute.nanos, minute.wasted) == (0, 0, 800, 300)
    assert minute.offers[told.offer].attempts == 1
    again = Journal(ManualClock(START), version="1.2.3")
    again.refill([after_all])
    [refilled] = again.minutes.since(START)
    assert (refilled.maybe, refilled.nanos, refilled.wasted) == (0, 800, 300), "and so it is after a restart"


def test_only_what_arrived_at_the_end_counts_as_a_delivery(journal: Journal) -> None:
    ended = prediction(WON, ended=2.0)
    tried = DeliveryTry(
        delivery="msg_1", event="completed", number=2, outcome="delivered", status=204, begun_at=after(5), seconds=0.5
    )
    journal.delivery_made(ended, tried)
    journal.delivery_made(ended, replace(tried, outcome="retry"))
    journal.delivery_made(ended, replace(tried, event="output"))
    assert journal.delivery_seconds("acme/upscale", START) == [3.5]


# -- the timeline -----------------------------------------------------------------------------------------------------


def test_what_ops_look_for_stands_in_the_timeline(journal: Journal, clock: ManualClock) -> None:
    journal.breaker_changed("acme/upscale@north#2", "closed", "open", "5 failures in a row; open for 15 s")
    journal.breaker_changed("acme/upscale@north#2", "open", "probing", "its open time is over")
    journal.breaker_changed("acme/upscale@north#2", "probing", "closed", "the probe succeeded")
    journal.policies_read("abc", refused=False)
    journal.policies_read("abc", refused=True)
    journal.local_backend_changed("crashed")
    told = journal.timeline.newest(10)[::-1]
    assert [one.kind for one in told] == ["ejected", "recovered", "reloaded", "refused", "local"]
    assert [one.id for one in told] == [1, 2, 3, 4, 5]
    assert (told[0].provider, told[0].model, told[0].offer) == ("north", "acme/upscale", "acme/upscale@north#2")
    assert told[0].text == "5 failures in a row; open for 15 s"


def test_a_breaker_that_was_forced_is_told_once_with_who_did_it(journal: Journal) -> None:
    row = AuditRow(
        at=START, who="ops", action="breaker.open", target="acme/upscale@north", reason="bad", outcome="begun"
    )
    with journal.forcing():
        journal.breaker_changed("acme/upscale@north", "closed", "open", "opened by ops: bad")
    journal.acted(row)
    [told] = journal.timeline.newest(10)
    assert (told.kind, told.who, told.text, told.provider) == ("forced", "ops", "bad", "north")
    journal.breaker_changed("acme/upscale@north", "closed", "open", "again by itself")
    assert journal.timeline.newest(1)[0].kind == "ejected"


def test_a_storm_of_failovers_does_not_wash_away_what_is_rare(journal: Journal, clock: ManualClock) -> None:
    journal.breaker_changed("acme/upscale@north", "closed", "open", "broken")
    for second in range(3_000):
        at = float(second)
        failed = attempt(begun=at, ended=at + 0.1, failure=ModelFailed())
        for _ in range(8):
            won = attempt(2, "south", begun=at + 0.2, ended=at + 0.3)
            journal.attempt_begun(prediction(failed, won), won)
    told = journal.timeline.newest(100)
    assert len(told) == 100
    assert told[-1].kind == "ejected"
    assert [one.id for one in told] == sorted((one.id for one in told), reverse=True)
    assert len(journal.timeline) <= MOST_RARE + MOST_COMMON
    within_ten_seconds = [one for one in told if one.title == "75 more failovers from north within 10 s"]
    assert within_ten_seconds  # 80, of which five were told one by one


def test_of_equal_failovers_a_few_are_told_and_the_rest_is_counted(journal: Journal) -> None:
    for number in range(80):
        at = number / 10
        failed, won = attempt(begun=at, ended=at, failure=ModelFailed()), attempt(2, "south", begun=at)
        journal.attempt_begun(prediction(failed, won), won)
    assert len(journal.timeline) == 5
    late = attempt(2, "south", begun=11)
    journal.attempt_begun(prediction(attempt(failure=ModelFailed()), late), late)
    told = journal.timeline.newest(10)[::-1]
    untold = "75 more failovers from north within 10 s"
    assert [one.title for one in told[5:]] == [untold, "north → south: model failed"]


def test_one_failure_of_very_many_owners_names_a_few_and_counts_all(journal: Journal) -> None:
    for number in range(500):
        failed = attempt(failure=ModelFailed())
        journal.attempt_ended(prediction(failed, owner=f"owner-{number}"), failed)
    [trouble] = only(journal).troubles.values()
    assert (trouble.count, len(trouble.owners), trouble.owners["others"]) == (500, MOST_OWNERS + 1, 490)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_hostile_variety_stays_within_bounds(journal: Journal) -> None:
    """Many owners, codes, models, offers, minutes and megabytes of messages: a journal of a fixed size."""

    def flood(seed: int) -> None:
        for number in range(1_200):
            name = f"{seed}-{number}"
            failure = replace(ModelFailed("x" * 50_000).failure, code=f"code-{name}")
            second = 3 * number
            made = replace(
                attempt(begun=second, ended=second + 1, failure=ModelFailed()),
                offer=f"acme/{name}@north",
                provider=f"north-{name}",
                failure=failure,
            )
            one = prediction(made, ended=second + 1, model=f"acme/{name}", owner=f"owner-{name}", error="y" * 50_000)
            lived(journal, replace(one, created_at=after(second)))
            lived(journal, prediction(replace(WON, offer=f"acme/{name}@south"), model=f"acme/{name}"))

    tracemalloc.start()
    try:
        for seed in range(3):
            flood(seed)
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size_bytes < 12_000_000  # of 360 MB of messages
    for minute in journal.minutes.since(after(4_000)):
        assert len(minute.troubles) <= MOST_TROUBLES + 1
        assert len(minute.offers) <= 2_001
        assert len(minute.models) <= 501
        assert all(len(count.owners) <= MOST_OWNERS + 1 for count in minute.troubles.values())
        assert all(len(count.example) <= 301 for count in minute.troubles.values())
    assert len(journal.models) <= 500
    assert sum(minute.failed for minute in journal.minutes.since(after(4_000), 70)) == 3_600


def test_an_hour_is_kept_and_what_is_older_is_neither_kept_nor_taken_in(journal: Journal) -> None:
    for minute in range(180):
        journal.prediction_created(replace(prediction(), created_at=after(60 * minute)))
    assert len(journal.minutes) == 60
    now = after(60 * 179)
    assert sum(minute.created for minute in journal.minutes.since(now)) == 60
    journal.prediction_created(replace(prediction(), created_at=START))
    assert len(journal.minutes) == 60
    assert sum(minute.created for minute in journal.minutes.since(now)) == 60


def test_samples_are_the_newest_and_so_many(journal: Journal) -> None:
    for number in range(1_000):
        lived(journal, prediction(attempt(ended=1 + number), ended=2 + number))
    samples = journal.samples("acme/upscale", after(1_000))
    assert len(samples) == module.SAMPLES_OF_A_MODEL
    assert samples[-1].total == 1_001


# -- the start --------------------------------------------------------------------------------------------------------


def test_a_refilled_journal_counts_as_the_one_that_was_there_before(journal: Journal, clock: ManualClock) -> None:
    lives = [
        replace(prediction(FAILED, WON), id=f"{n:026}", created_at=START - timedelta(seconds=n)) for n in range(20)
    ]
    lives += [prediction(attempt(ended=None), ended=None), prediction(FAILED)]
    for one in lives:
        lived(journal, one)
    again = Journal(clock, version="1.2.3")
    again.refill(reversed(lives))

    def counts(of: Journal) -> list[tuple[object, ...]]:
        return [
            (m.created, m.succeeded, m.failed, m.rescued, m.nanos, m.wasted, m.ran, len(m.troubles), len(m.offers))
            for m in of.minutes.since(START)
        ]

    assert counts(again) == counts(journal)
    assert sorted(again.samples("acme/upscale", START)) == sorted(journal.samples("acme/upscale", START))
    kinds = {one.kind for one in again.timeline.newest(100)}
    assert kinds == {"failover", "rescued", "started"}


def test_the_timeline_after_a_restart_is_in_order_and_says_who_did_what(journal: Journal) -> None:
    act = AuditRow(at=after(1), who="ops", action="breaker.open", target="m@north", reason="bad", outcome="done")
    refused = replace(act, outcome="there is no such offer")
    journal.refill([prediction(FAILED, WON)], [act, refused])
    told = journal.timeline.newest(10)[::-1]
    assert [one.kind for one in told] == ["failover", "forced", "rescued", "started"]
    assert [one.at for one in told[:3]] == [after(0.6), after(1), after(2)]
    assert told[1].who == "ops"


def test_whoever_watches_hears_of_each_transition_and_nobody_else_pays(journal: Journal) -> None:
    heard: list[str] = []
    one = prediction(FAILED, WON)
    lived(journal, one)
    journal.watch = lambda changed: heard.append(changed.id)
    lived(journal, one)
    assert heard == [one.id] * 6
    before = replace(one, status=Status.STARTING)
    journal.committed(before, replace(before, output="more"), ())
    assert len(heard) == 6
    journal.committed(before, replace(before, status=Status.PROCESSING), ())
    assert len(heard) == 7
