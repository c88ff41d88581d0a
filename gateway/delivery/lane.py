"""One receiver of one caller: how many tries it may hold at once, and whether it is dead. Sends nothing itself."""

from __future__ import annotations

import enum
from collections import deque
from datetime import datetime, timedelta

import msgspec

from gateway.store.protocol import Delivery

WIDTH = 4
MAX_WAITING = 16  # beyond it the rest is left in the store
MAX_UNPROVEN_WAITING = 4  # more could not be tried before their claims are over
MAX_UNPROVEN_HELD = 256  # of all lanes that have not answered last time
FAILURES_TO_OPEN = 5
OPEN_SECONDS = 30.0
MAX_OPEN_SECONDS = 300.0
MEMORY_SECONDS = 3600.0
NOTE_EVERY = timedelta(hours=1)
DISABLED_AFTER = timedelta(days=5)


class Claim(msgspec.Struct, eq=False):
    """A delivery in our hands; `until` is the monotonic second after which somebody else may have it."""

    delivery: Delivery
    until: float
    is_begun: bool = False  # bytes of it may have left


class Trust(enum.Enum):
    """What may be expected of a receiver."""

    PROVEN = "proven"  # it answered last time
    UNKNOWN = "unknown"  # it was never heard of here
    SUSPECT = "suspect"  # it said nothing last time


class Standing(msgspec.Struct, kw_only=True, frozen=True):
    """How a receiver stands with this process."""

    owner: str
    host: str
    failures: int  # in a row; an answer that is no 2xx is none, the receiver lives
    is_shut: bool  # not tried for a while
    is_disabled: bool  # nothing but failures for five days: not tried until somebody asks for it
    is_gone: bool  # it has said 410 of late
    failing_since: datetime | None


class Lane:
    """
    The deliveries of one (owner, host), with a breaker of their own.

    Until it has answered a lane is narrow, and again as soon as it fails. After five failures in a row it is shut: for
    30 s, then twice as long each time, up to five minutes. When that is over one try probes. All times are monotonic
    seconds, handed in.
    """

    def __init__(self, owner: str, host: str, *, has_answered: bool = False) -> None:
        self.owner = owner
        self.host = host
        self.waiting: deque[Claim] = deque()
        self.sending: set[str] = set()  # predictions with a delivery on its way: their next one waits for it
        self.failures = 0
        self.used_at = 0.0
        self.has_answered = has_answered  # since it failed
        self.heard = ""  # when somebody last asked for another try, as the store has it
        self.failing_since: datetime | None = None  # nothing has arrived since then; kept over restarts by the outbox
        self.noted_at: datetime | None = None  # when its failing was last written down
        self.is_disabled = False
        self.is_gone = False
        self._shut_until: float | None = None
        self._shut_seconds = OPEN_SECONDS

    @property
    def trust(self) -> Trust:
        if self.failures:
            return Trust.SUSPECT
        return Trust.PROVEN if self.has_answered else Trust.UNKNOWN

    @property
    def is_suspect(self) -> bool:
        return self.trust is Trust.SUSPECT

    def is_full(self, unproven: int) -> bool:
        """`unproven`: for how many such lanes something waits. Together they keep no more than their share."""
        return len(self.waiting) >= self._room(unproven)

    def _room(self, unproven: int) -> int:
        if self.trust is Trust.PROVEN:
            return MAX_WAITING
        return min(MAX_UNPROVEN_WAITING, max(1, MAX_UNPROVEN_HELD // max(1, unproven)))

    def is_forgettable(self, now: float) -> bool:
        """Nothing hangs on it; a failing one is remembered for an hour."""
        is_blank = not self.failures and self.failing_since is None and not self.is_gone
        return not self.waiting and not self.sending and (is_blank or now - self.used_at > MEMORY_SECONDS)

    def next(self) -> Claim | None:
        """
        Take the next delivery that may go, if there is room: the oldest whose prediction has none on its way.

        All deliveries of a prediction have one owner and one URL, hence one lane: that keeps them in order.
        """
        if len(self.sending) >= (WIDTH if self.trust is Trust.PROVEN else 1):
            return None
        for place, claim in enumerate(self.waiting):
            if claim.delivery.prediction not in self.sending:
                del self.waiting[place]
                self.sending.add(claim.delivery.prediction)
                return claim
        return None

    def give_up(self, *, but: int = 0) -> list[Delivery]:
        """
        Let go of what waits but for the first `but`.

        What comes after one that stays, or is on its way, stays with it: somebody else would send it before that one.
        """
        staying = list(self.waiting)[:but]
        predictions = self.sending | {claim.delivery.prediction for claim in staying}
        rest = list(self.waiting)[but:]
        self.waiting = deque([*staying, *(claim for claim in rest if claim.delivery.prediction in predictions)])
        return [claim.delivery for claim in rest if claim.delivery.prediction not in predictions]

    def give_up_surplus(self, unproven: int) -> list[Delivery]:
        return self.give_up(but=self._room(unproven))

    def is_due_for_note(self, now: datetime) -> bool:
        return self.noted_at is None or now - self.noted_at >= NOTE_EVERY

    def standing(self, now: float) -> Standing:
        return Standing(
            owner=self.owner,
            host=self.host,
            failures=self.failures,
            is_shut=self.is_shut(now),
            is_disabled=self.is_disabled,
            is_gone=self.is_gone,
            failing_since=self.failing_since,
        )

    def is_shut(self, now: float) -> bool:
        """True while nothing should be sent. When the time is over, `next` sees to it that a single try probes."""
        return self._shut_until is not None and now < self._shut_until

    def answered(self) -> None:
        self.has_answered = True
        self.reopen()

    def reopen(self) -> None:
        self.failures = 0
        self._shut_until = None
        self._shut_seconds = OPEN_SECONDS

    def forgive(self) -> None:
        """What is known against it is forgotten."""
        self.failing_since = self.noted_at = None
        self.is_disabled = self.is_gone = False

    def failed(self, now: float) -> None:
        self.failures += 1
        self.has_answered = False
        if self.failures < FAILURES_TO_OPEN or self.is_shut(now):
            return
        if self._shut_until is not None:
            self._shut_seconds = min(2 * self._shut_seconds, MAX_OPEN_SECONDS)
        self._shut_until = now + self._shut_seconds
