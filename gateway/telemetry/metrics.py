"""The observer that feeds the instruments, and their text for Prometheus. Who may scrape it is not decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import product
from typing import Any

import msgspec
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.fact import Effect, LedgerEntry
from gateway.contract.money import NANOS
from gateway.contract.observer import Observer
from gateway.contract.phase import (
    attempt_spans,
    backlog_of,
    drift_of,
    is_late,
    reserved_nanos,
    shares_of,
    waste_of,
    winner_of,
)
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import BreakerState
from gateway.telemetry import instrument as of
from gateway.telemetry.instrument import BREAKER_STATES, INSTRUMENTS, Instrument, Kind
from gateway.telemetry.reader import PrometheusReader, PushingReader, adding
from gateway.telemetry.tally import Distribution, Tally, attributes_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SCOPE = "turnout"
_OPERATION = "predict"
_DOLLARS = (of.SPEND, of.SPEND_MAYBE, of.SPEND_WASTED, of.DRIFT_EXPECTED, of.DRIFT_BILLED)


class Sources(msgspec.Struct, kw_only=True, frozen=True):
    """Whom the gauges ask when they are read. None of them may wait, and all may be called from another thread."""

    now: Callable[[], datetime]
    held: Callable[[], Sequence[Prediction]]  # what the engine drives
    delivering: Callable[[], tuple[int, datetime | None]] = lambda: (0, None)  # webhooks in hand, the oldest's event
    receivers: Callable[[], Mapping[str, int]] = dict  # by state
    headroom: Callable[[], Mapping[str, float]] = dict  # by provider
    double_bill_nanos: Callable[[], int] = int  # an upper bound
    policy_version: Callable[[], str] = str
    local_backend: Callable[[], Mapping[str, Any]] = dict  # what it says of its health


class Metrics(Observer):
    """
    Counts what is announced. Attributes are names from the configuration and fixed words, never ids and nothing a
    caller made up. `instance` tells it apart from others that send the same numbers.

    The registry is its own: several may live in one process. `exporters` are sent the same numbers once a minute.
    """

    def __init__(
        self,
        *,
        version: str = "",
        instance: str = "",
        offers: Iterable[str] = (),
        exporters: Iterable[MetricExporter] = (),
    ) -> None:
        self._tallies = {
            one.name: Tally(one, divisor=NANOS if one in _DOLLARS else 1)
            for one in INSTRUMENTS
            if one.kind is Kind.COUNTER
        }
        self._distributions = {one.name: Distribution(one) for one in INSTRUMENTS if one.kind is Kind.HISTOGRAM}
        self._registry = CollectorRegistry()
        self._scraper = ThreadPoolExecutor(1, "turnout-scrape")
        add = adding(self._distributions.values(), scope=SCOPE)
        self._provider = MeterProvider(
            metric_readers=[PrometheusReader(self._registry, add), *(PushingReader(one, add) for one in exporters)],
            resource=Resource.get_empty().merge(Resource(_named(version, instance))),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._breakers: dict[str, str] = dict.fromkeys(offers, BreakerState.CLOSED.value)
        self._local_up: bool | None = None
        self._sources: Sources | None = None
        self._keep_at_hand()
        self._seed()
        self._make_instruments()

    def _keep_at_hand(self) -> None:
        """What the hot path counts with."""
        tally, distribution = self._tallies, self._distributions
        self._created, self._ended = tally[of.PREDICTIONS_CREATED.name], tally[of.PREDICTIONS_ENDED.name]
        self._rescued, self._late = tally[of.PREDICTIONS_RESCUED.name], tally[of.DEADLINE_MISSES.name]
        self._attempts, self._settlements = tally[of.ATTEMPTS.name], tally[of.SETTLEMENTS.name]
        self._spend, self._maybe = tally[of.SPEND.name], tally[of.SPEND_MAYBE.name]
        self._drift_expected, self._drift_billed = tally[of.DRIFT_EXPECTED.name], tally[of.DRIFT_BILLED.name]
        self._callbacks, self._polls = tally[of.CALLBACKS.name], tally[of.POLLS.name]
        self._deliveries = tally[of.DELIVERIES.name]
        self._prediction_seconds = distribution[of.PREDICTION_DURATION.name]
        self._phase_seconds = distribution[of.PHASE_DURATION.name]
        self._operation_seconds = distribution[of.OPERATION_DURATION.name]
        self._delivery_seconds = distribution[of.DELIVERY_DURATION.name]
        self._http_seconds = distribution[of.REQUEST_DURATION.name]

    def _seed(self) -> None:
        """What alerts watch begins at 0, so that its first event is an increase."""
        for one in INSTRUMENTS:
            closed = [attribute.values for attribute in one.attributes if attribute.values is not None]
            if one.kind is Kind.COUNTER and one.name in self._tallies and len(closed) == len(one.attributes):
                for values in product(*closed):
                    self._tallies[one.name].seed(*values)
        for offer in self._breakers:
            _, provider, model = _offer_parts(offer)
            self._created.seed(model)
            self._late.seed(model)
            for status in of.STATUS.values or ():
                blames = of.BLAME.values if status == Status.FAILED else ("",)
                for blame in blames or ():
                    self._ended.seed(model, status, blame)
            for basis in of.BASIS.values or ():
                self._spend.seed(provider, model, basis)
            for estimate in of.ESTIMATE.values or ():
                self._drift_expected.seed(offer, provider, model, estimate)
                self._drift_billed.seed(offer, provider, model, estimate)
            for settlement in of.SETTLEMENT.values or ():
                self._settlements.seed(provider, model, settlement)

    def _make_instruments(self) -> None:
        meter = self._provider.get_meter(SCOPE)
        asked: dict[str, Callable[[], Iterable[tuple[float, tuple[str, ...]]]]] = {
            of.BACKLOG.name: self._backlog,
            of.BACKLOG_AGE.name: self._backlog_age,
            of.BREAKER_STATE.name: self._breaker_states,
            of.HEADROOM.name: self._headroom,
            of.SPEND_RESERVED.name: self._reserved,
            of.RECEIVERS.name: self._receivers,
            of.DOUBLE_BILL.name: self._double_bill,
            of.POLICY.name: self._policy,
            of.LOCAL_UP.name: self._local,
            of.LOCAL_QUEUE.name: lambda: self._local_said("queue"),
            of.LOCAL_RUNNING.name: lambda: self._local_said("running"),
            of.LOCAL_BATCHES.name: lambda: self._local_said("batches"),
            of.LOCAL_BATCHED.name: lambda: self._local_said("batched"),
            of.LOCAL_MEMORY.name: lambda: self._local_said("memory_bytes"),
        }
        for one in INSTRUMENTS:
            if one.name in asked:
                observe = _observing(one, asked[one.name])
            elif one.kind is Kind.COUNTER:
                observe = self._tallies[one.name].observe
            else:
                continue
            make = meter.create_observable_counter if one.kind is Kind.COUNTER else meter.create_observable_gauge
            make(one.name, [observe], unit=one.unit, description=one.about)

    # -- what is announced ---------------------------------------------------------------------------------------

    def prediction_created(self, prediction: Prediction) -> None:
        self._created.add(prediction.request.model)

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        self._phase_seconds.record(seconds, "accept", prediction.request.model, "")

    def prediction_ended(self, prediction: Prediction) -> None:
        model, status = prediction.request.model, prediction.status.value
        self._ended.add(model, status, prediction.failure.blame.value if prediction.failure is not None else "")
        if is_late(prediction):
            self._late.add(model)
        winner, shares = winner_of(prediction), shares_of(prediction)
        if shares is not None and prediction.completed_at is not None:
            seconds = (prediction.completed_at - prediction.created_at).total_seconds()
            self._prediction_seconds.record(seconds, model, status)
            self._phase_seconds.record(shares.overhead, "overhead", model, "")
            # Nothing lost is told too: so its quantiles are of all predictions, as those of the duration are.
            self._phase_seconds.record(shares.lost, "lost", model, "")
            if winner is not None and shares.collect is not None:
                self._phase_seconds.record(shares.collect, "collect", model, winner.provider)
        if winner is not None and prediction.is_rescued:
            self._rescued.add(model, winner.provider, "true" if winner.is_fallback else "false")

    def committed(self, before: Prediction | None, after: Prediction, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, LedgerEntry) and not _is_known(effect, before):
                self._settle(effect, after)
                if effect.state == "settled":
                    self._count_drift(before, after, effect.attempt - 1)

    def _settle(self, entry: LedgerEntry, prediction: Prediction) -> None:
        model, settlement = prediction.request.model, entry.state
        if entry.state == "reserved":
            return
        if entry.state == "settled":
            settlement = "unknown" if entry.nanos is None else "priced"
        if entry.corrects_nanos is None:
            self._settlements.add(entry.provider, model, settlement)
        if settlement == "priced" and entry.nanos is not None:
            # A counter takes nothing back: where less is told later, the difference stays.
            more = max(0, entry.nanos - (entry.corrects_nanos or 0))
            self._spend.add(entry.provider, model, entry.basis, amount=more)
        elif settlement == "maybe" and entry.nanos is not None:
            self._maybe.add(entry.provider, model, amount=entry.nanos)
        if entry.given_up_at is not None:
            self._count_waste(prediction, prediction.attempts[entry.attempt - 1])

    def _count_drift(self, before: Prediction | None, after: Prediction, index: int) -> None:
        attempt = after.attempts[index]
        drift = drift_of(attempt)
        if drift is None:
            return
        # A bill that is told once more: only what it is higher by.
        known = drift_of(before.attempts[index]) if before is not None and index < len(before.attempts) else None
        expected, billed = (drift.expected, drift.billed) if known is None else (0, drift.billed - known.billed)
        series = attempt.offer, attempt.provider, after.request.model, "most" if drift.is_most else "likely"
        self._drift_expected.add(*series, amount=expected)
        self._drift_billed.add(*series, amount=max(0, billed))

    def _count_waste(self, prediction: Prediction, attempt: Attempt) -> None:
        waste = waste_of(prediction, attempt)
        if waste is not None and attempt.cost.nanos:
            self._tallies[of.SPEND_WASTED.name].add(
                attempt.provider, prediction.request.model, waste, amount=attempt.cost.nanos
            )

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None:
        provider, model = attempt.provider, prediction.request.model
        error = attempt.failure.code if attempt.failure is not None else ""
        self._attempts.add(provider, model, attempt.status.value, error)
        self._count_waste(prediction, attempt)
        if attempt.ended_at is not None and attempt.status is not AttemptStatus.REJECTED:
            seconds = (attempt.ended_at - attempt.begun_at).total_seconds()
            self._operation_seconds.record(seconds, _OPERATION, provider, model, error)
        spans = attempt_spans(attempt)
        if spans is not None:
            self._phase_seconds.record(spans.queue, "queue", model, provider)
            self._phase_seconds.record(spans.run, "run", model, provider)
            if spans.cold_start:
                self._phase_seconds.record(spans.cold_start, "cold_start", model, provider)

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        reason = failed.failure.code if failed.failure is not None else ""
        self._tallies[of.FAILOVERS.name].add(prediction.request.model, failed.provider, reason)

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        self._breakers[offer] = after
        if after == BreakerState.OPEN:
            self._tallies[of.BREAKER_OPENINGS.name].add(*_offer_parts(offer))

    def callback_received(self, provider: str, outcome: str) -> None:
        self._callbacks.add(provider, outcome)

    def poll_made(self, provider: str, outcome: str) -> None:
        self._polls.add(provider, outcome)

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        self._deliveries.add(event, outcome)
        self._delivery_seconds.record(seconds, outcome)

    def delivery_ended(self, event: str, outcome: str, seconds: float) -> None:
        self._phase_seconds.record(seconds, "delivery", "", "")

    def request_served(self, route: str, method: str, status: int, seconds: float) -> None:
        self._http_seconds.record(seconds, route, method, str(status))

    def artifact_kept(self, direction: str, size_bytes: int) -> None:
        self._tallies[of.ARTIFACTS.name].add(direction)
        self._tallies[of.ARTIFACT_BYTES.name].add(direction, amount=size_bytes)

    def local_backend_changed(self, state: str) -> None:
        self._local_up = state in ("up", "ready", "running")
        if state == "starting":
            self._tallies[of.LOCAL_STARTS.name].add()

    def policies_read(self, version: str, *, refused: bool) -> None:
        self._tallies[of.POLICY_RELOADS.name].add("refused" if refused else "swapped")

    # -- what is asked -------------------------------------------------------------------------------------------

    def observe(self, sources: Sources) -> None:
        """Where the gauges come from. Before this they say nothing."""
        self._sources = sources

    def render(self) -> bytes:
        """Prometheus text, to be sent as CONTENT_TYPE. One at a time; of hundreds of models half a second long."""
        return generate_latest(self._registry)

    async def scrape(self) -> bytes:
        """What `render` gives, made beside the event loop, in a thread of its own: callers do not wait for scrapes."""
        return await asyncio.get_running_loop().run_in_executor(self._scraper, self.render)

    async def aclose(self) -> None:
        """Sends what is left, where it is sent."""
        self._scraper.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._provider.shutdown)

    def _backlog(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            found = backlog_of(self._sources.held(), self._sources.now())
            yield from ((count, (state,)) for state, (count, _) in found.items())
            yield self._sources.delivering()[0], ("delivering",)

    def _backlog_age(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            now = self._sources.now()
            found = backlog_of(self._sources.held(), now)
            yield from ((max(0.0, age), (state,)) for state, (_, age) in found.items())
            oldest = self._sources.delivering()[1]
            yield max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0, ("delivering",)

    def _breaker_states(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        for offer, state in list(self._breakers.items()):
            yield BREAKER_STATES[BreakerState(state)], _offer_parts(offer)

    def _headroom(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            yield from ((share, (provider,)) for provider, share in self._sources.headroom().items())

    def _reserved(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            held = self._sources.held()
            yield from ((nanos / NANOS, (provider,)) for provider, nanos in reserved_nanos(held).items())

    def _double_bill(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            yield self._sources.double_bill_nanos() / NANOS, ()

    def _receivers(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            yield from ((count, (state,)) for state, count in self._sources.receivers().items())

    def _policy(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._sources is not None:
            yield 1, (self._sources.policy_version(),)

    def _local(self) -> Iterable[tuple[float, tuple[str, ...]]]:
        if self._local_up is not None:
            said = self._sources.local_backend() if self._sources is not None else {}
            yield int(self._local_up), (str(said.get("device") or ""),)

    def _local_said(self, key: str) -> Iterable[tuple[float, tuple[str, ...]]]:
        said = self._sources.local_backend().get(key) if self._sources is not None and self._local_up else None
        if isinstance(said, (int, float)):
            yield said, ()


def _named(version: str, instance: str) -> dict[str, str]:
    name = {"service.name": "turnout", "service.version": version}
    return name | ({"service.instance.id": instance} if instance else {})


def _observing(
    instrument: Instrument, ask: Callable[[], Iterable[tuple[float, tuple[str, ...]]]]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        for value, values in ask():
            yield Observation(value, attributes_of(values, instrument.attributes))

    return observe


def _is_known(entry: LedgerEntry, before: Prediction | None) -> bool:
    """An attempt whose fate nobody knows was told when that became so, and is not told again when it is given up."""
    if entry.state != "maybe" or before is None or entry.attempt > len(before.attempts):
        return False
    return before.attempts[entry.attempt - 1].status in (AttemptStatus.UNKNOWN, AttemptStatus.ABANDONED)


def _offer_parts(offer: str) -> tuple[str, str, str]:
    """(offer, provider, model) of an id `<model>@<provider>#<number>`."""
    model, _, provider = offer.rpartition("@")
    return offer, provider.partition("#")[0], model
