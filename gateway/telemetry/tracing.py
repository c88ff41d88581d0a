"""Spans, only where the OTEL_* environment asks for them: a trace per prediction, a span per attempt. No state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import refuse
from gateway.contract.observer import Observer
from gateway.contract.prediction import Prediction, Status


class Tracing(Observer):
    """
    Draws a prediction's spans when it ends, from what is stored of it.

    So nothing is held meanwhile, a restart loses no trace, and a prediction nobody samples costs one look.
    Spans carry ids and codes, never inputs, outputs or the words of an upstream.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("turnout")

    def prediction_ended(self, prediction: Prediction) -> None:
        root = self._tracer.start_span(
            f"predict {prediction.request.model}",
            context=Context(),
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
        span: Span = self._tracer.start_span(
            f"attempt {attempt.provider}",
            context=parent,
            kind=SpanKind.CLIENT,
            start_time=_nanos(attempt.begun_at),
            attributes={
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
        if attempt.failure is not None:
            span.set_attribute("error.type", attempt.failure.code)
        if attempt.status in (AttemptStatus.FAILED, AttemptStatus.REJECTED, AttemptStatus.ABANDONED):
            span.set_status(StatusCode.ERROR, attempt.failure.code if attempt.failure else None)
        # A loser may still be open when the prediction ends: its span ends there.
        span.end(_nanos(attempt.ended_at or prediction.completed_at or attempt.begun_at))

    def close(self) -> None:
        """Send what is left. Waits for the exporter: call it off the event loop."""
        self._provider.shutdown()


def tracing_from(environ: Mapping[str, str], *, version: str = "") -> Tracing | None:
    """
    The Tracing that OTEL_TRACES_EXPORTER asks for, None if it asks for none (the usual case).

    Sampling and exporters are set by OpenTelemetry's own variables. Raises ConfigurationError for an unknown exporter.
    """
    names = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    names = [name for name in names if name not in ("", "none")]
    if not names or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": environ.get("OTEL_SERVICE_NAME", "turnout"), "service.version": version}
        ),
        shutdown_on_exit=False,
    )
    for exporter in _exporters(names):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _exporters(names: Iterable[str]) -> Iterable[SpanExporter]:
    for name in names:
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
        if not found:
            raise refuse(
                f'no exporter "{name[:40]}" is installed',
                place="OTEL_TRACES_EXPORTER",
                remedy="pip install opentelemetry-exporter-otlp, or unset it",
            )
        yield found[0].load()()


def _root_attributes(prediction: Prediction) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
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
