"""
A breaker per offer, and the only user of aiobreaker. Not the rate limiter: a 429 changes nothing here.

aiobreaker's state machine decides what an outcome does to a state. What is an outcome, when time is up and who may
probe is decided here, because its own answers are wrong for us (`tests/unit/routing/test_breaker_defects.py` names
each). Only its public methods are used; `open` and `opens_at` are overridden.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from datetime import datetime

from aiobreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerState
from aiobreaker.storage.base import CircuitBreakerStorage

from gateway.contract.clock import Clock
from gateway.contract.errors import Blame
from gateway.contract.observer import Observer
from gateway.contract.route import BreakerState
from gateway.routing.standing import NEVER_CHANGED, Breaker, Standing, Ticket, Told

CONSECUTIVE_FAILURES = 5
FAILURE_SHARE = 0.5
MIN_OUTCOMES = 10
WINDOW_SECONDS = 60.0
OPEN_SECONDS = 15.0  # x the openings so far
MAX_OPEN_SECONDS = 300.0
JITTER = 0.2
ACCOUNT_OPEN_SECONDS = 300.0  # key or credit: no request mends it
SLOW_SUBMIT_SECONDS = 10.0
# A probe that says nothing for so long makes room for the next one: jobs take minutes, and tickets can be lost.
PROBE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 1.0  # told to those who wait for a probe of somebody else's
# Replicas tell one another once a second: what was told may be so much older than it says.
HEARSAY_SECONDS = 1.5
TELL_CLOSED_SECONDS = 5.0  # after a probe of ours has closed it
_MOST_SOURCES = 64

Draw = Callable[[], float]  # from [0, 1)


class _Failed(Exception):
    """The outcome that aiobreaker is told as a failure."""


def _succeed() -> None: ...


def _fail() -> None:
    raise _Failed


class _Window(CircuitBreakerStorage):  # type: ignore[misc] # aiobreaker has no types
    """
    Outcomes of the last minute, in place of aiobreaker's count of consecutive failures.

    `counter` is 1 when they are bad enough to open, else 0. `era` counts changes of state.
    """

    _SLOTS = 12

    def __init__(self, clock: Clock) -> None:
        super().__init__("window")
        self.era = 0
        self.ended_with = ""  # what the era before this one looked like at its end
        self._clock = clock
        self._state = CircuitBreakerState.CLOSED
        self._clear()

    def _clear(self) -> None:
        # Forgets as well the success that aiobreaker notes by itself whenever it closes.
        self._slots: deque[list[int]] = deque()  # [slot number, outcomes, failures]
        self._outcomes = self._failures = self._consecutive = 0

    @property
    def state(self) -> CircuitBreakerState:
        return self._state

    @state.setter
    def state(self, state: CircuitBreakerState) -> None:
        self.ended_with = self._summary()
        self._state = state
        self.era += 1
        self._clear()

    def increment_counter(self) -> None:
        self._consecutive += 1
        self._add(failures=1)

    def reset_counter(self) -> None:
        self._consecutive = 0
        self._add(failures=0)

    def _add(self, *, failures: int) -> None:
        number = self._trim()
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0, 0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += failures
        self._outcomes += 1
        self._failures += failures

    def _trim(self) -> int:
        number = int(self._clock.monotonic() * self._SLOTS / WINDOW_SECONDS)
        while self._slots and self._slots[0][0] <= number - self._SLOTS:
            _, outcomes, failures = self._slots.popleft()
            self._outcomes -= outcomes
            self._failures -= failures
        return number

    @property
    def counter(self) -> int:
        self._trim()
        share_is_bad = self._outcomes >= MIN_OUTCOMES and self._failures >= FAILURE_SHARE * self._outcomes
        return int(self._consecutive >= CONSECUTIVE_FAILURES or share_is_bad)

    def _summary(self) -> str:
        if self._consecutive >= CONSECUTIVE_FAILURES:
            return f"{self._consecutive} failures in a row"
        return f"{self._failures} of {self._outcomes} failed within {WINDOW_SECONDS:.0f} s"

    @property
    def opened_at(self) -> datetime | None:
        """Never, and nobody may set it: aiobreaker would ask the wall clock. Time is kept by `WindowBreaker`."""
        return None


class _Core(CircuitBreaker):  # type: ignore[misc] # aiobreaker has no types
    """aiobreaker's state machine without its clock."""

    def __init__(self, window: _Window) -> None:
        super().__init__(fail_max=1, state_storage=window)
        self._window = window

    def open(self) -> None:
        """Its own stamps the wall clock, by a call that warns from Python 3.12 on, and does so again when open."""
        self.state = CircuitBreakerState.OPEN
        self._window.state = CircuitBreakerState.OPEN

    @property
    def opens_at(self) -> None:
        """Its own adds to a time that may never have been stamped."""
        return

    def tell(self, outcome: Callable[[], None]) -> None:
        # It raises what it is told, or that it has opened: both are answers to nobody here.
        with contextlib.suppress(_Failed, CircuitBreakerError):
            self.call(outcome)


