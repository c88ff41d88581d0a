"""When each attempt of one prediction is to be asked about, or sent again. Keeps the times; does neither."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.provider import Callbacks
from gateway.engine.attempt import PollSchedule
from gateway.engine.parts import Parts


class Agenda:
    """
    For one run. The times are this process's own: whoever adopts the prediction makes a new agenda.

    `nudge`, `polled` and `sent` tell it what happened; the rest says what is due.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._nudged: set[int] = set()
        self._polls: dict[int, tuple[PollSchedule, float]] = {}
        self._sent_at: dict[int, float] = {}
        self._resends: dict[int, int] = {}
        self._silent_since: dict[int, float] = {}  # attempts whose polls fail, by when that began

    def nudge(self, number: int) -> None:
        """Ask about this attempt now."""
        self._nudged.add(number)

    def polling(self, number: int) -> None:
        """It is asked about; the next time is set from now."""
        self._nudged.discard(number)
        if number in self._polls:
            schedule = self._polls[number][0]
            again = self._parts.clock.monotonic() + schedule.next_seconds(self._parts.draw)
            self._polls[number] = (schedule, again)

    def polled(self, number: int, *, answered: bool) -> None:
        if answered:
            self._silent_since.pop(number, None)
        else:
            self._silent_since.setdefault(number, self._parts.clock.monotonic())

    def sent(self, number: int) -> None:
        self._sent_at[number] = self._parts.clock.monotonic()

    def resending(self, number: int) -> None:
        self._resends[number] = self._resends.get(number, 0) + 1

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

    def poll_at(self, attempt: Attempt, now: datetime) -> datetime | None:
        link = self._parts.links.get(attempt.provider)
        if link is None or attempt.handle is None:
            return None
        capabilities = link.capabilities_for(self._parts.offer(attempt.offer))
        if not capabilities.pollable:
            return None
        if attempt.number in self._nudged:
            return now
        if attempt.number not in self._polls:
            expected = self._parts.board.snapshot(attempt.offer).total_p50
            is_called_back = link.callbacks and capabilities.callbacks is not Callbacks.NONE
            schedule = PollSchedule(
                capabilities, self._parts.timing, is_called_back=is_called_back, expected_seconds=expected
            )
            first = schedule.next_seconds(self._parts.draw)
            self._polls[attempt.number] = (schedule, self._parts.clock.monotonic() + first)
        return now + timedelta(seconds=self._polls[attempt.number][1] - self._parts.clock.monotonic())

    def silent(self) -> frozenset[int]:
        """Attempts that could not be asked about for long: their provider may be gone for good, with the job."""
        since = self._parts.clock.monotonic() - self._parts.timing.silence
        return frozenset(number for number, begun in self._silent_since.items() if begun <= since)
