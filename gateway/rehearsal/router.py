"""Turnout's own planner, board and breakers as a `play.Router`: driven by the verbs that the engine uses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.clock import Clock
from gateway.contract.errors import Blame
from gateway.contract.money import NANOS
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request
from gateway.rehearsal.play import RETRY_AFTER_SECONDS, Ended, Pick
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Estimate, Planner, expected_nanos
from gateway.routing.ramp import Ramps
from gateway.routing.record import Flight
from gateway.routing.signals import Board
from gateway.routing.standing import Ticket
from gateway.routing.unit import facts_of, size_of
from policies.document import Policy
from policies.reading import presets


class Turned:
    """A `contract.clock.Clock` that stands where it was turned to."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._seconds = 0.0

    def turn(self, seconds: float) -> None:
        """To so many seconds after the start; never back."""
        self._seconds = max(self._seconds, seconds)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self._seconds


class Wanted:
    """One prediction, as a planner wants to know it."""

    __slots__ = ("deadline_seconds", "id", "owner", "request")

    def __init__(self, id: str, request: Request, *, owner: str, deadline_seconds: float) -> None:
        self.id = id
        self.request = request
        self.owner = owner
        self.deadline_seconds = deadline_seconds


class PolicyRouter:
    """`wanted` says of a number which prediction that is. Nothing it learns outlives it."""

    def __init__(
        self,
        catalog: Catalog,
        policies: Sequence[Policy],
        *,
        default: str,
        start: datetime,
        seed: int,
        wanted: Callable[[int], Wanted],
        estimate: Estimate = expected_nanos,
    ) -> None:
        self._clock = Turned(start)
        clock: Clock = self._clock
        self._board = Board(clock)
        drawn = random.Random(f"{seed} turnout")
        self._breakers = Breakers(clock=clock, draw=drawn.random, observer=Observer())
        names = {policy.name for policy in policies}
        known = (*policies, *(policy for policy in presets() if policy.name not in names))
        self._planner = Planner(
            catalog=lambda: catalog,
            board=self._board,
            breakers=self._breakers,
            policies=lambda: known,
            default=default,
            draw=drawn.random,
            ramps=Ramps(clock),
            estimate=estimate,
        )
        self._start = start
        self._wanted = wanted
        self._predictions: dict[int, Prediction] = {}
        self._tickets: dict[int, Ticket] = {}
        self._flights: dict[int, tuple[Flight, int | None]] = {}

    def policy(self, prediction: int, *, came: float) -> Policy:
        made = self._prediction(prediction, came)
        return self._planner.policy(made.request, owner=made.owner, now=made.created_at)

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | float | None:
        self._clock.turn(now)
        asked = self._prediction(prediction, came)
        plan = self._planner.plan(asked, excluded=frozenset(tried), now=self._clock.now())
        for choice in plan.kept:
            ticket = self._breakers.admit(choice.offer)
            if ticket is not None:
                self._tickets[prediction] = ticket
                flight = self._board.attempt_begun(choice.offer, size=size_of(facts_of(asked.request)))
                self._flights[prediction] = flight, choice.expected_nanos
                patience = min(choice.until_seconds or math.inf, plan.attempt_seconds or math.inf)
                return Pick(choice.offer, patience)
        return self._planner.again_seconds(asked, plan)

    def begun(self, prediction: int, offer: str, now: float) -> None:
        """It was told when it chose: nothing lies between the two."""

    def ended(self, ended: Ended) -> None:
        self._clock.turn(ended.now)
        flight, expected = self._flights.pop(ended.prediction)
        ticket = self._tickets.pop(ended.prediction)
        blame = None if ended.is_good else Blame.THROTTLE if ended.is_refusal else Blame.PROVIDER
        self._board.attempt_ended(
            flight,
            queue_seconds=ended.start_seconds,
            run_seconds=max(ended.seconds - ended.start_seconds, 0.0),
            total_seconds=ended.seconds,
            bill=ended.dollars * NANOS / expected if expected else None,
            blame=Blame.LOCAL if ended.is_stopped else blame,
            retry_after_seconds=RETRY_AFTER_SECONDS if ended.is_refusal else None,
            is_cut=ended.is_stopped,
        )
        if ended.is_good:
            ticket.success()
            self._predictions.pop(ended.prediction, None)
            return
        if ended.is_refusal or ended.is_stopped:
            ticket.neutral()
        else:
            ticket.failure(Blame.PROVIDER)
        self._remember(ended)

    # -- what the planner wants to know of a prediction ---------------------------------------------------------------

    def _prediction(self, number: int, came: float) -> Prediction:
        known = self._predictions.get(number)
        if known is not None:
            return known
        wanted, created_at = self._wanted(number), self._start + timedelta(seconds=came)
        return Prediction(
            id=wanted.id,
            owner=wanted.owner,
            request=wanted.request,
            created_at=created_at,
            deadline_at=created_at + timedelta(seconds=wanted.deadline_seconds),
            stream_token="",
        )

    def _remember(self, ended: Ended) -> None:
        before = self._prediction(ended.prediction, ended.begun)
        now = self._clock.now()
        attempt = Attempt(
            number=len(before.attempts) + 1,
            offer=ended.offer,
            provider=ended.offer.rpartition("@")[2],
            remote="",
            version="",
            token_hash="",
            begun_at=now - timedelta(seconds=ended.seconds),
            deadline_at=before.deadline_at,
            status=AttemptStatus.FAILED,
            ended_at=now,
        )
        self._predictions[ended.prediction] = replace(before, attempts=(*before.attempts, attempt))
