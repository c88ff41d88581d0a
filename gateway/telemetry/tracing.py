"""Spans: one trace per prediction, drawn from what is stored, under ids that were passed on before. Keeps no state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.observer import DeliveryTry, Observer
from gateway.contract.prediction import Prediction, Status
from gateway.contract.trace import (
    attempt_span_id,
    delivery_span_id,
    flags,
    parent_id,
    prediction_span_id,
    read_traceparent,
    trace_id,
    traceparent,
)

_OPERATION = "predict"


class DerivedIds(IdGenerator):
    """The ids that the next span is to have; random ones where nobody asks. For one thread."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._trace: int | None = None
        self._span: int | None = None

    @contextmanager
    def being(self, trace_id: str, span_id: str) -> Iterator[None]:
        self._trace, self._span = int(trace_id, 16), int(span_id, 16)
        try:
            yield
        finally:
            self._trace = self._span = None

    def generate_trace_id(self) -> int:
        return self._random.generate_trace_id() if self._trace is None else self._trace

    def generate_span_id(self) -> int:
        return self._random.generate_span_id() if self._span is None else self._span

    def is_trace_id_random(self) -> bool:
        return False


class Tracing(Observer):
    """
    Draws a prediction and its attempts when it ends, from what is stored of it: nothing is held meanwhile, and a
    restart loses no trace. Accepts, callbacks and deliveries are drawn as they happen, into the same trace.

    The ids are derived from the prediction's, so that `attempt_context` and `delivery_context`, which are passed on
    long before, name spans that will be drawn. Sampling must depend on trace id and parent alone, as OpenTelemetry's
    own samplers do. Spans carry ids and codes, never inputs, outputs or the words of an upstream.
    """

    def __init__(
        self, exporters: Iterable[SpanExporter], *, sampler: Sampler | None = None, version: str = "", name: str = ""
    ) -> None:
        self._ids = DerivedIds()
        self._provider = TracerProvider(
            sampler=sampler,  # None: as OTEL_TRACES_SAMPLER says, or all that the caller's own trace wants
            resource=Resource.create({"service.name": name or "turnout", "service.version": version}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Tracer = self._provider.get_tracer("turnout")

    # -- what is passed on ---------------------------------------------------------------------------------------

    def attempt_context(self, prediction: Prediction, number: int) -> str:
        """The traceparent of an attempt that is about to be sent."""
        return traceparent(trace_id(prediction), attempt_span_id(prediction, number), self._flags(prediction))

    def delivery_context(self, prediction: Prediction, delivery: str, number: int) -> str:
        return traceparent(trace_id(prediction), delivery_span_id(delivery, number), self._flags(prediction))

    def _flags(self, prediction: Prediction) -> int:
        parent = _callers_context(prediction)
        result = self._provider.sampler.should_sample(
            parent, int(trace_id(prediction), 16), _name(prediction), SpanKind.SERVER
        )
        random = flags(prediction) & TraceFlags.RANDOM_TRACE_ID
        return (0 if result.decision is Decision.DROP else int(TraceFlags.SAMPLED)) | random

    # -- what is drawn -------------------------------------------------------------------------------------------

    def prediction_accepted(self, prediction: Prediction, seconds: float) -> None:
        begun_at = prediction.created_at
        span = self._tracer.start_span(
            "accept",
            context=self._inside(prediction, prediction_span_id(prediction)),
            start_time=_nanos(begun_at),
        )
        span.end(_nanos(begun_at + timedelta(seconds=seconds)))

    def prediction_ended(self, prediction: Prediction) -> None:
        with self._ids.being(trace_id(prediction), prediction_span_id(prediction)):
            root = self._tracer.start_span(
                _name(prediction),
                context=_callers_context(prediction),
                kind=SpanKind.SERVER,
                start_time=_nanos(prediction.created_at),
            )
        if root.is_recording():
            root.set_attributes(_root_attributes(prediction))
            parent = trace.set_span_in_context(root, Context())
            for attempt in prediction.attempts:
                self._draw(attempt, prediction, parent)
            if prediction.status in (Status.FAILED, Status.ABORTED):
                root.set_status(StatusCode.ERROR, prediction.failure.code if prediction.failure else None)
        root.end(_nanos(prediction.completed_at or prediction.created_at))

    def _draw(self, attempt: Attempt, prediction: Prediction, parent: Context) -> None:
        with self._ids.being(trace_id(prediction), attempt_span_id(prediction, attempt.number)):
            span: Span = self._tracer.start_span(
                f"attempt {attempt.provider}",
                context=parent,
                kind=SpanKind.CLIENT,
                start_time=_nanos(attempt.begun_at),
                attributes={
                    "gen_ai.operation.name": _OPERATION,
                    "gen_ai.provider.name": attempt.provider,
                    "gen_ai.request.model": attempt.remote,
                    "turnout.offer": attempt.offer,
                    "turnout.attempt.number": attempt.number,
                    "turnout.attempt.status": attempt.status.value,
                    "turnout.attempt.is_fallback": attempt.is_fallback,
                },
            )
        for name, at in (("accepted", attempt.accepted_at), ("running", attempt.running_at)):
            if at is not None:
                span.add_event(name, timestamp=_nanos(at))
        if attempt.cost.nanos is not None:
            span.set_attribute("turnout.cost.nanos", attempt.cost.nanos)
            span.set_attribute("turnout.cost.basis", attempt.cost.basis.value)
        if attempt.failure is not None:
            span.set_attribute("error.type", attempt.failure.code)
        if attempt.status in (AttemptStatus.FAILED, AttemptStatus.REJECTED, AttemptStatus.ABANDONED):
            span.set_status(StatusCode.ERROR, attempt.failure.code if attempt.failure else None)
        # A loser may still be open when the prediction ends: its span ends there.
        span.end(_nanos(attempt.ended_at or prediction.completed_at or attempt.begun_at))

    def callback_told(self, prediction: Prediction, attempt: int, outcome: str, begun_at: datetime, trace: str) -> None:
        """Under its attempt, and linked to the provider's own span, if it named one."""
        theirs = _context_of(read_traceparent(trace))
        span = self._tracer.start_span(
            "callback",
            context=self._inside(prediction, attempt_span_id(prediction, attempt)),
            kind=SpanKind.SERVER,
            start_time=_nanos(begun_at),
            attributes={"turnout.outcome": outcome, "turnout.attempt.number": attempt},
            links=[Link(theirs)] if theirs is not None else [],
        )
        span.end()

    def delivery_made(self, prediction: Prediction, tried: DeliveryTry) -> None:
        context = self._inside(prediction, prediction_span_id(prediction))
        with self._ids.being(trace_id(prediction), delivery_span_id(tried.delivery, tried.number)):
            span = self._tracer.start_span(
                f"deliver {tried.event}", context=context, kind=SpanKind.CLIENT, start_time=_nanos(tried.begun_at)
            )
        span.set_attributes(
            {
                "http.request.method": "POST",
                "turnout.delivery.id": tried.delivery,
                "turnout.delivery.number": tried.number,
                "turnout.outcome": tried.outcome,
            }
        )
        if tried.status is not None:
            span.set_attribute("http.response.status_code", tried.status)
        if tried.outcome != "delivered":
            span.set_status(StatusCode.ERROR, tried.outcome)
        span.end(_nanos(tried.begun_at + timedelta(seconds=tried.seconds)))

    def close(self) -> None:
        """Send what is left. Waits for the exporters: call it off the event loop."""
        self._provider.shutdown()

    def _inside(self, prediction: Prediction, span_id: str) -> Context:
        """The context below a span that is drawn elsewhere, or will be."""
        context = SpanContext(
            int(trace_id(prediction), 16),
            int(span_id, 16),
            is_remote=False,
            trace_flags=TraceFlags(self._flags(prediction)),
        )
        return trace.set_span_in_context(NonRecordingSpan(context), Context())


def _callers_context(prediction: Prediction) -> Context:
    """The caller's span, if it named one: sampled or not as the caller has it."""
    if not parent_id(prediction):
        return Context()
    theirs = _context_of(prediction.request.trace)
    return Context() if theirs is None else trace.set_span_in_context(NonRecordingSpan(theirs), Context())


def _context_of(traceparent: str) -> SpanContext | None:
    if not traceparent:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _name(prediction: Prediction) -> str:
    return f"{_OPERATION} {prediction.request.model}"


def _root_attributes(prediction: Prediction) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.request.model": prediction.request.model,
        "turnout.prediction.id": prediction.id,
        "turnout.prediction.status": prediction.status.value,
        "turnout.prediction.attempts": len(prediction.attempts),
    }
    if prediction.plan is not None:
        attributes["turnout.policy"] = prediction.plan.policy
    if prediction.failure is not None:
        attributes["error.type"] = prediction.failure.code
    return attributes


def _nanos(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
