"""The board: what is counted, what is left out, how it fades, and what a refusal for its rate does."""

from __future__ import annotations

import math
import random

import pytest

from gateway.contract.errors import Blame
from gateway.contract.route import NO_SIGNALS
from gateway.routing.record import MOST_SIZES
from gateway.routing.signals import (
    FRESH_SECONDS,
    MAX_COOL_DOWN_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    Board,
    provider_of,
)
from gateway.testing import ManualClock

OFFER = "acme/up@a"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def board(clock: ManualClock) -> Board:
    return Board(clock)


def end(
    board: Board,
    total_seconds: float | None = 1.0,
    *,
    blame: Blame | None = None,
    offer: str = OFFER,
    size: int = 0,
    **more: float,
) -> None:
    flight = board.attempt_begun(offer, size=size)
    board.attempt_ended(flight, total_seconds=total_seconds, blame=blame, **more)  # type: ignore[arg-type]


def near(seconds: float) -> object:
    """Durations are known within a bin."""
    return pytest.approx(seconds, rel=0.07)


def test_nothing_is_known_of_an_offer_nobody_tried(board: Board) -> None:
    assert board.snapshot("never") == NO_SIGNALS


def test_quantiles_are_of_queue_run_and_total(board: Board) -> None:
    for n in range(1, 101):
        end(board, n * 2.0, queue_seconds=n / 10, run_seconds=float(n))
    signals = board.snapshot(OFFER)
    assert 70 <= signals.samples <= 100
    assert (signals.queue_p50, signals.run_p50, signals.run_p95) == (near(5.0), near(50.0), near(95.0))
    assert (signals.total_p50, signals.total_p95) == (near(100.0), near(190.0))


def test_what_is_not_known_of_an_attempt_is_no_nought(board: Board) -> None:
    end(board, math.inf, run_seconds=3.0, queue_seconds=-1.0)
    signals = board.snapshot(OFFER)
    assert (signals.run_p50, signals.total_p50, signals.queue_p50) == (near(3.0), None, None)
    assert signals.seconds[5] == near(3.0)


def test_a_quick_refusal_does_not_make_an_offer_quick(board: Board) -> None:
    end(board, 10.0)
    for _ in range(20):
        end(board, 0.01, blame=Blame.PROVIDER)
    signals = board.snapshot(OFFER)
    assert signals.total_p50 == near(10.0)
    assert signals.failure_seconds == near(0.01)


def test_newer_samples_weigh_more_and_old_ones_are_not_forgotten(board: Board, clock: ManualClock) -> None:
    for _ in range(20):
        end(board, 10.0)
    clock.advance(240)
    for _ in range(30):
        end(board, 1.0)
    signals = board.snapshot(OFFER)
    assert signals.total_p50 == near(1.0)
    assert signals.seconds[-1] == near(10.0)


def test_after_hours_of_silence_nothing_is_known_of_its_success(board: Board, clock: ManualClock) -> None:
    for _ in range(3):
        end(board, blame=Blame.PROVIDER)
    clock.advance(8 * 3600)
    signals = board.snapshot(OFFER)
    assert (signals.samples, signals.success, signals.total_p50) == (0, None, None)


def test_memory_is_bounded(board: Board) -> None:
    drawn = random.Random(3)
    for _ in range(5_000):
        end(board, drawn.lognormvariate(0, 4), size=drawn.randrange(-400, 400))
    record = board._entries[OFFER].record
    assert len(record._by_size) <= MOST_SIZES
    assert len(record._all.results.recent.bins) < 400
    assert board.snapshot(OFFER).samples <= 400


@pytest.mark.parametrize("blame", [Blame.CALLER, Blame.LOCAL])
def test_what_is_the_callers_fault_or_our_own_says_nothing_of_the_offer(board: Board, blame: Blame) -> None:
    end(board, blame=blame)
    assert board.snapshot(OFFER) == NO_SIGNALS


@pytest.mark.parametrize("blame", [Blame.PROVIDER, Blame.ACCOUNT])
def test_what_is_the_providers_trouble_lowers_its_success(board: Board, blame: Blame, clock: ManualClock) -> None:
    for _ in range(5):
        end(board)
    before = board.snapshot(OFFER).success
    end(board, blame=blame)
    clock.advance(FRESH_SECONDS)
    after = board.snapshot(OFFER).success
    assert before is not None
    assert after is not None
    assert after < before


