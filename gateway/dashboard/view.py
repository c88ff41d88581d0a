"""Makes the overview: what the journal kept and how everything stands now. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.contract.clock import Clock
from gateway.contract.model import Model
from gateway.contract.prediction import Prediction
from gateway.contract.route import BreakerState, Offer
from gateway.dashboard.journal import Journal, Sample
from gateway.dashboard.minute import MINUTES, TROUBLE_MINUTES, OfferCount
from gateway.dashboard.open import Open, look_at
from gateway.dashboard.route import Routes
from gateway.dashboard.shape import (
    Burn,
    Cell,
    DeadReceiver,
    Latency,
    Matrix,
    Overview,
    Phases,
    Point,
    Stage,
    Totals,
    Trouble,
)
from gateway.dashboard.shown import cut
from gateway.dashboard.standing import Cells, provider_states
from gateway.store.protocol import Backlog

MOST_TROUBLES = 50
MOST_RECEIVERS = 50
MOST_HAPPENED = 100


class Policies(NamedTuple):
    names: tuple[str, ...]
    version: str


class View:
    def __init__(
        self,
        journal: Journal,
        routes: Routes,
        *,
        clock: Clock,
        version: str,
        policies: Callable[[], Policies],
        open_predictions: Callable[[], Sequence[Prediction]],
        is_draining: Callable[[], bool],
        budget_nanos: int | None,
    ) -> None:
        self._journal = journal
        self._routes = routes
        self._clock = clock
        self._version = version
        self._policies = policies
        self._open = open_predictions
        self._is_draining = is_draining
        self._budget_nanos = budget_nanos

    def models(self) -> Sequence[Model]:
        return self._routes.models()

    def overview(self, backlog: Sequence[Backlog]) -> Overview:
        """`backlog` is what waits in the outbox."""
        journal, now = self._journal, self._clock.now()
        models = self._routes.models()
        latency = tuple(self._latency(model, now) for model in self._measured(models, now))
        slow = {one.model: one.p95 for one in latency}
        opened = look_at(self._open(), now, slow=slow)
        cells = self._cells(models, now)
        policies = self._policies()
        return Overview(
            now=now,
            version=self._version,
            started_at=journal.started_at,
            is_draining=self._is_draining(),
            policies=policies.names,
            policy_version=policies.version,
            totals=self._totals(now, opened),
            series=self._series(now),
            troubles=self._troubles(now),
            providers=provider_states(self._routes, models, cells, now),
            burn=self._burn(now, opened),
            latency=latency,
            pipeline=(*opened.stages, _delivering(backlog, now)),
            stuck=opened.stuck,
            receivers=_receivers(backlog, now),
            matrix=Matrix(
                models=tuple(sorted({cell.model for cell in cells})),
                providers=tuple(
                    dict.fromkeys(cell.provider for cell in sorted(cells, key=lambda cell: cell.is_fallback))
                ),
                cells=cells,
            ),
            timeline=journal.timeline.newest(MOST_HAPPENED),
        )

    # -- counts ----------------------------------------------------------------------------------------------------

    def _totals(self, now: datetime, opened: Open) -> Totals:
        created = succeeded = failed = canceled = rescued = 0
        for minute in self._journal.minutes.since(now):
            created += minute.created
            succeeded += minute.succeeded
            failed += minute.failed
            canceled += minute.canceled
            rescued += minute.rescued
        return Totals(
            created=created,
            succeeded=succeeded,
            failed=failed,
            canceled=canceled,
            rescued=rescued,
            open=opened.count,
        )

    def _series(self, now: datetime) -> tuple[Point, ...]:
        found = {minute.number: minute for minute in self._journal.minutes.since(now)}
        last = int(now.timestamp()) // 60
        points = []
        for number in range(last - MINUTES + 1, last + 1):
            at, minute = datetime.fromtimestamp(number * 60, UTC), found.get(number)
            if minute is None:
                points.append(Point(at=at))
                continue
            points.append(
                Point(
                    at=at,
                    succeeded=minute.succeeded,
                    failed=minute.failed,
                    canceled=minute.canceled,
                    nanos=minute.nanos,
                    unknown=minute.unknown,
                )
            )
        return tuple(points)

    def _troubles(self, now: datetime) -> tuple[Trouble, ...]:
        found = self._journal.troubles(now, TROUBLE_MINUTES)
        troubles = [
            Trouble(
                model=model,
                provider=provider,
                code=code,
                example=count.example,
                prediction=count.prediction,
                count=count.count,
                owners=dict(sorted(count.owners.items(), key=lambda pair: -pair[1])),
                first_at=count.first_at,
                last_at=count.last_at,
            )
            for (model, provider, code), count in found.items()
        ]
        troubles.sort(key=lambda trouble: (-trouble.count, trouble.model, trouble.provider or "", trouble.code))
        return tuple(troubles[:MOST_TROUBLES])

    def _burn(self, now: datetime, opened: Open) -> Burn:
        settled = wasted = ran = unknown = 0
        maybe, maybe_nanos = opened.unresolved, opened.unresolved_nanos
        for minute in self._journal.minutes.since(now):
            settled += minute.nanos
            wasted += minute.wasted
            ran += minute.ran
            unknown += minute.unknown
            maybe += minute.maybe
            maybe_nanos += minute.maybe_nanos
        return Burn(
            settled_nanos=settled,
            wasted_nanos=wasted,
            reserved_nanos=opened.reserved_nanos,
            maybe=maybe,
            maybe_nanos=maybe_nanos,
            unknown_share=unknown / ran if ran else None,
            budget_nanos=self._budget_nanos,
        )

    # -- times -----------------------------------------------------------------------------------------------------

    def _measured(self, models: Sequence[Model], now: datetime) -> list[str]:
        """Models with something to say: those of the catalog first, then those that were in it."""
        known = [model.slug for model in models]
        ended = {name for minute in self._journal.minutes.since(now) for name in minute.models}
        return [name for name in dict.fromkeys([*known, *sorted(ended)]) if name in ended]

    def _latency(self, model: str, now: datetime) -> Latency:
        ended = misses = 0
        for minute in self._journal.minutes.since(now):
            count = minute.models.get(model)
            if count is not None:
                ended += count.ended
                misses += count.deadline_misses
        accepts, deliveries = self._journal.accept_seconds(model, now), self._journal.delivery_seconds(model, now)
        totals, phases = _times(self._journal.samples(model, now), accepts, deliveries)
        return Latency(
            model=model,
            ended=ended,
            p50=quantile(totals, 0.5),
            p95=quantile(totals, 0.95),
            deadline_misses=misses,
            phases=phases,
        )

    # -- routes ----------------------------------------------------------------------------------------------------

    def _cells(self, models: Sequence[Model], now: datetime) -> Cells:
        counts: dict[str, OfferCount] = {}
        for minute in self._journal.minutes.since(now):
            for id, count in minute.offers.items():
                summed = counts.setdefault(id, OfferCount())
                for name in OfferCount.__slots__:
                    setattr(summed, name, getattr(summed, name) + getattr(count, name))
        cells: list[Cell] = []
        for model in models:
            whole = sum(counts[offer.id].attempts for offer in model.offers if offer.id in counts)
            cells += [self._cell(model, offer, counts.get(offer.id), whole, now) for offer in model.offers]
        return tuple(cells)

    def _cell(self, model: Model, offer: Offer, count: OfferCount | None, whole: int, now: datetime) -> Cell:
        standing = self._routes.standing(offer.id)
        signals = self._routes.signals(offer.id)
        state, why, until = standing.state.value, standing.why, _moment(now, standing.until_seconds)
        if standing.state is BreakerState.PROBING:
            why, until = f"{why}; the next prediction probes it", None
        elif standing.state is BreakerState.CLOSED and standing.forced is None:
            why = ""  # of what is over
            if signals.limited_for_seconds > 0:
                state, why = "limited", "it asked us to slow down"
                until = _moment(now, signals.limited_for_seconds)
        seconds = sorted(self._journal.seconds_of(offer.id, now))
        count = count or OfferCount()
        return Cell(
            model=model.slug,
            provider=offer.provider,
            offer=offer.id,
            state=state,
            forced=standing.forced.value if standing.forced is not None else None,
            why=cut(why, 300).text,
            until=until,
            share=count.attempts / whole if whole else None,
            attempts=count.attempts,
            in_flight=signals.in_flight,
            p50=quantile(seconds, 0.5),
            p95=quantile(seconds, 0.95),
            success=count.good / count.told if count.told else None,
            mean_nanos=round(count.served_nanos / count.served_priced) if count.served_priced else None,
            # Where nothing else is offered it is no fallback: it simply serves the model.
            is_fallback=offer.is_fallback and not all(other.is_fallback for other in model.offers),
        )


def _moment(now: datetime, seconds: float | None) -> datetime | None:
    """In whole seconds: it is reckoned anew each time, and shall not seem to have changed."""
    return (now + timedelta(seconds=seconds + 0.5)).replace(microsecond=0) if seconds is not None else None


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The least value that `share` of them do not exceed; None without values."""
    if not ordered:
        return None
    place = max(0, -int(-share * len(ordered) // 1) - 1)  # rounded up, counted from 0
    return round(ordered[min(place, len(ordered) - 1)], 4)


def _times(
    samples: Sequence[Sample], accepts: Sequence[float], deliveries: Sequence[float]
) -> tuple[list[float], Phases]:
    """Totals in order, and the p95 of each part. Column by column: there may be many models."""
    columns = zip(*samples, strict=True) if samples else ((),) * len(Sample._fields)
    ordered = {
        name: sorted([value for value in column if value is not None])
        for name, column in zip(Sample._fields, columns, strict=True)
    }
    ordered |= {"accept": sorted(accepts), "delivery": sorted(deliveries)}
    return ordered["total"], Phases(**{name: quantile(ordered[name], 0.95) for name in Phases.__struct_fields__})


def _delivering(backlog: Sequence[Backlog], now: datetime) -> Stage:
    young, minute, minutes, old = (sum(one.ages[index] for one in backlog) for index in range(4))
    oldest = min((one.oldest_at for one in backlog), default=None)
    return Stage(
        stage="delivering",
        count=sum(one.waiting for one in backlog),
        oldest_seconds=max(0.0, round((now - oldest).total_seconds(), 3)) if oldest is not None else None,
        ages=(young, minute, minutes, old),
    )


def _receivers(backlog: Sequence[Backlog], now: datetime) -> tuple[DeadReceiver, ...]:
    """Hosts that have failed us and for which something waits."""
    return tuple(
        DeadReceiver(
            host=one.host,
            waiting=one.waiting,
            oldest_seconds=max(0.0, round((now - one.oldest_at).total_seconds(), 3)),
            last_error=cut(one.last_error or "no answer", 300).text,
        )
        for one in [one for one in backlog if one.failing][:MOST_RECEIVERS]
    )
