"""Makes the plan of a prediction: its policy, its candidates as they stand now. Starts nothing, waits for nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec.structs import replace

from gateway.contract.budget import Rule
from gateway.contract.errors import NotFound
from gateway.contract.money import Price, Units
from gateway.contract.prediction import Prediction, Request
from gateway.contract.route import BreakerState, Candidate, Offer, Plan, Signals
from gateway.contract.wording import nearest
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.ramp import MOST_LOOK_SECONDS, Place, Ramps
from gateway.routing.remembered import RememberedAims
from gateway.routing.signals import Board
from gateway.routing.unit import facts_of, price_for, size_of
from policies.budget import holds, rules
from policies.document import Policy
from policies.evaluate import evaluate
from policies.keep import Code, Demand
from policies.match import Subject, matches
from policies.rank import Draw
from policies.reading import presets

# What `explain` supposes: time enough.
EXPLAIN_SECONDS = 3600.0
_TO_BE_RECKONED = -1
# Who waits for one of these has a place in the queue of an offer that was away.
_PASSING = frozenset({Code.BREAKER, Code.RATE_LIMIT, Code.RETURNING, Code.CONCURRENCY})


class Estimate(Protocol):
    def __call__(self, request: Request, facts: Units, offer: Offer, signals: Signals) -> int | None:
        """Nano-dollars; None: unknown."""
        ...


def expected_nanos(request: Request, facts: Units, offer: Offer, signals: Signals) -> int | None:
    """By the price list, the input, and what jobs there take."""
    price = price_for(offer.price, request.input)
    return price.of(facts if price.per_second is None else replace(facts, seconds=signals.run_mean))


class _Sheet:
    """What of a model's offers stays the same from plan to plan, and their last candidates."""

    __slots__ = ("ids", "known", "limits", "nanos", "offers", "providers")

    def __init__(self, offers: tuple[Offer, ...], limits: Mapping[str, int], *, by_price_list: bool) -> None:
        self.offers = offers
        self.ids = tuple(offer.id for offer in offers)
        self.providers = tuple({offer.provider: None for offer in offers})
        self.limits = tuple((name, limits[name]) for name in self.providers if limits.get(name, 0) > 0)
        self.nanos = tuple(_fixed_nanos(offer.price) if by_price_list else _TO_BE_RECKONED for offer in offers)
        self.known: list[Candidate | None] = [None] * len(offers)


def _fixed_nanos(price: Price) -> int | None:
    """What every prediction costs; None: unknown, whatever the input is; _TO_BE_RECKONED: each its own."""
    if price.tiers or not price.units <= {"predictions"}:
        return _TO_BE_RECKONED
    return price.of(Units())