def test_a_refusal_for_its_rate_is_no_failure(board: Board, clock: ManualClock) -> None:
    end(board)
    end(board, blame=Blame.THROTTLE)
    clock.advance(FRESH_SECONDS)
    success = board.snapshot(OFFER).success
    assert success is not None
    assert success > 0.95


def test_load_is_current_though_the_figures_are_not_reckoned_for_each_request(board: Board) -> None:
    end(board, 1.0)
    assert board.snapshot(OFFER).total_p50 == near(1.0)
    flights = []
    for expected in range(1, 5):
        flights.append(board.attempt_begun(OFFER))
        assert board.snapshot(OFFER).in_flight == expected
    for flight in flights[:2]:
        board.attempt_ended(flight, total_seconds=99.0, blame=None)
    signals = board.snapshot(OFFER)
    assert signals.in_flight == 2
    assert signals.total_p95 == near(1.0)  # the new samples show a moment later


def test_figures_show_new_samples_within_a_quarter_of_a_second(board: Board, clock: ManualClock) -> None:
    end(board, 1.0)
    board.snapshot(OFFER)
    for _ in range(50):
        end(board, 99.0)
    clock.advance(FRESH_SECONDS)
    assert board.snapshot(OFFER).total_p50 == near(99.0)


def test_between_changes_a_snapshot_is_the_same_object(board: Board) -> None:
    end(board)
    assert board.snapshot(OFFER) is board.snapshot(OFFER)


def test_an_end_that_is_told_twice_never_makes_the_load_negative(board: Board) -> None:
    flight = board.attempt_begun(OFFER)
    board.attempt_ended(flight, total_seconds=1.0, blame=None)
    board.attempt_ended(flight, blame=Blame.LOCAL)
    assert board.snapshot(OFFER).in_flight == 0
    assert board.in_flight("a") == 0


def test_plans_made_at_once_see_each_other_until_they_begin_or_fade(board: Board, clock: ManualClock) -> None:
    for _ in range(100):
        board.attempt_planned(OFFER)
    assert board.snapshot(OFFER).in_flight == 100
    for _ in range(60):
        board.attempt_begun(OFFER)
    assert board.snapshot(OFFER).in_flight == 100  # 60 begun, 40 still to come
    clock.advance(5)
    assert board.snapshot(OFFER).in_flight == 60


def test_load_is_summed_by_provider(board: Board) -> None:
    flights = [board.attempt_begun(offer) for offer in ("acme/up@a", "acme/up@a#2", "acme/down@a", "acme/up@b")]
    board.attempt_ended(flights[2], total_seconds=1.0, blame=None)
    assert (board.in_flight("a"), board.in_flight("b"), board.in_flight("c")) == (2, 1, 0)
    assert provider_of("owner/name@pro-vider#12") == "pro-vider"


# -- sizes of work ----------------------------------------------------------------------------------------


def test_like_is_compared_with_like(board: Board) -> None:
    for _ in range(50):
        end(board, 2.0, size=0)
        end(board, 60.0, size=5)
    small, large = board.snapshot(OFFER, size=0), board.snapshot(OFFER, size=5)
    assert small.seconds[5] == near(2.0)
    assert large.seconds[5] == near(60.0)


def test_of_a_size_that_never_came_it_says_what_it_knows_of_the_others(board: Board) -> None:
    for _ in range(50):
        end(board, 2.0, size=0)
    assert board.snapshot(OFFER, size=9).seconds[5] == near(2.0)


def test_little_of_a_size_leans_on_the_others(board: Board) -> None:
    for _ in range(50):
        end(board, 2.0, size=0)
    end(board, 60.0, size=5)
    told = board.snapshot(OFFER, size=5).seconds
    assert told[1] < 3 < 50 < told[-1]


# -- what is under way ------------------------------------------------------------------------------------


def test_attempts_that_should_have_ended_are_seen_before_they_fail(board: Board, clock: ManualClock) -> None:
    for _ in range(60):
        end(board, 4.0)
    clock.advance(1)
    before = board.snapshot(OFFER)
    for _ in range(6):
        board.attempt_begun(OFFER)
    clock.advance(5)
    assert board.snapshot(OFFER).overdue == 0
    clock.advance(5)
    after = board.snapshot(OFFER)
    assert after.overdue == 6
    assert before.success is not None
    assert after.success is not None
    assert before.success > 0.95
    assert after.success < 0.5
    assert after.seconds[-1] > 9


