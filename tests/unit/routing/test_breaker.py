"""The breaker of an offer: what opens it, for how long, who probes, what closes it, and what it never hears of."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.contract.errors import Blame
from gateway.contract.route import BreakerState
from gateway.routing.breaker import (
    ACCOUNT_OPEN_SECONDS,
    MAX_OPEN_SECONDS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    Breakers,
)
from gateway.routing.standing import Breaker, Ticket
from gateway.testing import ManualClock
from tests.unit.routing.fakes import Heard

OFFER = "acme/up@a"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def breaker(clock: ManualClock, heard: Heard) -> Breaker:
    return Breakers(clock=clock, draw=lambda: 0.5, observer=heard).of(OFFER)


def admitted(breaker: Breaker) -> Ticket:
    ticket = breaker.admit()
    assert ticket is not None
    return ticket


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        admitted(breaker).failure(Blame.PROVIDER)


def state(breaker: Breaker) -> BreakerState:
    return breaker.view()[0]


def test_five_failures_in_a_row_open_it_for_fifteen_seconds(breaker: Breaker, heard: Heard) -> None:
    fail(breaker, 4)
    assert state(breaker) is BreakerState.CLOSED
    fail(breaker)
    assert breaker.view() == (BreakerState.OPEN, OPEN_SECONDS)
    assert breaker.admit() is None
    assert heard.changes == [(OFFER, "closed", "open", "5 failures in a row; open for 15 s")]


def test_half_of_ten_within_a_minute_open_it_and_half_of_nine_do_not(breaker: Breaker, heard: Heard) -> None:
    for failed in (False, True, False, True, False, True, False, True, False):
        ticket = admitted(breaker)
        if failed:
            ticket.failure(Blame.PROVIDER)
        else:
            ticket.success()
    assert state(breaker) is BreakerState.CLOSED
    fail(breaker)
    assert state(breaker) is BreakerState.OPEN
    assert heard.changes[0][3].startswith("5 of 10 failed within 60 s")


def test_failures_of_more_than_a_minute_ago_count_no_more_in_the_share(clock: ManualClock, breaker: Breaker) -> None:
    for _ in range(4):
        fail(breaker)
    admitted(breaker).success()
    clock.advance(61)
    for _ in range(5):
        admitted(breaker).success()
    fail(breaker, 3)  # 3 of 8 now; with the old ones 7 of 13
    for _ in range(2):
        admitted(breaker).success()
    assert state(breaker) is BreakerState.CLOSED


def test_one_success_breaks_the_row(breaker: Breaker) -> None:
    fail(breaker, 4)
    admitted(breaker).success()
    fail(breaker, 4)
    assert state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize("blame", [Blame.THROTTLE, Blame.CALLER, Blame.LOCAL])
def test_what_is_not_the_providers_trouble_counts_neither_way(breaker: Breaker, blame: Blame) -> None:
    for _ in range(40):
        admitted(breaker).failure(blame)
    assert state(breaker) is BreakerState.CLOSED
    for _ in range(4):
        fail(breaker)
        admitted(breaker).failure(blame)
    fail(breaker)
    assert state(breaker) is BreakerState.OPEN  # the row was not broken


def test_trouble_with_key_or_credit_opens_it_at_once_and_for_long(breaker: Breaker, heard: Heard) -> None:
    admitted(breaker).failure(Blame.ACCOUNT)
    assert breaker.view() == (BreakerState.OPEN, ACCOUNT_OPEN_SECONDS)
    assert heard.changes == [(OFFER, "closed", "open", "the provider refuses our key or credit; open for 300 s")]


def test_a_slow_submit_counts_as_a_failure_once_whatever_becomes_of_the_job(breaker: Breaker) -> None:
    for _ in range(5):
        ticket = admitted(breaker)
        ticket.submitted(10.5)
        ticket.success()
    assert state(breaker) is BreakerState.OPEN


def test_a_quick_submit_says_nothing_yet(breaker: Breaker) -> None:
    fail(breaker, 4)
    ticket = admitted(breaker)
    ticket.submitted(9.9)
    ticket.failure(Blame.PROVIDER)
    assert state(breaker) is BreakerState.OPEN


def test_only_the_first_word_of_a_ticket_counts(breaker: Breaker) -> None:
    ticket = admitted(breaker)
    for _ in range(20):
        ticket.failure(Blame.PROVIDER)
    ticket.failure(Blame.ACCOUNT)
    assert state(breaker) is BreakerState.CLOSED


def test_after_its_time_one_probe_is_let_through_and_its_success_closes(
    clock: ManualClock, breaker: Breaker, heard: Heard
) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS - 0.01)
    assert breaker.admit() is None
    clock.advance(0.01)
    assert breaker.view() == (BreakerState.PROBING, 0.0)
    probe = admitted(breaker)
    assert probe.is_probe
    assert [breaker.admit() for _ in range(100)] == [None] * 100
    assert breaker.view() == (BreakerState.PROBING, 1.0)
    probe.success()
    assert state(breaker) is BreakerState.CLOSED
    assert not admitted(breaker).is_probe
    assert heard.moves == [("closed", "open"), ("open", "probing"), ("probing", "closed")]


def test_closing_forgets_what_was_before_it(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS)
    admitted(breaker).success()
    fail(breaker, 4)
    assert state(breaker) is BreakerState.CLOSED
    # Not even the success that closing notes for itself counts: nine outcomes are too few for a share.
    breaker.release(who="test", why="start over")
    for failed in (True, True, True, True, False, True, True, True, True):
        if failed:
            fail(breaker)
        else:
            admitted(breaker).success()
    assert state(breaker) is BreakerState.CLOSED


def test_each_failed_probe_opens_it_for_longer_up_to_five_minutes(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    opens = []
    for _ in range(25):
        until = breaker.view()[1]
        assert until is not None
        opens.append(until)
        clock.advance(until)
        fail(breaker)
    assert opens[:4] == pytest.approx([15, 30, 45, 60])
    assert opens[-1] == MAX_OPEN_SECONDS


def test_a_relapse_opens_it_for_longer_and_long_peace_forgives(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS)
    admitted(breaker).success()
    fail(breaker, 5)
    assert breaker.view()[1] == pytest.approx(2 * OPEN_SECONDS)
    clock.advance(2 * OPEN_SECONDS)
    admitted(breaker).success()
    clock.advance(MAX_OPEN_SECONDS)
    fail(breaker, 5)
    assert breaker.view()[1] == pytest.approx(OPEN_SECONDS)


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 12.0), (0.5, 15.0), (0.999999, 18.0)])
def test_open_times_are_spread_by_a_fifth(clock: ManualClock, drawn: float, seconds: float) -> None:
    breaker = Breakers(clock=clock, draw=lambda: drawn, observer=Heard()).of(OFFER)
    fail(breaker, 5)
    assert breaker.view()[1] == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("ending", ["neutral", "caller", "throttle"])
def test_a_probe_that_says_nothing_frees_its_place_at_once(clock: ManualClock, breaker: Breaker, ending: str) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS)
    probe = admitted(breaker)
    if ending == "neutral":
        probe.neutral()
    else:
        probe.failure(Blame(ending))
    assert breaker.view() == (BreakerState.PROBING, 0.0)
    assert admitted(breaker).is_probe


def test_a_lost_probe_locks_nobody_out_for_ever(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS)
    lost = admitted(breaker)
    clock.advance(PROBE_SECONDS - 0.01)
    assert breaker.admit() is None
    clock.advance(0.01)
    second = admitted(breaker)
    lost.neutral()  # it turns up, and must not free the place of the second
    assert breaker.admit() is None
    second.success()
    assert state(breaker) is BreakerState.CLOSED


def test_of_two_probes_the_first_to_speak_decides(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 5)
    clock.advance(OPEN_SECONDS)
    slow = admitted(breaker)
    clock.advance(PROBE_SECONDS)
    admitted(breaker).failure(Blame.PROVIDER)
    slow.success()
    assert state(breaker) is BreakerState.OPEN


def test_outcomes_of_another_era_change_nothing(clock: ManualClock, breaker: Breaker) -> None:
    old = [admitted(breaker) for _ in range(20)]
    fail(breaker, 5)
    before = breaker.view()
    clock.advance(1)
    for ticket in old[:10]:
        ticket.failure(Blame.PROVIDER)
    old[10].success()
    old[11].failure(Blame.ACCOUNT)
    assert breaker.view() == (before[0], OPEN_SECONDS - 1)
    clock.advance(OPEN_SECONDS)
    admitted(breaker).success()
    for ticket in old[12:]:
        ticket.failure(Blame.PROVIDER)
    assert state(breaker) is BreakerState.CLOSED


def test_ops_hold_it_open_until_they_release_it(clock: ManualClock, breaker: Breaker, heard: Heard) -> None:
    old = admitted(breaker)
    breaker.force_open(who="ann", why="invoice dispute")
    clock.advance(10_000)
    old.success()
    assert breaker.view() == (BreakerState.OPEN, None)
    assert breaker.admit() is None
    breaker.release(who="ben", why="settled")
    assert breaker.view() == (BreakerState.CLOSED, None)
    assert heard.changes == [
        (OFFER, "closed", "open", "opened by ann: invoice dispute"),
        (OFFER, "open", "closed", "reset by ben: settled"),
    ]


def test_ops_hold_it_closed_whatever_happens(breaker: Breaker, heard: Heard) -> None:
    fail(breaker, 5)
    breaker.force_closed(who="ann", why="they promise it works")
    held = [admitted(breaker) for _ in range(30)]
    for ticket in held[:15]:
        ticket.failure(Blame.PROVIDER)
    held[15].failure(Blame.ACCOUNT)
    assert breaker.view() == (BreakerState.CLOSED, None)
    breaker.release(who="ann", why="it does")
    for ticket in held[16:]:
        ticket.failure(Blame.PROVIDER)
    assert state(breaker) is BreakerState.CLOSED
    assert heard.moves == [("closed", "open"), ("open", "closed")]


def test_how_it_stands_says_why_and_by_whose_hand(clock: ManualClock, breaker: Breaker) -> None:
    assert breaker.standing() == (BreakerState.CLOSED, None, "", None)
    fail(breaker, 5)
    assert breaker.standing() == (BreakerState.OPEN, OPEN_SECONDS, "5 failures in a row; open for 15 s", None)
    breaker.force_open(who="ann", why="invoice dispute")  # as open as it was, and now by hand
    assert breaker.standing() == (BreakerState.OPEN, None, "opened by ann: invoice dispute", BreakerState.OPEN)
    breaker.release(who="ben", why="settled")
    assert breaker.standing() == (BreakerState.CLOSED, None, "reset by ben: settled", None)


def test_a_reset_forgets_how_often_it_opened(clock: ManualClock, breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker, 5 if state(breaker) is BreakerState.CLOSED else 1)
        clock.advance(breaker.view()[1] or 0)
    breaker.release(who="ann", why="mended")
    fail(breaker, 5)
    assert breaker.view()[1] == OPEN_SECONDS


def test_each_offer_has_a_breaker_of_its_own(clock: ManualClock) -> None:
    breakers = Breakers(clock=clock, draw=lambda: 0.5, observer=Heard())
    fail(breakers.of("a"), 5)
    assert breakers.admit("a") is None
    assert breakers.admit("b") is not None
    assert breakers.view("never seen") == (BreakerState.CLOSED, None)


def test_a_hundred_thousand_outcomes_are_kept_in_a_handful_of_counts(clock: ManualClock, breaker: Breaker) -> None:
    chance = random.Random(1)
    for _ in range(100_000 // 20):
        clock.advance(0.01)
        for _ in range(20):
            ticket = breaker.admit()
            if ticket is not None and chance.random() < 0.05:
                ticket.failure(Blame.PROVIDER)
            elif ticket is not None:
                ticket.success()
    assert state(breaker) is BreakerState.CLOSED
    assert len(breaker._window._slots) <= 13  # type: ignore[attr-defined]


class Model(RuleBasedStateMachine):
    """The breaker against what it promises, whatever comes in whatever order."""

    @initialize(drawn=st.floats(0, 0.999))
    def start(self, drawn: float) -> None:
        self.clock = ManualClock()
        self.heard = Heard()
        self.breaker = Breakers(clock=self.clock, draw=lambda: drawn, observer=self.heard).of(OFFER)
        self.tickets: list[Ticket] = []
        self.probed_at = -1e9
        self.opened_until = -1e9

    @rule()
    def admit(self) -> None:
        before = self.breaker.view()
        ticket = self.breaker.admit()
        assert (ticket is None) == (before[0] is not BreakerState.CLOSED and before != (BreakerState.PROBING, 0.0))
        if ticket is None:
            return
        assert ticket.is_probe == (before[0] is BreakerState.PROBING)
        if ticket.is_probe:
            assert self.clock.monotonic() >= self.opened_until
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(
        which=st.integers(0, 1_000),
        say=st.sampled_from(
            [lambda t: t.success(), lambda t: t.neutral(), lambda t: t.submitted(11.0), lambda t: t.submitted(1.0)]
            + [lambda t, blame=blame: t.failure(blame) for blame in (*Blame, Blame.PROVIDER, Blame.PROVIDER)]
        ),
        forget=st.booleans(),
    )
    def speak(self, which: int, say: Callable[[Ticket], None], forget: bool) -> None:
        was = self.breaker.view()[0]
        place = which % len(self.tickets)
        say(self.tickets[place])
        if forget:
            self.tickets.pop(place)
        state, until = self.breaker.view()
        if was is not BreakerState.OPEN and state is BreakerState.OPEN:
            assert until is not None
            assert OPEN_SECONDS * 0.8 <= until <= MAX_OPEN_SECONDS * 1.2
            self.opened_until = self.clock.monotonic() + until

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 14.0, 61.0, 400.0]))
    def wait(self, seconds: float) -> None:
        before, until = self.breaker.view()
        self.clock.advance(seconds)
        after = self.breaker.view()[0]
        # Time alone only ever turns open into probing.
        assert after is before or (
            before is BreakerState.OPEN and after is BreakerState.PROBING and seconds >= (until or 0)
        )

    @rule(seconds=st.sampled_from([-3_600.0, 3_600.0]))
    def step_the_wall_clock(self, seconds: float) -> None:
        before = self.breaker.view()
        self.clock.step(seconds)
        assert self.breaker.view() == before

    @invariant()
    def changes_join_up(self) -> None:
        for (_, _, after, why), (_, before, _, _) in itertools.pairwise(self.heard.changes):
            assert before == after, why
        assert all(before != after for before, after in self.heard.moves)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
