"""A lane narrows, shuts and probes; and keeps a prediction's deliveries in order."""

from __future__ import annotations

import pytest

from gateway.delivery.lane import Claim, Lane, Trust
from gateway.testing import ManualClock
from tests.unit.delivery.fakes import START, FakeStore


def lane_of(*predictions: str) -> Lane:
    store = FakeStore(ManualClock(START))
    lane = Lane("ada", "hooks.example", has_answered=True)
    for number, prediction in enumerate(predictions):
        row = store.rows[store.put(number, "https://hooks.example/", prediction=prediction, sequence=number)]
        lane.waiting.append(Claim(row, 60))
    return lane


def taken(lane: Lane) -> list[int]:
    return [claim.delivery.sequence for claim in iter(lane.next, None)]


def test_four_may_be_on_their_way_and_one_before_it_has_answered_and_after_a_failure() -> None:
    lane = lane_of("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k")
    lane.has_answered = False
    assert (lane.trust, taken(lane)) == (Trust.UNKNOWN, [0])
    lane.sending.clear()
    lane.answered()
    assert (lane.trust, taken(lane)) == (Trust.PROVEN, [1, 2, 3, 4])
    lane.sending.clear()
    lane.failed(0)
    assert (lane.trust, taken(lane)) == (Trust.SUSPECT, [5])
    lane.sending.clear()
    lane.reopen()
    assert (lane.trust, taken(lane)) == (Trust.UNKNOWN, [6]), "that somebody asks for it proves nothing"
    lane.sending.clear()
    lane.answered()
    assert taken(lane) == [7, 8, 9, 10]


def test_later_delivery_of_a_prediction_waits_and_others_pass_it() -> None:
    lane = lane_of("a", "a", "b", "a")
    assert taken(lane) == [0, 2]
    lane.sending.discard("a")
    assert taken(lane) == [1]
    lane.sending.discard("a")
    assert taken(lane) == [3]


def test_its_share_is_sixteen_and_four_after_a_failure_and_the_newest_go() -> None:
    lane = lane_of(*(f"p{n}" for n in range(20)))
    assert [delivery.sequence for delivery in lane.give_up_surplus(1)] == [16, 17, 18, 19]
    assert lane.is_full(1)
    lane.failed(0)
    lane.next()
    assert [delivery.sequence for delivery in lane.give_up_surplus(1)] == list(range(5, 16))
    assert (len(lane.waiting), lane.is_full(1)) == (4, True)


@pytest.mark.parametrize(("lanes", "each"), [(1, 4), (64, 4), (65, 3), (128, 2), (256, 1), (1_000, 1)])
def test_the_more_have_not_answered_the_fewer_of_each_are_kept(lanes: int, each: int) -> None:
    lane = lane_of(*(f"p{n}" for n in range(20)))
    lane.has_answered = False
    lane.give_up_surplus(lanes)
    assert (len(lane.waiting), lane.is_full(lanes)) == (each, True)
    lane.waiting.pop()
    assert not lane.is_full(lanes)


def test_what_follows_one_that_stays_stays_with_it() -> None:
    lane = lane_of("a", "b", "a", "c", "b", "d")
    lane.next()
    assert [delivery.sequence for delivery in lane.give_up(but=1)] == [3, 5]
    assert [claim.delivery.sequence for claim in lane.waiting] == [1, 2, 4]
    assert [delivery.sequence for delivery in lane.give_up()] == [1, 4]


def test_five_failures_in_a_row_shut_it_and_a_failed_probe_doubles_the_time() -> None:
    lane = lane_of()
    for _ in range(4):
        lane.failed(0)
    assert not lane.is_shut(0)
    lane.failed(0)
    lane.failed(1)  # one that was still on its way: changes nothing
    assert (lane.is_shut(29.9), lane.is_shut(30)) == (True, False)
    lane.failed(30)
    assert (lane.is_shut(89.9), lane.is_shut(90)) == (True, False)
    for now in (90, 300, 1000, 2000, 3000):
        lane.failed(now)
    assert (lane.is_shut(3299), lane.is_shut(3300)) == (True, False)
    lane.answered()
    assert not lane.is_suspect
    for _ in range(5):
        lane.failed(4000)
    assert (lane.is_shut(4029), lane.is_shut(4030)) == (True, False)


def test_a_success_between_failures_keeps_it_open() -> None:
    lane = lane_of()
    for _ in range(20):
        for _ in range(4):
            lane.failed(0)
        lane.answered()
    assert not lane.is_shut(0)


def test_a_failing_lane_is_remembered_for_an_hour() -> None:
    lane = lane_of()
    assert lane.is_forgettable(0)
    lane.failed(0)
    assert (lane.is_forgettable(3600), lane.is_forgettable(3601)) == (False, True)