def test_what_was_stopped_on_the_way_is_slower_than_that(board: Board, clock: ManualClock) -> None:
    for _ in range(20):
        end(board, 4.0)
    clock.advance(1)
    before = board.snapshot(OFFER)
    for _ in range(10):
        end(board, 6.0, blame=Blame.LOCAL, is_cut=True)
    clock.advance(FRESH_SECONDS)
    after = board.snapshot(OFFER)
    assert after.success == pytest.approx(before.success, abs=0.01)  # it says nothing of that
    assert before.seconds[8] == near(4.0)
    assert after.seconds[8] > 6.0


def test_a_cold_start_is_foretold_after_idleness_and_not_without(board: Board, clock: ManualClock) -> None:
    end(board, 44.0, queue_seconds=40.0)  # the first ever
    for _ in range(20):
        clock.advance(5)
        end(board, 4.0, queue_seconds=0.0)
    warm = board.snapshot(OFFER).seconds
    clock.advance(700)
    end(board, 44.0, queue_seconds=40.0)
    clock.advance(5)
    again = board.snapshot(OFFER).seconds
    clock.advance(700)
    cold = board.snapshot(OFFER).seconds
    assert (warm[5], again[5], cold[5]) == (near(4.0), near(4.0), near(44.0))


def test_bills_that_are_not_as_expected_are_learned_and_hoped_to_end(board: Board, clock: ManualClock) -> None:
    for _ in range(20):
        end(board, bill=4.0)
    assert board.snapshot(OFFER).bill == pytest.approx(3.5, abs=0.1)
    for _ in range(20):
        end(board, blame=Blame.PROVIDER, bill=0.5)
    clock.advance(FRESH_SECONDS)
    signals = board.snapshot(OFFER)
    assert signals.failure_bill == pytest.approx(0.42, abs=0.03)
    clock.advance(6 * 3600)
    assert board.snapshot(OFFER).bill == pytest.approx(1.0, abs=0.05)


# -- rate limits ------------------------------------------------------------------------------------------


def limited(board: Board) -> float:
    return board.snapshot(OFFER).limited_for_seconds


def test_a_retry_after_is_kept_to_the_moment(board: Board, clock: ManualClock) -> None:
    end(board, blame=Blame.THROTTLE, retry_after_seconds=7.0)
    assert limited(board) == 7.0
    clock.advance(6.5)
    assert limited(board) == pytest.approx(0.5)
    clock.advance(0.5)
    assert limited(board) == 0.0


def test_a_longer_limit_replaces_a_shorter_and_never_the_other_way_round(board: Board, clock: ManualClock) -> None:
    end(board, blame=Blame.THROTTLE, retry_after_seconds=10.0)
    end(board, blame=Blame.THROTTLE, retry_after_seconds=2.0)
    assert limited(board) == 10.0
    end(board, blame=Blame.THROTTLE, retry_after_seconds=20.0)
    assert limited(board) == 20.0


def test_without_a_time_the_cool_down_doubles_from_one_second_to_thirty(board: Board, clock: ManualClock) -> None:
    seen = []
    for _ in range(7):
        end(board, blame=Blame.THROTTLE)
        seen.append(limited(board))
        clock.advance(seen[-1])
    assert seen == [pytest.approx(seconds) for seconds in (1, 2, 4, 8, 16, 30, MAX_COOL_DOWN_SECONDS)]


def test_the_refusals_of_one_rush_count_once(board: Board) -> None:
    for _ in range(50):
        end(board, blame=Blame.THROTTLE)
    assert limited(board) == 1.0


def test_a_success_makes_the_next_cool_down_short_again(board: Board, clock: ManualClock) -> None:
    for _ in range(4):
        end(board, blame=Blame.THROTTLE)
        clock.advance(limited(board))
    end(board)
    end(board, blame=Blame.THROTTLE)
    assert limited(board) == 1.0


@pytest.mark.parametrize(
    ("told", "kept"),
    [(1e9, MAX_RETRY_AFTER_SECONDS), (math.nan, 1.0), (math.inf, 1.0), (-5.0, 1.0), (0.0, 0.0)],
)
def test_a_senseless_retry_after_does_not_lock_the_offer_out(board: Board, told: float, kept: float) -> None:
    end(board, blame=Blame.THROTTLE, retry_after_seconds=told)
    assert limited(board) == kept
