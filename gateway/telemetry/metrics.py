"""Every instrument, and the observer that feeds them. Who may scrape them is not decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.money import NANOS
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Status
from gateway.contract.route import BreakerState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BREAKER_STATES = {BreakerState.CLOSED: 0, BreakerState.PROBING: 1, BreakerState.OPEN: 2}
MOST_SERIES = 2_000  # per instrument; beyond it everything lands in one series, as OpenTelemetry does
_OVERFLOW = ("otel.metric.overflow",)
_NO_CONTEXT = Context()  # nothing of ours is recorded inside a span: spares a look-up per measurement
# From an instant upstream to a video that takes an hour.
_JOB_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
# As OpenTelemetry's semantic conventions advise for HTTP, and up to a held `Prefer: wait`.
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})


class Tally:
    """
    Sums by attribute values, read by an observable instrument.

    A plain dict costs the hot path a thirtieth of an SDK counter; the SDK sees the sums when it is asked.
    """

    def __init__(self, *attributes: str, scale: float = 1) -> None:
        self._attributes = attributes
        self._scale = scale
        self._sums: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, amount: int = 1) -> None:
        known = self._sums.get(values)
        if known is None:
            if len(self._sums) >= MOST_SERIES:
                values = _OVERFLOW
            known = self._sums.get(values, 0)
        self._sums[values] = known + amount

    def observe(self, options: CallbackOptions) -> Iterable[Observation]:
        """What the SDK calls when it collects."""
        for values, total in list(self._sums.items()):
            names = self._attributes if values is not _OVERFLOW else _OVERFLOW
            attributes = dict(zip(names, values, strict=True)) if values is not _OVERFLOW else {_OVERFLOW[0]: True}
            yield Observation(total * self._scale if self._scale != 1 else total, attributes)


class Metrics(Observer):
    """
    The instruments, each named `turnout.*` but for HTTP's, which OpenTelemetry names.

    Attributes are names from the configuration and fixed words, never ids and nothing a caller made up. The registry is
    its own: several may live in one process. Build it once per process, and hand `observe` to who is composed later.
    """

    def __init__(self, *, version: str = "", offers: Iterable[str] = ()) -> None:
        self._registry = CollectorRegistry()
        self._provider = MeterProvider(
            metric_readers=[PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)],
            resource=Resource.get_empty().merge(Resource({"service.name": "turnout", "service.version": version})),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._open: Callable[[], int] | None = None
        self._breakers: dict[str, str] = dict.fromkeys(offers, BreakerState.CLOSED.value)
        self._local_up: bool | None = None
        self._sets: dict[tuple[str, ...], Mapping[str, str | int]] = {}
        self._make_tallies()
        self._make_instruments()

    def _make_tallies(self) -> None:
        self._created = Tally("model")
        self._ended = Tally("model", "status")
        self._rescued = Tally("model", "provider", "fallback")
        self._attempts = Tally("provider", "offer", "outcome")
        self._failovers = Tally("model", "provider", "reason")
        self._cost = Tally("provider", "basis", scale=1 / NANOS)
        self._cost_unknown = Tally("provider")
        self._callbacks = Tally("provider", "outcome")
        self._polls = Tally("provider", "outcome")
        self._deliveries = Tally("event", "outcome")
        self._artifacts = Tally("direction")
        self._artifact_bytes = Tally("direction")

    def _make_instruments(self) -> None:
        meter = self._provider.get_meter("turnout")
        for name, tally, unit, about in (
            ("turnout.predictions.created", self._created, "", "Predictions accepted."),
            ("turnout.predictions.ended", self._ended, "", "Predictions that reached a final status."),
            ("turnout.predictions.rescued", self._rescued, "", "Predictions that succeeded after a failed attempt."),
            ("turnout.attempts", self._attempts, "", "Attempts that ended, by outcome or code of the failure."),
            ("turnout.failovers", self._failovers, "", "Times a prediction moved on, by the provider it left."),
            ("turnout.cost.dollars", self._cost, "", "Dollars spent at providers, by where the figure comes from."),
            ("turnout.cost.unknown", self._cost_unknown, "", "Attempts that may have cost something nobody told us."),
            ("turnout.callbacks", self._callbacks, "", "Callbacks of providers, by what they did."),
            ("turnout.polls", self._polls, "", "Polls of providers, by what they told."),
            ("turnout.deliveries", self._deliveries, "", "Tries to deliver a webhook to a caller."),
            ("turnout.artifacts", self._artifacts, "", "Files taken into our keeping."),
            ("turnout.artifacts.size", self._artifact_bytes, "By", "Bytes taken into our keeping."),
        ):
            meter.create_observable_counter(name, [tally.observe], unit=unit, description=about)
        gauge = meter.create_observable_gauge
        gauge("turnout.predictions.open", [self._observe_open], description="Predictions that have not ended.")
        gauge("turnout.breaker.state", [self._observe_breakers], description="Breaker: 0 closed, 1 probing, 2 open.")
        gauge("turnout.local_backend.up", [self._observe_local], description="1 while the local backend serves.")
        self._prediction_seconds = meter.create_histogram(
            "turnout.prediction.duration",
            unit="s",
            description="From acceptance to the final status.",
            explicit_bucket_boundaries_advisory=_JOB_SECONDS,
        )
        self._queue_seconds = meter.create_histogram(
            "turnout.attempt.queue.duration",
            unit="s",
            description="From our submit until the provider began to run it.",
            explicit_bucket_boundaries_advisory=_JOB_SECONDS,
        )
        self._run_seconds = meter.create_histogram(
            "turnout.attempt.run.duration",
            unit="s",
            description="From the provider's begin to its end.",
            explicit_bucket_boundaries_advisory=_JOB_SECONDS,
        )
        self._delivery_seconds = meter.create_histogram(
            "turnout.delivery.duration",
            unit="s",
            description="One try to deliver a webhook.",
            explicit_bucket_boundaries_advisory=_HTTP_SECONDS,
        )
        self._http_seconds = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Requests served.",
            explicit_bucket_boundaries_advisory=_HTTP_SECONDS,
        )

    # -- what is announced ---------------------------------------------------------------------------------------

    def prediction_created(self, prediction: Prediction) -> None:
        self._created.add(prediction.request.model)

    def prediction_ended(self, prediction: Prediction) -> None:
        model, status = prediction.request.model, prediction.status.value
        self._ended.add(model, status)
        if prediction.completed_at is not None:
            seconds = _seconds(prediction.created_at, prediction.completed_at)
            self._prediction_seconds.record(seconds, self._set("model", model, "status", status), _NO_CONTEXT)
        if prediction.status is Status.SUCCEEDED:
            winner = next((a for a in prediction.attempts if a.number == prediction.winner), None)
            if winner is not None and _came_after_failure(winner, prediction.attempts):
                self._rescued.add(model, winner.provider, "true" if winner.is_fallback else "false")

    def attempt_ended(self, prediction: Prediction, attempt: Attempt) -> None:
        provider, offer = attempt.provider, attempt.offer
        outcome = attempt.failure.code if attempt.failure is not None else attempt.status.value
        self._attempts.add(provider, offer, outcome)
        if attempt.cost.nanos is not None:
            self._cost.add(provider, attempt.cost.basis.value, amount=attempt.cost.nanos)
        elif attempt.status is not AttemptStatus.REJECTED:
            self._cost_unknown.add(provider)
        if attempt.running_at is not None and attempt.ended_at is not None:
            attributes = self._set("provider", provider, "offer", offer)
            self._queue_seconds.record(_seconds(attempt.begun_at, attempt.running_at), attributes, _NO_CONTEXT)
            self._run_seconds.record(_seconds(attempt.running_at, attempt.ended_at), attributes, _NO_CONTEXT)

    def failed_over(self, prediction: Prediction, failed: Attempt) -> None:
        reason = failed.failure.code if failed.failure is not None else failed.status.value
        self._failovers.add(prediction.request.model, failed.provider, reason)

    def breaker_changed(self, offer: str, before: str, after: str, why: str) -> None:
        self._breakers[offer] = after

    def callback_received(self, provider: str, outcome: str) -> None:
        self._callbacks.add(provider, outcome)

    def poll_made(self, provider: str, outcome: str) -> None:
        self._polls.add(provider, outcome)

    def delivery_tried(self, event: str, outcome: str, seconds: float) -> None:
        self._deliveries.add(event, outcome)
        self._delivery_seconds.record(max(0.0, seconds), self._set("outcome", outcome), _NO_CONTEXT)

    def request_served(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "_OTHER"
        key = (route, method, str(status))
        attributes = self._sets.get(key)
        if attributes is None:
            attributes = {"http.route": route, "http.request.method": method, "http.response.status_code": status}
            self._remember(key, attributes)
        self._http_seconds.record(max(0.0, seconds), attributes, _NO_CONTEXT)

    def artifact_kept(self, direction: str, size_bytes: int) -> None:
        self._artifacts.add(direction)
        self._artifact_bytes.add(direction, amount=size_bytes)

    def local_backend_changed(self, state: str) -> None:
        self._local_up = state in ("up", "ready", "running")

    # -- what is asked -------------------------------------------------------------------------------------------

    def observe(self, *, open_count: Callable[[], int]) -> None:
        """Where the gauge of open predictions comes from: the engine, which also knows those it found again."""
        self._open = open_count

    def render(self) -> bytes:
        """Prometheus text, to be sent as CONTENT_TYPE. Takes milliseconds: with many series, off the event loop."""
        return generate_latest(self._registry)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._provider.shutdown)

    def _observe_open(self, options: CallbackOptions) -> Iterable[Observation]:
        if self._open is not None:
            yield Observation(self._open())

    def _observe_breakers(self, options: CallbackOptions) -> Iterable[Observation]:
        for offer, state in list(self._breakers.items()):
            yield Observation(BREAKER_STATES.get(BreakerState(state), 0), {"offer": offer})

    def _observe_local(self, options: CallbackOptions) -> Iterable[Observation]:
        if self._local_up is not None:
            yield Observation(int(self._local_up))

    def _set(self, *pairs: str) -> Mapping[str, str | int]:
        """The attributes `name, value, name, value …`, always as the same object."""
        known = self._sets.get(pairs)
        if known is None:
            known = dict(zip(pairs[::2], pairs[1::2], strict=True))
            self._remember(pairs, known)
        return known

    def _remember(self, key: tuple[str, ...], attributes: Mapping[str, str | int]) -> None:
        if len(self._sets) < MOST_SERIES:
            self._sets[key] = attributes


def _seconds(begin: datetime, end: datetime) -> float:
    # Begin may be the provider's clock and end ours.
    return max(0.0, (end - begin).total_seconds())


def _came_after_failure(winner: Attempt, attempts: Iterable[Attempt]) -> bool:
    return any(attempt.number < winner.number and attempt.failure is not None for attempt in attempts)