class Planner:
    """
    `catalog` and `policies` are asked anew each time, since they are swapped whole. `policies` gives all that there
    are, in the order of their files; `default` names one of them. `ready` says whether a provider can be used at all,
    `limits` how many attempts each may have in flight (absent or 0: any number). Without `ramps` an offer that was away
    is at once given all that waits for it. `estimate` says what a prediction is expected to cost where that is not the
    same for all.
    """

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        board: Board,
        breakers: Breakers,
        policies: Callable[[], Sequence[Policy]],
        default: str,
        draw: Draw,
        ready: Callable[[str], bool] = lambda provider: True,
        limits: Mapping[str, int] | None = None,
        ramps: Ramps | None = None,
        estimate: Estimate = expected_nanos,
    ) -> None:
        self._catalog = catalog
        self._board = board
        self._breakers = breakers
        self._policies = policies
        self._default = default
        self._draw = draw
        self._ready = ready
        self._limits = limits or {}
        self._ramps = ramps
        self._estimate = estimate
        self._presets = {policy.name: policy for policy in presets()}
        self._solve = RememberedAims(board.clock)
        self._sheets: dict[str, _Sheet] = {}  # by model

    def policy(self, request: Request, *, owner: str, now: datetime) -> Policy:
        """
        The one asked for, else the model's, else the first of ops' own that matches, else the default.

        `now` is when the prediction was made: its policy does not change with the time of day.
        """
        model = self._catalog().get(request.model)
        policies = self._policies()
        for name in (request.policy, model.policy if model is not None else None):
            # One that was taken away since it was asked for is passed over: what was accepted still ends.
            policy = self._named(name, policies) if name else None
            if policy is not None:
                return policy
        subject = Subject(
            model=request.model,
            key=owner,
            labels=request.labels,
            facts=functools.partial(facts_of, request),
            now=now,
        )
        for policy in policies:
            if policy.name not in self._presets and matches(policy.match, subject):
                return policy
        return self._named(self._default, policies) or self._presets["balanced"]

    def plan(self, prediction: Prediction, *, excluded: frozenset[str], now: datetime) -> Plan:
        """The plan as things stand at this moment. `excluded`: ids of offers that failed already for it."""
        request = prediction.request
        ends = [attempt.ended_at for attempt in prediction.attempts if attempt.ended_at is not None]
        demand = Demand(
            version=request.version,
            is_pinned=request.is_pinned,
            key=prediction.owner,
            labels=request.labels,
            deadline_seconds=(prediction.deadline_at - now).total_seconds(),
            attempts=len(prediction.attempts),
            age_seconds=(now - prediction.created_at).total_seconds(),
            idle_seconds=(now - max(ends, default=prediction.created_at)).total_seconds(),
        )
        policy = self.policy(request, owner=prediction.owner, now=prediction.created_at)
        place = (prediction.created_at, prediction.id)
        candidates = self._candidates(self._catalog().offers(request.model), request, place)
        plan = evaluate(policy, candidates, demand, excluded=excluded, draw=self._draw, solve=self._solve)
        if policy.budgets:
            plan = replace(plan, holds=holds(policy, key=prediction.owner, labels=request.labels, now=now))
        is_kept = bool(plan.choices) and plan.choices[0].kept
        if is_kept:
            self._board.attempt_planned(plan.choices[0].offer)
        if self._ramps is not None:
            self._queue(self._ramps, plan, place, is_kept=is_kept)
        return plan

    def again_seconds(self, prediction: Prediction, plan: Plan) -> float | None:
        """When to make the plan anew of one that nothing can be tried of now; None: nothing is to be waited for."""
        if plan.wait_seconds is None or self._ramps is None or plan.wait_seconds > MOST_LOOK_SECONDS:
            return plan.wait_seconds
        if any(choice.reasons[0].code == Code.RETURNING for choice in plan.choices):
            return plan.wait_seconds  # it has its turn
        return self._ramps.again_seconds((prediction.created_at, prediction.id), plan.wait_seconds)

    def explain(
        self,
        model: str,
        *,
        version: str | None = None,
        input: Mapping[str, Any],
        policy: str | None = None,
        key: str = "",
        labels: Mapping[str, str] | None = None,
        now: datetime,
    ) -> Plan:
        """
        The plan that a prediction of this key and these labels would get; nothing is counted.

        `now` is the time of day by which policies match. Raises NotFound for a model, a version or a policy.
        """
        catalog = self._catalog()
        known = catalog.get(model)
        if known is None:
            raise NotFound(_unknown("model", model, [m.slug for m in catalog.models()]))
        wanted = version or known.default_version
        if wanted not in {v.id for v in known.versions}:
            raise NotFound(_unknown("version", wanted, [v.id for v in known.versions]))
        if policy is not None and self._named(policy, self._policies()) is None:
            raise NotFound(_unknown("policy", policy, self.policy_names()))
        request = Request(
            model=known.slug,
            version=wanted,
            is_pinned=version is not None,
            input=dict(input),
            policy=policy,
            labels=dict(labels or {}),
        )
        return evaluate(
            self.policy(request, owner=key, now=now),
            self._candidates(known.offers, request),
            Demand(
                version=wanted,
                is_pinned=request.is_pinned,
                key=key,
                labels=request.labels,
                deadline_seconds=EXPLAIN_SECONDS,
            ),
            draw=self._draw,
        )

    def budgets(self) -> tuple[Rule, ...]:
        """Of all policies, in their order."""
        return tuple(rule for policy in self._policies() for rule in rules(policy))

    def policy_names(self) -> list[str]:
        return list(dict.fromkeys([policy.name for policy in self._policies()] + list(self._presets)))

    def _named(self, name: str, policies: Sequence[Policy]) -> Policy | None:
        return next((policy for policy in policies if policy.name == name), None) or self._presets.get(name)

    def _queue(self, ramps: Ramps, plan: Plan, place: Place, *, is_kept: bool) -> None:
        """Tell those who bring offers back slowly where this prediction goes, or what it waits for."""
        if is_kept:
            ramps.admit(plan.choices[0].offer, place)
        elif plan.wait_seconds is None:
            ramps.leave(place)
        else:
            for choice in plan.choices:
                if choice.reasons[0].code in _PASSING:
                    ramps.wait(choice.offer, place, seconds=plan.wait_seconds)

    # -- candidates ------------------------------------------------------------------------------------------------

    def _candidates(self, offers: tuple[Offer, ...], request: Request, place: Place | None = None) -> list[Candidate]:
        """
        As they stand now. One about which nothing has changed since its last plan is the same object, so that what
        policies have found out about it is still with it.
        """
        sheet = self._sheet(offers)
        facts = facts_of(request)
        ready = {provider: self._ready(provider) for provider in sheet.providers}
        full = {name for name, limit in sheet.limits if limit <= self._board.in_flight(name)}
        board = self._board.snapshots(sheet.ids, size=size_of(facts))
        candidates = []
        for place_in_sheet, (offer, signals) in enumerate(zip(offers, board, strict=True)):
            if self._ramps is not None or offer.id in self._breakers.not_closed:
                signals = self._signals(offer, signals, place)
            nanos = sheet.nanos[place_in_sheet]
            if nanos == _TO_BE_RECKONED:
                nanos = self._estimate(request, facts, offer, signals)
            is_ready, is_full = ready[offer.provider], offer.provider in full
            known = sheet.known[place_in_sheet]
            if (
                known is None
                or known.signals is not signals
                or known.expected_nanos != nanos
                or known.provider_ready is not is_ready
                or known.provider_full is not is_full
            ):
                known = sheet.known[place_in_sheet] = Candidate(
                    offer=offer,
                    signals=signals,
                    expected_nanos=nanos,
                    expected_seconds=signals.total_p50,
                    provider_ready=is_ready,
                    provider_full=is_full,
                )
            candidates.append(known)
        return candidates

    def _sheet(self, offers: tuple[Offer, ...]) -> _Sheet:
        key = offers[0].model if offers else ""
        sheet = self._sheets.get(key)
        if sheet is None or sheet.offers is not offers:
            sheet = self._sheets[key] = _Sheet(offers, self._limits, by_price_list=self._estimate is expected_nanos)
        return sheet

    def _signals(self, offer: Offer, signals: Signals, place: Place | None) -> Signals:
        """With what stands beside them: its breaker, and whose turn it is after an absence."""
        is_closed = offer.id not in self._breakers.not_closed
        if not is_closed:
            state, until = self._breakers.view(offer.id)
            signals = replace(signals, breaker=state, breaker_until_seconds=until)
        if self._ramps is None:
            return signals
        if signals.breaker is BreakerState.OPEN or signals.limited_for_seconds > 0:
            self._ramps.away(offer.id)
        elif is_closed and not self._ramps.is_back(offer.id):
            capacity = self._capacity_per_second(offer, signals)
            turn = self._ramps.turn_seconds(offer.id, place=place, capacity_per_second=capacity)
            if turn > 0:
                return replace(signals, turn_seconds=turn)
        return signals

    def _capacity_per_second(self, offer: Offer, signals: Signals) -> float | None:
        """What an offer finishes with all the attempts in flight that it may have."""
        limits = [limit for limit in (offer.concurrency or 0, self._limits.get(offer.provider, 0)) if limit > 0]
        if not limits or not signals.total_p50:
            return None
        return min(limits) / signals.total_p50


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    remedy = f'did you mean "{near}"?' if near else "there are: " + ", ".join(known)
    return f'unknown {kind} "{name}"; {remedy}'
