"""The board: what is counted, what is left out, how it fades, and what a refusal for its rate does."""

from __future__ import annotations

import math

import pytest

from gateway.contract.errors import Blame
from gateway.contract.route import NO_SIGNALS
from gateway.routing.signals import (
    MAX_COOL_DOWN_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    MAX_SAMPLES,
    WINDOW_SECONDS,
    Board,
    provider_of,
    quantile,
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
    retry_after_seconds: float | None = None,
    offer: str = OFFER,
) -> None:
    board.attempt_begun(offer)
    board.attempt_ended(offer, total_seconds=total_seconds, blame=blame, retry_after_seconds=retry_after_seconds)


def test_nothing_is_known_of_an_offer_nobody_tried(board: Board) -> None:
    assert board.snapshot("never") == NO_SIGNALS


def test_quantiles_are_of_queue_run_and_total(board: Board) -> None:
    for n in range(1, 101):
        board.attempt_begun(OFFER)
        board.attempt_ended(OFFER, queue_seconds=n / 10, run_seconds=float(n), total_seconds=n * 2.0, blame=None)
    signals = board.snapshot(OFFER)
    assert signals.samples == 100
    assert (signals.queue_p50, signals.run_p50, signals.run_p95) == (5.0, 50.0, 95.0)
    assert (signals.total_p50, signals.total_p95) == (100.0, 190.0)


def test_what_is_not_known_of_an_attempt_is_no_nought(board: Board) -> None:
    board.attempt_begun(OFFER)
    board.attempt_ended(OFFER, run_seconds=3.0, total_seconds=math.inf, queue_seconds=-1.0, blame=None)
    signals = board.snapshot(OFFER)
    assert (signals.run_p50, signals.total_p50, signals.queue_p50) == (3.0, None, None)


def test_a_quick_refusal_does_not_make_an_offer_quick(board: Board, clock: ManualClock) -> None:
    end(board, 10.0)
    for _ in range(20):
        end(board, 0.01, blame=Blame.PROVIDER)
    assert board.snapshot(OFFER).total_p50 == 10.0
    assert board.snapshot(OFFER).samples == 21


def test_newer_samples_weigh_more(board: Board, clock: ManualClock) -> None:
    for _ in range(20):
        end(board, 10.0)
    clock.advance(240)  # two half-lives
    for _ in range(6):
        end(board, 1.0)
    assert board.snapshot(OFFER).total_p50 == 1.0


def test_old_samples_are_forgotten_and_then_nothing_is_known(board: Board, clock: ManualClock) -> None:
    for _ in range(3):
        end(board, blame=Blame.PROVIDER)
    clock.advance(WINDOW_SECONDS + 1)
    signals = board.snapshot(OFFER)
    assert (signals.samples, signals.success, signals.total_p50) == (0, None, None)


def test_memory_is_bounded(board: Board) -> None:
    for _ in range(5 * MAX_SAMPLES):
        end(board)
    assert board.snapshot(OFFER).samples == MAX_SAMPLES


@pytest.mark.parametrize("blame", [Blame.CALLER, Blame.LOCAL])
def test_what_is_the_callers_fault_or_our_own_says_nothing_of_the_offer(board: Board, blame: Blame) -> None:
    end(board, blame=blame)
    assert board.snapshot(OFFER) == NO_SIGNALS


@pytest.mark.parametrize("blame", [Blame.PROVIDER, Blame.ACCOUNT, Blame.THROTTLE])
def test_what_is_the_providers_trouble_lowers_its_success(board: Board, blame: Blame) -> None:
    end(board)
    end(board, blame=blame)
    assert board.snapshot(OFFER).success == pytest.approx(5 / 6)


def test_one_failure_is_no_verdict_and_many_are(board: Board) -> None:
    end(board, blame=Blame.PROVIDER)
    one = board.snapshot(OFFER).success
    for _ in range(60):
        end(board, blame=Blame.PROVIDER)
    board.attempt_begun(OFFER)
    many = Board(ManualClock())
    for _ in range(60):
        end(many, blame=Blame.PROVIDER)
    assert one == pytest.approx(0.8)
    assert many.snapshot(OFFER).success == pytest.approx(4 / 64)


def test_a_penalty_fades_by_half_in_half_a_minute(board: Board, clock: ManualClock) -> None:
    end(board, blame=Blame.PROVIDER)
    shares = []
    for _ in range(4):
        shares.append(board.snapshot(OFFER).success)
        clock.advance(30)
    assert shares == [pytest.approx(4 / (4 + 0.5**n)) for n in range(4)]


def test_load_is_current_though_the_figures_are_not_reckoned_for_each_request(board: Board) -> None:
    end(board, 1.0)
    assert board.snapshot(OFFER).total_p50 == 1.0
    for expected in range(1, 5):
        board.attempt_begun(OFFER)
        assert board.snapshot(OFFER).in_flight == expected
    board.attempt_ended(OFFER, total_seconds=99.0, blame=None)
    board.attempt_ended(OFFER, total_seconds=99.0, blame=None)
    signals = board.snapshot(OFFER)
    assert signals.in_flight == 2
    assert signals.total_p50 == 1.0  # the new samples show a tenth of a second later


def test_figures_show_new_samples_within_a_tenth_of_a_second(board: Board, clock: ManualClock) -> None:
    end(board, 1.0)
    board.snapshot(OFFER)
    for _ in range(5):
        end(board, 99.0)
    clock.advance(0.1)
    assert board.snapshot(OFFER).total_p50 == 99.0


def test_between_changes_a_snapshot_is_the_same_object(board: Board) -> None:
    end(board)
    assert board.snapshot(OFFER) is board.snapshot(OFFER)


def test_an_end_without_a_beginning_never_makes_the_load_negative(board: Board) -> None:
    board.attempt_ended(OFFER, total_seconds=1.0, blame=None)
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
    for offer in ("acme/up@a", "acme/up@a#2", "acme/down@a", "acme/up@b"):
        board.attempt_begun(offer)
    board.attempt_ended("acme/down@a", total_seconds=1.0, blame=None)
    assert (board.in_flight("a"), board.in_flight("b"), board.in_flight("c")) == (2, 1, 0)
    assert provider_of("owner/name@pro-vider#12") == "pro-vider"


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


@pytest.mark.parametrize(
    ("weighted", "share", "expected"),
    [
        ([], 0.5, None),
        ([(3.0, 1.0)], 0.95, 3.0),
        ([(1.0, 1.0), (2.0, 1.0)], 0.5, 1.0),
        ([(1.0, 1.0), (2.0, 3.0)], 0.5, 2.0),
        ([(1.0, 1e-300), (2.0, 1e-300)], 0.95, 2.0),
    ],
)
def test_a_weighted_quantile(weighted: list[tuple[float, float]], share: float, expected: float | None) -> None:
    assert quantile(weighted, share) == expected
