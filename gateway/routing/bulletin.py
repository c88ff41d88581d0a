"""What replicas tell one another of the providers, once a second: own knowledge only. Carries nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.contract.clock import Clock
from gateway.contract.route import BreakerState
from gateway.routing.breaker import Breakers
from gateway.routing.record import Outcome
from gateway.routing.signals import Board
from gateway.routing.standing import Told

LIFETIME_SECONDS = 5.0
MOST_OUTCOMES = 256
MOST_REPLICAS = 256  # whose last word is remembered
MOST_BYTES = 1_000_000  # of what somebody else wrote

_OPEN, _PROBING, _CLOSED = range(3)
_NUMBERS = {BreakerState.OPEN: _OPEN, BreakerState.PROBING: _PROBING, BreakerState.CLOSED: _CLOSED}
_STATES = {number: state for state, number in _NUMBERS.items()}


class Attempted(msgspec.Struct, frozen=True, array_like=True):
    """An `Outcome`. `ago` in seconds; `offer` is a place in the bulletin's `offers`."""

    serial: int
    offer: int
    ago: float
    is_good: bool
    queue: float | None = None
    run: float | None = None
    total: float | None = None
    size: int = 0
    gap: int = 0
    bill: float | None = None


class Broken(msgspec.Struct, frozen=True, array_like=True):
    """A breaker's `Told`."""

    offer: int
    state: int
    serial: int
    age: float
    seconds: float
    openings: int
    why: str


class Bulletin(msgspec.Struct, frozen=True, array_like=True):
    """
    Arrays, for there are many: what comes new is put at the end, and who does not know it leaves it out.

    `outcomes` are those of the last LIFETIME_SECONDS, so that one that is missed is told by the next; their serials
    keep them from being learned twice.
    """

    worker: str
    offers: tuple[str, ...]
    breakers: tuple[Broken, ...] = ()
    loads: tuple[tuple[int, int], ...] = ()  # offer, in flight
    cool_downs: tuple[tuple[int, float], ...] = ()  # offer, seconds
    outcomes: tuple[Attempted, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Bulletin).decode


class Bulletins:
    """
    This replica's `own()`, and what it `learn`s from the others'.

    Offers that are not configured here are left out: replicas are not all restarted at once. What cannot be read is
    as good as none.
    """

    def __init__(
        self, worker: str, board: Board, breakers: Breakers, clock: Clock, *, knows: Callable[[str], bool]
    ) -> None:
        self._worker = worker
        self._board = board
        self._breakers = breakers
        self._clock = clock
        self._knows = knows
        self._learned: dict[str, int] = {}  # the last outcome of each of the others

    def own(self) -> bytes:
        places: dict[str, int] = {}

        def place(offer: str) -> int:
            return places.setdefault(offer, len(places))

        now = self._clock.monotonic()
        outcomes = self._board.outcomes(since=now - LIFETIME_SECONDS)[-MOST_OUTCOMES:]
        told = (
            tuple(Broken(place(one.offer), _NUMBERS[one.state], *one[2:]) for one in self._breakers.told()),
            tuple((place(offer), count) for offer, count in self._board.loads().items()),
            tuple((place(offer), seconds) for offer, seconds in self._board.cool_downs().items()),
            tuple(Attempted(one.serial, place(one.offer), now - one.at, *one[3:]) for one in outcomes),
        )
        return _encode(Bulletin(self._worker, tuple(places), *told))

    def learn(self, bodies: Sequence[bytes]) -> int:
        """From how many others this was: their loads are what is in flight elsewhere until the next call."""
        bulletins = [one for body in bodies if (one := _read(body)) is not None and one.worker != self._worker]
        self._board.learn_loads([self._loads(one) for one in bulletins], lifetime_seconds=LIFETIME_SECONDS)
        for bulletin in bulletins:
            self._learn_breakers(bulletin)
            self._learn_outcomes(bulletin)
        while len(self._learned) > MOST_REPLICAS:
            del self._learned[next(iter(self._learned))]
        return len(bulletins)

    def _loads(self, bulletin: Bulletin) -> dict[str, int]:
        told = ((bulletin.offers[place], count) for place, count in bulletin.loads if count > 0)
        return {offer: count for offer, count in told if self._knows(offer)}

    def _learn_breakers(self, bulletin: Bulletin) -> None:
        for one in bulletin.breakers:
            offer, state = bulletin.offers[one.offer], _STATES.get(one.state)
            if state is not None and self._knows(offer):
                told = Told(offer, state, one.serial, max(one.age, 0.0), one.seconds, one.openings, one.why)
                self._breakers.learn(bulletin.worker, told)
        for place, seconds in bulletin.cool_downs:
            if self._knows(bulletin.offers[place]):
                self._board.learn_cool_down(bulletin.offers[place], seconds)

    def _learn_outcomes(self, bulletin: Bulletin) -> None:
        known, now = self._learned.pop(bulletin.worker, 0), self._clock.monotonic()
        self._learned[bulletin.worker] = max([known, *(one.serial for one in bulletin.outcomes[-1:])])
        for one in reversed(bulletin.outcomes):  # the newest stand last
            if one.serial <= known:
                break
            offer = bulletin.offers[one.offer]
            if self._knows(offer):
                at = now - max(one.ago, 0.0)
                told = (one.queue, one.run, one.total, one.size, one.gap, one.bill)
                self._board.learn_outcome(Outcome(one.serial, at, offer, one.is_good, *told))


def _read(body: bytes) -> Bulletin | None:
    if len(body) > MOST_BYTES:
        return None
    try:
        bulletin = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    places = [one.offer for one in bulletin.breakers] + [one.offer for one in bulletin.outcomes]
    places += [place for place, _ in (*bulletin.loads, *bulletin.cool_downs)]
    return bulletin if all(0 <= place < len(bulletin.offers) for place in places) else None
