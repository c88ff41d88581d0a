"""The words between a breaker and those who ask it: tickets, how it stands, what replicas are told. Decides nothing."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.contract.errors import Blame
from gateway.contract.route import BreakerState


class Ticket(Protocol):
    """
    The right to make one attempt, and the duty to say how it ended.

    The first word counts, what follows is ignored; so `neutral()` may stand in a `finally`. Outcomes that come in
    another era than the ticket's (it opened or closed in between) change nothing.
    """

    is_probe: bool

    def submitted(self, seconds: float) -> None:
        """
        The provider accepted the job after `seconds`. Slower than ten it counts as a failure, and is still accepted.

        Not for submits that hold until the job is done: their time is the job's.
        """
        ...

    def success(self) -> None: ...

    def failure(self, blame: Blame) -> None:
        """PROVIDER counts, ACCOUNT opens at once and for long, the others are neutral."""
        ...

    def neutral(self) -> None:
        """It says nothing of the offer: cancelled, refused for its input, rate limited."""
        ...


class Standing(NamedTuple):
    """How a breaker stands, and why: `view`, and what led to it."""

    state: BreakerState
    until_seconds: float | None  # as `view` has it
    why: str  # of its last change; empty if there was none
    forced: BreakerState | None  # by ops: what they hold it at


class Told(NamedTuple):
    """
    What one replica tells the others of a breaker, of its own knowledge only.

    OPEN: for `seconds` more. PROBING: a probe is under way, and is waited for so long. CLOSED: a probe has just closed
    it. `serial` names the change within its replica, `age_seconds` is how long ago it came.
    """

    offer: str
    state: BreakerState
    serial: int
    age_seconds: float
    seconds: float
    openings: int
    why: str


NEVER_CHANGED = Standing(BreakerState.CLOSED, None, "", None)


class Breaker(Protocol):
    """What the engine and ops see of one offer's breaker."""

    def admit(self) -> Ticket | None:
        """The right to make one attempt, or None while the breaker refuses."""
        ...

    def view(self) -> tuple[BreakerState, float | None]:
        """
        The state, and in how many seconds to ask again.

        OPEN with None: until ops release it. PROBING with 0: the next attempt is the probe; else one is under way.
        """
        ...

    def standing(self) -> Standing: ...

    def force_open(self, *, who: str, why: str) -> None:
        """Refuse everything until `release`."""
        ...

    def force_closed(self, *, who: str, why: str) -> None:
        """Admit everything until `release`, whatever happens."""
        ...

    def release(self, *, who: str, why: str) -> None:
        """Closed, nothing remembered, automatic from here on."""
        ...
