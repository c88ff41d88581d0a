from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from gateway.contract.errors import ConfigurationError
from gateway.contract.prediction import Status
from gateway.telemetry.tracing import Tracing, tracing_from
from tests.unit.telemetry.made import at, attempt, lost, prediction, won


def drawn(sampler: Sampler = ALWAYS_ON) -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


def test_a_prediction_is_one_trace_with_a_span_per_attempt_in_its_own_times() -> None:
    tracing, exporter = drawn()
    tracing.prediction_ended(prediction(lost(1, "cheap"), won(2, "local", is_fallback=True)))
    first, second, root = exporter.get_finished_spans()
    assert root.parent is None
    assert {first.parent.span_id, second.parent.span_id} == {root.context.span_id}
    assert {first.context.trace_id, second.context.trace_id} == {root.context.trace_id}
    assert root.end_time - root.start_time == 4_000_000_000
    assert second.start_time == int(at(2).timestamp()) * 1_000_000_000
    assert second.end_time - second.start_time == 2_500_000_000
    assert first.attributes["error.type"] == "model_failed"
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["turnout.cost.nanos"] == 2_300_000
    assert second.attributes["turnout.attempt.is_fallback"] is True
    assert [event.name for event in second.events] == ["accepted", "running"]


def test_an_attempt_that_is_still_open_ends_with_its_prediction() -> None:
    tracing, exporter = drawn()
    tracing.prediction_ended(prediction(attempt(1), won(2)))
    assert exporter.get_finished_spans()[0].end_time == int(at(4).timestamp()) * 1_000_000_000


def test_no_span_says_what_was_asked_or_answered() -> None:
    tracing, exporter = drawn()
    tracing.prediction_ended(prediction(lost(1), status=Status.FAILED, error="CUDA out of memory"))
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    for private in ("private", "CUDA", "s" * 43, "b" * 64):
        assert all(private not in span.to_json() for span in spans)


def test_where_nobody_samples_no_attempt_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing, exporter = drawn(ALWAYS_OFF)
    monkeypatch.setattr(Tracing, "_draw", lambda *args: pytest.fail("drawn for nobody"))
    tracing.prediction_ended(prediction(lost(1), won(2)))
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("environ", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": " "}])
def test_there_is_no_tracing_unless_the_environment_asks(environ: dict[str, str]) -> None:
    assert tracing_from(environ) is None


def test_the_sdk_can_be_switched_off_as_opentelemetry_says() -> None:
    assert tracing_from({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}) is None


def test_an_exporter_named_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(ConsoleSpanExporter, "export", lambda self, spans: sent.extend(span.name for span in spans))
    tracing = tracing_from({"OTEL_TRACES_EXPORTER": "console"}, version="1.2.3")
    assert tracing is not None
    tracing.prediction_ended(prediction(won(1)))
    tracing.close()
    assert sent == ["attempt cheap", "predict acme/up"]


def test_an_exporter_that_is_not_installed_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r'^OTEL_TRACES_EXPORTER: no exporter "zipper" is installed; pip '):
        tracing_from({"OTEL_TRACES_EXPORTER": "zipper"})
