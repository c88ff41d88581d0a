"""Tells routing and observers how attempts went: which are over is read off the committed state, each is told once."""

from __future__ import annotations

from datetime import datetime

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Blame, PlanMovedOn
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction
from gateway.routing.record import Flight
from gateway.routing.signals import Board
from gateway.routing.standing import Ticket
from gateway.routing.unit import facts_of, size_of


class Feedback:
    """For one prediction that is being driven."""

    def __init__(self, board: Board, observer: Observer) -> None:
        self._board = board
        self._observer = observer
        self._tickets: dict[int, Ticket] = {}
        self._told: set[int] = set()  # attempts whose job is over, as routing was told
        self._announced: set[int] = set()  # attempts that are closed, as observers were told
        self._flights: dict[int, Flight] = {}  # what the board was told of a beginning, by attempt

    def adopt(self, prediction: Prediction) -> None:
        """Attempts that had ended before this worker came were told by another."""
        for attempt in prediction.attempts:
            if attempt.status.is_closed:
                self._told.add(attempt.number)
                self._announced.add(attempt.number)
            else:
                self._begin(prediction, attempt)

    def begun(self, prediction: Prediction, attempt: Attempt, ticket: Ticket) -> None:
        self._tickets[attempt.number] = ticket
        self._begin(prediction, attempt)
        self._observer.attempt_begun(prediction, attempt)

    def submitted(self, number: int, seconds: float) -> None:
        """The provider took the job after `seconds`: a breaker minds a slow submit, the job does not."""
        ticket = self._tickets.get(number)
        if ticket is not None:
            ticket.submitted(seconds)

    def update(self, prediction: Prediction) -> None:
        """Tell of every attempt that is over since the last time."""
        for attempt in prediction.attempts:
            if attempt.number not in self._told and (
                attempt.status.is_closed or attempt.status is AttemptStatus.COLLECTING
            ):
                self._told.add(attempt.number)
                self._end(attempt)
            if attempt.number not in self._announced and attempt.status.is_closed:
                # Only now is it known whether its files could be had.
                self._announced.add(attempt.number)
                self._observer.attempt_ended(prediction, attempt)

    def close(self) -> None:
        """The run is over: whoever has not been told of an end shall not wait for it."""
        for ticket in self._tickets.values():
            ticket.neutral()
        for flight in self._flights.values():
            # Whoever goes on with it begins it anew: it must not count as in flight twice.
            self._board.attempt_ended(flight, blame=Blame.LOCAL)
        self._flights.clear()

    def _begin(self, prediction: Prediction, attempt: Attempt) -> None:
        size = size_of(facts_of(prediction.request))
        self._flights[attempt.number] = self._board.attempt_begun(attempt.offer, size=size)

    def _end(self, attempt: Attempt) -> None:
        ticket = self._tickets.get(attempt.number)
        flight = self._flights.pop(attempt.number, None)
        blame = _blame(attempt)
        if flight is not None:
            self._board.attempt_ended(
                flight,
                queue_seconds=_between(attempt.begun_at, attempt.running_at),
                run_seconds=_run_seconds(attempt),
                total_seconds=_between(attempt.begun_at, attempt.ended_at),
                bill=_bill(attempt),
                blame=blame,
                retry_after_seconds=attempt.failure.retry_after_seconds if attempt.failure else None,
                is_cut=attempt.failure is not None and attempt.failure.code == PlanMovedOn.code,
            )
        if ticket is None:
            return
        if blame is None:
            ticket.success()
        elif blame in (Blame.PROVIDER, Blame.ACCOUNT):
            ticket.failure(blame)
        else:
            ticket.neutral()


def _blame(attempt: Attempt) -> Blame | None:
    if attempt.status in (AttemptStatus.SUCCEEDED, AttemptStatus.COLLECTING):
        return None
    if attempt.failure is None:
        return Blame.LOCAL  # canceled by us
    return attempt.failure.blame


def _bill(attempt: Attempt) -> float | None:
    """What it was billed, as a share of what was expected of it; None where either is not known."""
    billed, expected = attempt.cost.nanos, attempt.expected_nanos
    return billed / expected if billed is not None and expected else None


def _run_seconds(attempt: Attempt) -> float | None:
    told = attempt.metrics.get("predict_time")
    if isinstance(told, (int, float)) and told >= 0:
        return float(told)
    return _between(attempt.running_at, attempt.ended_at)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())