class WindowBreaker:
    """The `Breaker` of one offer. All in one event loop: no await between a read and its write, and so no lock."""

    def __init__(
        self, offer: str, *, clock: Clock, draw: Draw, observer: Observer, not_closed: set[str] | None = None
    ) -> None:
        self._offer = offer
        self._not_closed = not_closed if not_closed is not None else set()
        self._clock = clock
        self._draw = draw
        self._observer = observer
        self._window = _Window(clock)
        self._core = _Core(self._window)
        self._openings = 0
        self._opens_until = -math.inf
        self._closed_at = -math.inf
        self._opened_at = -math.inf
        self._proved_at = -math.inf  # a probe of ours has closed it
        self._is_hearsay = False  # open because another replica says so
        self._heard: dict[str, int] = {}  # the last opening of each replica that was minded here
        self._probe: _Ticket | None = None
        self._probe_until = -math.inf  # its slot is taken until then
        self._forced: BreakerState | None = None
        self._why = ""

    def admit(self) -> Ticket | None:
        if self._forced is not None:
            return _Ticket(self, era=-1, is_probe=False) if self._forced is BreakerState.CLOSED else None
        if self._core.current_state is CircuitBreakerState.CLOSED:
            return _Ticket(self, era=self._window.era, is_probe=False)
        now = self._clock.monotonic()
        if now < self._opens_until or now < self._probe_until:
            return None
        if self._core.current_state is CircuitBreakerState.OPEN:
            self._core.half_open()
            self._announce(BreakerState.OPEN, BreakerState.PROBING, "its open time is over")
        self._probe_until = now + PROBE_SECONDS
        self._probe = _Ticket(self, era=self._window.era, is_probe=True)
        return self._probe

    def view(self) -> tuple[BreakerState, float | None]:
        if self._forced is not None:
            return self._forced, None
        if self._core.current_state is CircuitBreakerState.CLOSED:
            return BreakerState.CLOSED, None
        now = self._clock.monotonic()
        if now < self._opens_until:
            return BreakerState.OPEN, self._opens_until - now
        return BreakerState.PROBING, min(max(self._probe_until - now, 0.0), LOOK_AGAIN_SECONDS)

    def standing(self) -> Standing:
        return Standing(*self.view(), self._why, self._forced)

    def force_open(self, *, who: str, why: str) -> None:
        self._force(BreakerState.OPEN, self._core.open, f"opened by {who}: {why}")

    def force_closed(self, *, who: str, why: str) -> None:
        self._force(BreakerState.CLOSED, self._core.close, f"held closed by {who}: {why}")

    def release(self, *, who: str, why: str) -> None:
        self._force(None, self._core.close, f"reset by {who}: {why}")
        self._openings = 0

    # -- replicas ------------------------------------------------------------------------------------------------

    def told(self) -> Told | None:
        """What the others should know; nothing that they told us, and nothing of what ops hold: the audit tells it."""
        now, state = self._clock.monotonic(), self._core.current_state
        if self._forced is not None:
            return None
        if state is CircuitBreakerState.CLOSED:
            age = now - self._proved_at
            return self._tell(BreakerState.CLOSED, age, 0.0) if age < TELL_CLOSED_SECONDS else None
        if now < self._probe_until:
            return self._tell(BreakerState.PROBING, 0.0, self._probe_until - now)
        if now < self._opens_until and not self._is_hearsay:
            return self._tell(BreakerState.OPEN, now - self._opened_at, self._opens_until - now)
        return None

    def _tell(self, state: BreakerState, age: float, seconds: float) -> Told:
        return Told(self._offer, state, self._window.era, age, seconds, self._openings, self._why)

    def learn(self, source: str, told: Told) -> None:
        """
        Mind what the replica `source` says. The same opening is minded once: after that our own probes decide.

        While somebody else probes we do not: of many replicas one goes first, and its answer is told.
        """
        if self._forced is not None:
            return
        now, before = self._clock.monotonic(), self.view()[0]
        is_closed = self._core.current_state is CircuitBreakerState.CLOSED
        since = now - told.age_seconds - HEARSAY_SECONDS
        if told.state is BreakerState.OPEN and told.seconds > 0:
            self._learn_open(source, told, since, now)
        elif told.state is BreakerState.PROBING and not is_closed and now >= self._probe_until:
            self._opens_until = max(self._opens_until, now + min(told.seconds, 2 * HEARSAY_SECONDS))
        elif told.state is BreakerState.CLOSED and not is_closed and self._opened_at < since:
            self._core.close()
            self._closed_at, self._opens_until, self._probe_until = now, -math.inf, -math.inf
            self._is_hearsay = False
            self._announce(before, BreakerState.CLOSED, "a probe of another replica succeeded")

    def _learn_open(self, source: str, told: Told, since: float, now: float) -> None:
        if self._heard.get(source) == told.serial or since <= self._proved_at or now < self._probe_until:
            return
        self._heard.pop(source, None)
        self._heard[source] = told.serial
        if len(self._heard) > _MOST_SOURCES:
            del self._heard[next(iter(self._heard))]
        until = now + self._jittered(min(told.seconds, MAX_OPEN_SECONDS * (1 + JITTER)))
        self._openings = max(self._openings, told.openings)
        if self._core.current_state is not CircuitBreakerState.CLOSED:
            self._opens_until = max(self._opens_until, until)
            return
        self._core.open()
        self._opens_until, self._opened_at, self._is_hearsay = until, since, True
        self._announce(BreakerState.CLOSED, BreakerState.OPEN, f"another replica: {told.why}")

    # -- told by tickets -----------------------------------------------------------------------------------------

    def _settle(self, era: int, *, failed: bool) -> None:
        if era != self._window.era or self._forced is not None:
            return
        before = self.view()[0]
        was_closed = self._core.current_state is CircuitBreakerState.CLOSED
        self._core.tell(_fail if failed else _succeed)
        why = self._window.ended_with if was_closed else f"the probe {'failed' if failed else 'succeeded'}"
        self._follow(before, self._open_seconds, why)

    def _trip(self, era: int) -> None:
        if era != self._window.era or self._forced is not None:
            return
        before = self.view()[0]
        self._core.open()
        self._follow(before, lambda: self._jittered(ACCOUNT_OPEN_SECONDS), "the provider refuses our key or credit")

    def _free(self, probe: _Ticket) -> None:
        if probe is self._probe:
            self._probe_until = -math.inf

    # -- what follows from a change of state -----------------------------------------------------------------------

    def _follow(self, before: BreakerState, open_seconds: Callable[[], float], why: str) -> None:
        """Start or stop the time it stays open, if the core has changed its state."""
        state = self._core.current_state
        if state is CircuitBreakerState.OPEN:
            now = self._clock.monotonic()
            # Long peace forgives what was before it.
            is_relapse = before is BreakerState.PROBING or now - self._closed_at < MAX_OPEN_SECONDS
            self._openings = self._openings + 1 if is_relapse else 1
            seconds = open_seconds()
            self._opens_until, self._probe_until = now + seconds, -math.inf
            self._opened_at, self._is_hearsay = now, False
            self._announce(before, BreakerState.OPEN, f"{why}; open for {seconds:.0f} s")
        elif state is CircuitBreakerState.CLOSED and before is not BreakerState.CLOSED:
            self._closed_at = self._proved_at = self._clock.monotonic()
            self._probe_until = -math.inf
            self._announce(before, BreakerState.CLOSED, why)

    def _open_seconds(self) -> float:
        return min(self._jittered(OPEN_SECONDS * self._openings), MAX_OPEN_SECONDS)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 - JITTER + 2 * JITTER * self._draw())

    def _force(self, forced: BreakerState | None, move: Callable[[], None], why: str) -> None:
        before = self.view()[0]
        self._forced = forced
        move()
        self._opens_until = self._probe_until = self._opened_at = self._proved_at = -math.inf
        self._is_hearsay = False
        self._why = why
        after = self.view()[0]
        if after is not before:
            self._announce(before, after, why)

    def _announce(self, before: BreakerState, after: BreakerState, why: str) -> None:
        self._why = why
        (self._not_closed.discard if after is BreakerState.CLOSED else self._not_closed.add)(self._offer)
        self._observer.breaker_changed(self._offer, before.value, after.value, why)


