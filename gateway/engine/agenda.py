"""When each attempt of one prediction is asked about, stopped, or sent again. Keeps the times; does none of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.provider import Callbacks
from gateway.engine.parts import Parts
from gateway.engine.poll import PollSchedule
from gateway.engine.seam import Link

# What was adopted of one provider, or found in its list, is asked about one after the other.
MOST_ADOPTED_POLLS_PER_SECOND = 100.0

# Of the hold: a list may lag behind, and before another attempt is begun it is looked at once more.
LOOKS_WHILE_HELD = (0.2, 0.8)


class Agenda:
    """
    For one run. The times are this process's own: whoever adopts the prediction makes a new agenda.

    `nudge`, `polled` and `sent` tell it what happened; the rest says what is due.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._nudged: dict[int, float] = {}  # by when they are asked about, whatever was planned
        self._schedules: dict[int, PollSchedule] = {}
        self._polls: dict[int, float] = {}
        self._sent_at: dict[int, float] = {}
        self._resends: dict[int, int] = {}
        self._cancels: dict[int, float] = {}
        self._listings: dict[int, int] = {}
        self._silent_since: dict[int, float] = {}  # attempts whose polls fail, by when that began

    def nudge(self, number: int) -> None:
        """Ask about this attempt now."""
        self._nudged[number] = self._parts.clock.monotonic()

    def found(self, attempt: Attempt) -> None:
        """Its job stood in a list, which need not say how far it has come: it is asked about soon, each in its turn."""
        within = self._parts.board.in_flight(attempt.provider) / MOST_ADOPTED_POLLS_PER_SECOND
        self._nudged[attempt.number] = self._parts.clock.monotonic() + self._parts.draw() * within

    def is_unlooked(self, attempt: Attempt) -> bool:
        """It can be looked for in its provider's list, and this process has not done so yet."""
        return attempt.number not in self._listings and self.listing_at(attempt) is not None

    def polling(self, attempt: Attempt) -> bool:
        """It is asked about; the next time is set from now. True: nobody had told us to."""
        is_unasked = attempt.number not in self._nudged
        self._nudged.pop(attempt.number, None)
        schedule = self._schedules.get(attempt.number)
        if schedule is not None:
            self._plan(attempt, schedule, self._parts.clock.now())
        return is_unasked

    def polled(self, number: int, *, answered: bool) -> None:
        if answered:
            self._silent_since.pop(number, None)
        else:
            self._silent_since.setdefault(number, self._parts.clock.monotonic())

    def sent(self, number: int) -> None:
        self._sent_at[number] = self._parts.clock.monotonic()

    def resending(self, number: int) -> None:
        self._resends[number] = self._resends.get(number, 0) + 1

    def cancel_again(self, attempt: Attempt) -> None:
        """A cancel did not get through: half a second, one, two … until the next."""
        pause = min(0.5 * 2 ** max(0, attempt.cancel_tries - 1), 5.0)
        self._cancels[attempt.number] = self._parts.clock.monotonic() + pause

    def cancel_at(self, attempt: Attempt, now: datetime) -> datetime | None:
        """Before when an attempt whose time is over is not to be stopped once more."""
        at = self._cancels.get(attempt.number)
        return None if at is None else now + timedelta(seconds=at - self._parts.clock.monotonic())

    def resend_at(self, attempt: Attempt, now: datetime) -> datetime | None:
        """When an unknown attempt is sent again: only where the provider starts no second job for the same id."""
        link = self._parts.links.get(attempt.provider)
        offer = self._parts.offer(attempt.offer)
        if attempt.status is not AttemptStatus.UNKNOWN or link is None or offer is None:
            return None
        if not link.capabilities_for(offer).idempotent_submit:
            return None
        tries = self._resends.get(attempt.number, 0)
        if tries >= len(self._parts.timing.resend_pauses):
            return None
        if attempt.number not in self._sent_at:
            return now  # it was sent by a worker that is dead
        due = self._sent_at[attempt.number] + self._parts.timing.resend_pauses[tries]
        return now + timedelta(seconds=due - self._parts.clock.monotonic())

    def listing(self, number: int) -> None:
        """It is looked for in its provider's list."""
        self._listings[number] = self._listings.get(number, 0) + 1

    def listing_at(self, attempt: Attempt) -> datetime | None:
        """When an unknown attempt is looked for in its provider's list; soon, once more, and then now and again."""
        link = self._parts.links.get(attempt.provider)
        if attempt.status is not AttemptStatus.UNKNOWN or link is None:
            return None
        if not link.capabilities_for(self._parts.offer(attempt.offer)).lists:
            return None
        looks, pauses = self._listings.get(attempt.number, 0), self._parts.timing.listing_pauses
        seconds = link.hold_seconds * LOOKS_WHILE_HELD[min(looks, len(LOOKS_WHILE_HELD) - 1)]
        later = looks + 1 - len(LOOKS_WHILE_HELD)
        seconds += sum(pauses[: max(0, later)]) + pauses[-1] * max(0, later - len(pauses))
        return (attempt.unknown_at or attempt.begun_at) + timedelta(seconds=seconds)

    def poll_at(self, attempt: Attempt, now: datetime) -> datetime | None:
        link = self._parts.links.get(attempt.provider)
        if link is None or attempt.handle is None:
            return None
        if not link.capabilities_for(self._parts.offer(attempt.offer)).pollable:
            return None
        if attempt.number in self._nudged:
            return now + timedelta(seconds=self._nudged[attempt.number] - self._parts.clock.monotonic())
        if attempt.number not in self._polls:
            self._begin(attempt, link, now)
        return now + timedelta(seconds=self._polls[attempt.number] - self._parts.clock.monotonic())

    def silent(self) -> frozenset[int]:
        """Attempts that could not be asked about for long: their provider may be gone for good, with the job."""
        since = self._parts.clock.monotonic() - self._parts.timing.silence
        return frozenset(number for number, begun in self._silent_since.items() if begun <= since)

    def _begin(self, attempt: Attempt, link: Link, now: datetime) -> None:
        parts = self._parts
        capabilities = link.capabilities_for(parts.offer(attempt.offer))
        schedule = self._schedules[attempt.number] = PollSchedule(
            capabilities,
            parts.timing,
            is_called_back=link.callbacks and capabilities.callbacks is not Callbacks.NONE,
            expected_seconds=parts.board.snapshot(attempt.offer).total_p50,
        )
        if attempt.number in self._sent_at:
            self._plan(attempt, schedule, now)
            return
        # Another worker sent it, and died: much may have happened since. Ten thousand of them must not ask at once.
        earliest = parts.board.in_flight(attempt.provider) / MOST_ADOPTED_POLLS_PER_SECOND
        self._polls[attempt.number] = parts.clock.monotonic() + max(earliest, parts.draw() * parts.timing.first_poll)

    def _plan(self, attempt: Attempt, schedule: PollSchedule, now: datetime) -> None:
        passed = max(0.0, (now - attempt.begun_at).total_seconds())
        doubtful = self._parts.callbacks.is_doubtful(attempt.provider, self._parts.clock.monotonic())
        seconds = schedule.next_seconds(passed, self._parts.draw, is_doubtful=doubtful)
        self._polls[attempt.number] = self._parts.clock.monotonic() + seconds
