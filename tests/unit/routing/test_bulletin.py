"""Replicas tell one another what they saw themselves: it is minded, it fades, and it is never told on."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.errors import Blame
from gateway.contract.route import BreakerState
from gateway.routing.breaker import MAX_OPEN_SECONDS, PROBE_SECONDS, Breakers
from gateway.routing.bulletin import LIFETIME_SECONDS, Bulletin, Bulletins
from gateway.routing.signals import Board
from gateway.testing import ManualClock
from tests.unit.routing.fakes import Heard

OFFER, OTHER = "acme/up@first", "acme/up@second"


class Replica:
    def __init__(self, name: str, clock: ManualClock, *, knows: tuple[str, ...] = (OFFER, OTHER)) -> None:
        self.name = name
        self.heard = Heard()
        self.board = Board(clock)
        self.breakers = Breakers(clock=clock, draw=random.Random(name).random, observer=self.heard)
        self.bulletins = Bulletins(name, self.board, self.breakers, clock, knows=knows.__contains__)

    def fails(self, times: int = 5, *, offer: str = OFFER, blame: Blame = Blame.PROVIDER) -> None:
        for _ in range(times):
            ticket = self.breakers.admit(offer)
            assert ticket is not None
            ticket.failure(blame)

    def state(self, offer: str = OFFER) -> BreakerState:
        return self.breakers.view(offer)[0]

    def runs(self, *, offer: str = OFFER, blame: Blame | None = None, seconds: float = 2.0) -> None:
        flight = self.board.attempt_begun(offer)
        self.board.attempt_ended(flight, blame=blame, run_seconds=seconds, total_seconds=seconds)


def exchange(*replicas: Replica) -> None:
    """One round: each leaves its note, and then each reads those of the others, its own too."""
    notes = [replica.bulletins.own() for replica in replicas]
    for replica in replicas:
        replica.bulletins.learn(notes)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class TestBreakers:
    def test_an_opening_is_minded_for_the_rest_of_its_time(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.fails()
        clock.advance(6.0)
        exchange(a, b)
        left = a.breakers.view(OFFER)[1]
        state, seconds = b.breakers.view(OFFER)
        assert state is BreakerState.OPEN
        assert left is not None
        assert seconds is not None
        assert 0.8 * left <= seconds <= 1.2 * left
        assert b.breakers.standing(OFFER).why.startswith("another replica: 5 failures in a row")
        assert b.breakers.admit(OFFER) is None

    def test_what_was_learned_is_not_told_on(self, clock: ManualClock) -> None:
        a, b, c = (Replica(name, clock) for name in "abc")
        a.fails()
        a.board.attempt_begun(OFFER)
        a.runs(blame=Blame.THROTTLE, offer=OTHER)
        exchange(a, b)
        assert b.state() is BreakerState.OPEN
        exchange(b, c)
        assert c.state() is BreakerState.CLOSED
        told = msgspec.msgpack.decode(b.bulletins.own(), type=Bulletin)
        assert (told.breakers, told.loads, told.cool_downs, told.outcomes) == ((), (), (), ())

    def test_two_who_tell_each_other_do_not_keep_it_open(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.fails()
        for _ in range(40):
            exchange(a, b)
            clock.advance(1.0)
        assert a.state() is BreakerState.PROBING
        assert b.state() is BreakerState.PROBING

    def test_an_opening_is_minded_once(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.fails()
        exchange(a, b)
        left = b.breakers.view(OFFER)[1]
        clock.advance(1.0)
        exchange(a, b)
        assert b.breakers.view(OFFER)[1] == pytest.approx((left or 0) - 1.0)

    def test_a_probe_that_succeeds_closes_it_for_all(self, clock: ManualClock) -> None:
        a, b, c = (Replica(name, clock) for name in "abc")
        a.fails()
        exchange(a, b, c)
        clock.advance(20.0)
        probe = b.breakers.admit(OFFER)
        assert probe is not None
        assert probe.is_probe
        probe.success()
        exchange(a, b, c)
        assert [one.state() for one in (a, b, c)] == [BreakerState.CLOSED] * 3

    def test_who_has_just_closed_it_does_not_believe_an_older_opening(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.fails(1, blame=Blame.ACCOUNT)  # for minutes
        b.fails()
        clock.advance(20.0)
        probe = b.breakers.admit(OFFER)
        assert probe is not None
        probe.success()
        exchange(a, b)
        assert b.state() is BreakerState.CLOSED
        assert a.state() is BreakerState.CLOSED

    def test_an_opening_after_that_is_believed(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        b.fails()
        clock.advance(20.0)
        probe = b.breakers.admit(OFFER)
        assert probe is not None
        probe.success()
        exchange(a, b)
        clock.advance(10.0)
        a.fails()
        exchange(a, b)
        assert b.state() is BreakerState.OPEN

    def test_while_one_probes_the_others_wait(self, clock: ManualClock) -> None:
        replicas = [Replica(name, clock) for name in "abcde"]
        for replica in replicas:
            replica.fails()
        probes = 0
        for _ in range(int(PROBE_SECONDS)):
            exchange(*replicas)
            clock.advance(1.0)
            for replica in replicas:
                ticket = replica.breakers.admit(OFFER)
                probes += ticket is not None
                exchange(*replicas)  # what lies between is seen in the next test
        assert probes == 1

    def test_many_replicas_probe_hardly_more_than_one(self, clock: ManualClock) -> None:
        """A provider that stays down: five replicas, told once a second, each of which probes whenever it may."""
        replicas = [Replica(name, clock) for name in "abcde"]
        for replica in replicas:
            replica.fails()
        probes, tenths = 0, 6_000
        under_way: list[tuple[int, object]] = []
        for tenth in range(tenths):
            clock.advance(0.1)
            if tenth % 10 == 0:
                exchange(*replicas)
            for replica in replicas:
                ticket = replica.breakers.admit(OFFER)
                if ticket is not None:
                    probes += 1
                    under_way.append((tenth + 5, ticket))
            for _, ticket in [one for one in under_way if one[0] <= tenth]:
                ticket.failure(Blame.PROVIDER)  # type: ignore[attr-defined]
            under_way = [one for one in under_way if one[0] > tenth]
        alone = _probes_alone(tenths)
        assert alone <= probes <= 3 * alone, (probes, alone)

    def test_what_ops_hold_is_neither_told_nor_changed(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.fails()
        b.breakers.of(OFFER).force_closed(who="ops", why="we know better")
        exchange(a, b)
        assert b.state() is BreakerState.CLOSED
        a.breakers.of(OFFER).force_open(who="ops", why="no more")
        assert msgspec.msgpack.decode(a.bulletins.own(), type=Bulletin).breakers == ()

    def test_a_probe_of_our_own_is_not_disturbed(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        b.fails()
        clock.advance(20.0)
        probe = b.breakers.admit(OFFER)
        assert probe is not None
        a.fails()
        exchange(a, b)
        probe.success()
        assert b.state() is BreakerState.CLOSED


def _probes_alone(tenths: int) -> int:
    clock = ManualClock()
    one, probes = Replica("alone", clock), 0
    one.fails()
    for _ in range(tenths):
        clock.advance(0.1)
        ticket = one.breakers.admit(OFFER)
        if ticket is not None:
            probes += 1
            ticket.failure(Blame.PROVIDER)
    return probes


class TestSignals:
    def test_what_others_have_in_flight_counts(self, clock: ManualClock) -> None:
        a, b, c = (Replica(name, clock) for name in "abc")
        for replica, count in ((a, 3), (b, 2)):
            flights = [replica.board.attempt_begun(OFFER) for _ in range(count)]
            if replica is a:
                ends = flights[0]
        exchange(a, b, c)
        assert [one.board.snapshot(OFFER).in_flight for one in (a, b, c)] == [5, 5, 5]
        assert c.board.in_flight("first") == 5
        a.board.attempt_ended(ends, blame=None)
        exchange(a, b, c)
        assert c.board.in_flight("first") == 4

    def test_a_replica_that_dies_fades(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.board.attempt_begun(OFFER)
        exchange(a, b)
        clock.advance(1.0)
        b.bulletins.learn([b.bulletins.own()])  # the store has forgotten a's
        assert b.board.in_flight("first") == 0

    def test_without_a_store_the_picture_fades(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.board.attempt_begun(OFFER)
        exchange(a, b)
        clock.advance(LIFETIME_SECONDS - 0.1)
        assert b.board.in_flight("first") == 1
        clock.advance(0.2)
        assert b.board.in_flight("first") == 0
        assert b.board.snapshot(OFFER).in_flight == 0

    def test_outcomes_are_learned_once_and_none_is_missed(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        for turn in range(12):
            a.runs()
            if turn % 4 == 0:  # three in a row are missed, as notes are overwritten
                exchange(a, b)
                exchange(a, b)
            clock.advance(1.0)
        exchange(a, b)
        assert b.board.snapshot(OFFER).samples == 12
        assert b.board.snapshot(OFFER).run_mean == 2.0

    def test_failures_of_others_lower_the_success(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        for _ in range(8):
            a.runs(blame=Blame.PROVIDER)
        exchange(a, b)
        learned, own = b.board.snapshot(OFFER).success, a.board.snapshot(OFFER).success
        assert learned is not None
        assert learned == pytest.approx(own, abs=0.02)
        assert learned < 0.5

    def test_a_rate_limit_of_another_holds_here_for_as_long(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        flight = a.board.attempt_begun(OFFER)
        a.board.attempt_ended(flight, blame=Blame.THROTTLE, retry_after_seconds=20.0)
        clock.advance(5.0)
        exchange(a, b)
        assert b.board.snapshot(OFFER).limited_for_seconds == pytest.approx(15.0)
        clock.advance(15.1)
        assert b.board.snapshot(OFFER).limited_for_seconds == 0

    def test_an_offer_that_is_not_configured_here_is_left_out(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock, knows=(OTHER,))
        a.fails()
        a.runs()
        a.board.attempt_begun(OFFER)
        exchange(a, b)
        assert b.board.snapshot(OFFER).samples == 0
        assert b.board.in_flight("first") == 0
        assert b.state() is BreakerState.CLOSED


class TestHostile:
    @given(st.binary(max_size=300))
    @settings(max_examples=300, deadline=None)
    def test_what_is_no_bulletin_changes_nothing(self, body: bytes) -> None:
        replica = Replica("a", ManualClock())
        replica.bulletins.learn([body])
        assert replica.heard.changes == []

    @given(
        st.lists(
            st.tuples(
                st.integers(-3, 5),
                st.integers(-1, 4),
                st.integers(-(2**40), 2**40),
                st.floats(allow_nan=True, allow_infinity=True),
                st.floats(allow_nan=True, allow_infinity=True),
                st.integers(-5, 10**9),
                st.text(max_size=20),
            ),
            max_size=5,
        ),
        st.lists(st.tuples(st.integers(-3, 5), st.integers(-(10**12), 10**12)), max_size=3),
        st.lists(st.tuples(st.integers(-3, 5), st.floats(allow_nan=True, allow_infinity=True)), max_size=3),
    )
    @settings(max_examples=500, deadline=None)
    def test_numbers_without_sense_break_nothing(
        self, breakers: list[object], loads: list[object], cool_downs: list[object]
    ) -> None:
        clock = ManualClock()
        replica = Replica("a", clock)
        body = msgspec.msgpack.encode(["b", [OFFER, OTHER], breakers, loads, cool_downs, []])
        replica.bulletins.learn([body])
        for offer in (OFFER, OTHER):
            state, seconds = replica.breakers.view(offer)
            assert seconds is None or 0 <= seconds <= 2 * MAX_OPEN_SECONDS
            assert state is not BreakerState.CLOSED or replica.breakers.admit(offer) is not None
            assert 0 <= replica.board.snapshot(offer).limited_for_seconds <= 3600
            assert replica.board.snapshot(offer).in_flight >= 0

    def test_what_a_later_version_adds_is_left_out(self, clock: ManualClock) -> None:
        a, b = Replica("a", clock), Replica("b", clock)
        a.board.attempt_begun(OFFER)
        told = msgspec.msgpack.decode(a.bulletins.own())
        b.bulletins.learn([msgspec.msgpack.encode([*told, {"new": 1}])])
        assert b.board.in_flight("first") == 1
