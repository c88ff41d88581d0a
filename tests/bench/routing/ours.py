"""Turnout's own planner, board and breakers as a strategy: driven by the verbs that the engine uses."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from gateway.config.model import ModelSection, OfferSection
from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Blame
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Request
from gateway.contract.provider import Cancel, Capabilities
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.ramp import Ramps
from gateway.routing.record import Flight
from gateway.routing.signals import Board
from gateway.routing.standing import Ticket
from gateway.testing import ManualClock
from policies.document import Policy
from policies.reading import presets
from tests.bench.routing.truth import Weather
from tests.bench.routing.world import RETRY_AFTER_SECONDS, Ended, Pick

MODEL = "bench/model"


class Turnout:
    def __init__(self, weather: Weather, policy: Policy, *, seed: int) -> None:
        self._clock = ManualClock()
        self._board = Board(self._clock)
        drawn = random.Random(f"{seed} turnout")
        self._breakers = Breakers(clock=self._clock, draw=drawn.random, observer=Observer())
        self._catalog = _catalog(weather, self._clock)
        self._planner = Planner(
            catalog=lambda: self._catalog,
            board=self._board,
            breakers=self._breakers,
            policies=lambda: (policy, *presets()),
            default=policy.name,
            draw=drawn.random,
            ramps=Ramps(self._clock),
        )
        self._deadline_seconds = weather.deadline_seconds
        self._start = self._clock.now()
        model = self._catalog.get(MODEL)
        assert model is not None
        self._request = Request(model=MODEL, version=model.default_version, is_pinned=False, input={})
        self._predictions: dict[int, Prediction] = {}
        self._tickets: dict[int, Ticket] = {}
        self._flights: dict[int, Flight] = {}
        self._listed = weather.listed

    def choose(self, prediction: int, now: float, *, came: float, tried: tuple[str, ...]) -> Pick | float | None:
        self._advance(now)
        asked = self._predictions.get(prediction) or self._prediction(prediction, came)
        excluded = frozenset(f"{MODEL}@{offer}" for offer in tried)
        plan = self._planner.plan(asked, excluded=excluded, now=self._clock.now())
        for choice in plan.kept:
            ticket = self._breakers.admit(choice.offer)
            if ticket is not None:
                self._tickets[prediction] = ticket
                return Pick(choice.provider, choice.until_seconds or math.inf)
        return self._planner.again_seconds(asked, plan)

    def begun(self, prediction: int, offer: str, now: float) -> None:
        self._flights[prediction] = self._board.attempt_begun(f"{MODEL}@{offer}")

    def ended(self, ended: Ended) -> None:
        self._advance(ended.now)
        blame = None if ended.is_good else Blame.THROTTLE if ended.is_refusal else Blame.PROVIDER
        blame = Blame.LOCAL if ended.is_stopped else blame
        self._board.attempt_ended(
            self._flights.pop(ended.prediction),
            queue_seconds=ended.start_seconds,
            run_seconds=ended.seconds - ended.start_seconds,
            total_seconds=ended.seconds,
            bill=ended.dollars / self._listed[ended.offer],
            blame=blame,
            retry_after_seconds=RETRY_AFTER_SECONDS if ended.is_refusal else None,
            is_cut=ended.is_stopped,
        )
        ticket = self._tickets.pop(ended.prediction)
        if ended.is_good:
            ticket.success()
            self._predictions.pop(ended.prediction, None)
        elif ended.is_refusal or ended.is_stopped:
            ticket.neutral()
        else:
            ticket.failure(Blame.PROVIDER)
        if not ended.is_good:
            self._remember(ended)

    # -- what the planner wants to know of a prediction ---------------------------------------------------------------

    def _advance(self, now: float) -> None:
        self._clock.advance(max(now - self._clock.monotonic(), 0.0))

    def _prediction(self, number: int, came: float) -> Prediction:
        created_at = self._start + timedelta(seconds=came)
        return Prediction(
            id=f"{number:026d}",
            owner="bench",
            request=self._request,
            created_at=created_at,
            deadline_at=created_at + timedelta(seconds=self._deadline_seconds),
            stream_token="",
        )

    def _remember(self, ended: Ended) -> None:
        came = self._predictions.get(ended.prediction)
        if came is None:
            came = self._prediction(ended.prediction, ended.begun)
        now = self._clock.now()
        attempt = Attempt(
            number=len(came.attempts) + 1,
            offer=f"{MODEL}@{ended.offer}",
            provider=ended.offer,
            remote="",
            version="",
            token_hash="",
            begun_at=now - timedelta(seconds=ended.seconds),
            deadline_at=came.deadline_at,
            status=AttemptStatus.FAILED,
            ended_at=now,
        )
        known = {field: getattr(came, field) for field in ("id", "owner", "request", "created_at", "deadline_at")}
        self._predictions[ended.prediction] = Prediction(**known, stream_token="", attempts=(*came.attempts, attempt))


def _catalog(weather: Weather, clock: ManualClock) -> Catalog:
    offers: Sequence[OfferSection] = [
        OfferSection(provider=name, name=name, price={"per_prediction": f"{Decimal(str(dollars)):f}"})
        for name, dollars in weather.listed.items()
    ]
    sections = [(ModelSection(name=MODEL, offers=tuple(offers)), None)]
    able = dict.fromkeys(weather.listed, Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME))
    return Catalog.build(sections, capabilities=able, now=clock.now(), place="bench")
