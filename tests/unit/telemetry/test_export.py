from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from gateway.contract.errors import ConfigurationError
from gateway.telemetry import export
from gateway.telemetry.export import metric_exporters_from, secrets_of, tracing_from
from tests.unit.telemetry.made import prediction, won


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": " ", "OTEL_METRICS_EXPORTER": "prometheus"},
        {
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        },
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_nothing_is_sent_anywhere_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    assert tracing_from(environ) is None
    assert metric_exporters_from(environ) == []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Which exporters were made, with what; none of them is real."""
    said: list[tuple[str, dict[str, str]]] = []

    def load(point: EntryPoint) -> object:
        return lambda **given: said.append((point.name, given)) or ConsoleSpanExporter()

    monkeypatch.setattr(EntryPoint, "load", load)
    return said


def test_the_configured_endpoint_gets_both_traces_and_metrics(made: list[tuple[str, dict[str, str]]]) -> None:
    tracing = tracing_from({"OTEL_TRACES_EXPORTER": "console"}, endpoint="http://collector:4318/")
    assert tracing is not None
    tracing.close()
    metric_exporters_from({}, endpoint="http://collector:4318/")
    assert made == [
        ("otlp_proto_http", {"endpoint": "http://collector:4318/v1/traces"}),
        ("otlp_proto_http", {"endpoint": "http://collector:4318/v1/metrics"}),
    ]


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"},
        {"OTEL_METRICS_EXPORTER": "otlp"},
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_METRICS_EXPORTER": "prometheus, otlp_proto_http"},
    ],
)
def test_opentelemetrys_own_variables_are_understood(
    environ: dict[str, str], made: list[tuple[str, dict[str, str]]]
) -> None:
    metric_exporters_from(environ)
    assert made == [("otlp_proto_http", {})], "its endpoint it reads by itself"


def test_the_exporters_of_the_extra_are_those_it_says() -> None:
    (metrics,) = metric_exporters_from({}, endpoint="http://127.0.0.1:9")
    assert isinstance(metrics, OTLPMetricExporter)
    assert metrics._endpoint == "http://127.0.0.1:9/v1/metrics"
    metrics.shutdown()
    spans = export._load("traces", "otlp_proto_http", place="here")
    assert spans is OTLPSpanExporter
    assert isinstance(metric_exporters_from({"OTEL_METRICS_EXPORTER": "console"})[0], ConsoleMetricExporter)


def test_an_exporter_named_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(ConsoleSpanExporter, "export", lambda self, spans: sent.extend(span.name for span in spans))
    tracing = tracing_from({"OTEL_TRACES_EXPORTER": "console"}, version="1.2.3")
    assert tracing is not None
    tracing.prediction_ended(prediction(won(1)))
    tracing.close()
    assert sent == ["attempt cheap", "predict acme/up"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipper"}, r'^OTEL_TRACES_EXPORTER: no exporter "zipper" is installed; '),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            r'no exporter "otlp_proto_grpc" is installed; pip install opentelemetry-exporter-otlp-proto-grpc',
        ),
    ],
)
def test_an_exporter_that_is_not_installed_is_a_fault_of_the_configuration(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        tracing_from(environ)


def test_without_the_extra_the_endpoint_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "entry_points", lambda **asked: [])
    said = r"^telemetry\.otlp_endpoint: no exporter .* is installed; pip install 'turnout\[otlp\]', or unset it$"
    with pytest.raises(ConfigurationError, match=said):
        metric_exporters_from({}, endpoint="http://collector:4318")


def test_what_is_sent_along_to_the_collector_is_secret() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic abc==, x-tenant = me",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=k-123",
    }
    assert secrets_of(environ) == ("Basic abc==", "me", "k-123")
    assert secrets_of({}) == ()