class _Ticket:
    __slots__ = ("_breaker", "_era", "is_probe")

    def __init__(self, breaker: WindowBreaker, *, era: int, is_probe: bool) -> None:
        self._breaker: WindowBreaker | None = breaker
        self._era = era
        self.is_probe = is_probe

    def submitted(self, seconds: float) -> None:
        if seconds > SLOW_SUBMIT_SECONDS:
            self.failure(Blame.PROVIDER)

    def success(self) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._settle(self._era, failed=False)

    def failure(self, blame: Blame) -> None:
        if blame not in (Blame.PROVIDER, Blame.ACCOUNT):
            return self.neutral()
        breaker, self._breaker = self._breaker, None
        if breaker is not None and blame is Blame.ACCOUNT:
            breaker._trip(self._era)
        elif breaker is not None:
            breaker._settle(self._era, failed=True)
        return None

    def neutral(self) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None and self.is_probe:
            breaker._free(self)


class Breakers:
    """One breaker per offer, made when it is first asked for."""

    def __init__(self, *, clock: Clock, draw: Draw, observer: Observer) -> None:
        self._clock = clock
        self._draw = draw
        self._observer = observer
        self._breakers: dict[str, WindowBreaker] = {}
        self.not_closed: set[str] = set()  # offers; asked for every candidate of every plan

    def of(self, offer: str) -> Breaker:
        return self._made(offer)

    def _made(self, offer: str) -> WindowBreaker:
        breaker = self._breakers.get(offer)
        if breaker is None:
            breaker = WindowBreaker(
                offer, clock=self._clock, draw=self._draw, observer=self._observer, not_closed=self.not_closed
            )
            self._breakers[offer] = breaker
        return breaker

    def admit(self, offer: str) -> Ticket | None:
        return self.of(offer).admit()

    def view(self, offer: str) -> tuple[BreakerState, float | None]:
        breaker = self._breakers.get(offer)
        return (BreakerState.CLOSED, None) if breaker is None else breaker.view()

    def standing(self, offer: str) -> Standing:
        breaker = self._breakers.get(offer)
        return NEVER_CHANGED if breaker is None else breaker.standing()

    def told(self) -> list[Told]:
        """What other replicas should know of all of them."""
        return [told for breaker in self._breakers.values() if (told := breaker.told()) is not None]

    def learn(self, source: str, told: Told) -> None:
        self._made(told.offer).learn(source, told)
