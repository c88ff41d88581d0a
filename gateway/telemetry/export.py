"""Where spans and numbers are sent: by `[telemetry] otlp_endpoint`, or by OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from gateway.contract.errors import ConfigurationError, refuse
from gateway.telemetry.tracing import Tracing

_INSTALL = "pip install 'turnout[otlp]', or unset it"
_PACKAGES = {"otlp_proto_grpc": "pip install opentelemetry-exporter-otlp-proto-grpc, or unset it"}
# Headers for a collector are its credentials.
_SECRETS = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
)


def tracing_from(environ: Mapping[str, str], *, endpoint: str = "", version: str = "") -> Tracing | None:
    """
    The Tracing that is asked for, None if none is (the usual case).

    `endpoint` wins, such as http://collector:4318; else an OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER asks.
    Sampling and the rest are set by OpenTelemetry's variables. Raises ConfigurationError for a missing exporter.
    """
    exporters: list[SpanExporter] = _exporters("traces", environ, endpoint)
    if not exporters:
        return None
    return Tracing(exporters, version=version, name=environ.get("OTEL_SERVICE_NAME", ""))


def metric_exporters_from(environ: Mapping[str, str], *, endpoint: str = "") -> list[MetricExporter]:
    """As for traces, by OTEL_METRICS_EXPORTER; `prometheus` there is /metrics, which is served anyway."""
    return _exporters("metrics", environ, endpoint)


def faults_of(environ: Mapping[str, str], *, endpoint: str = "") -> list[str]:
    """What `tracing_from` and `metric_exporters_from` would refuse, a line for each. Makes no exporter."""
    faults: dict[str, None] = {}
    for signal in ("traces", "metrics"):
        try:
            _asked(signal, environ, endpoint)
        except ConfigurationError as error:
            faults[str(error)] = None
    return list(faults)


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of the headers that exporters send: what no log may show."""
    pairs = ",".join(environ.get(name, "") for name in _SECRETS).split(",")
    return tuple(value.strip() for pair in pairs if (value := pair.partition("=")[2]).strip())


def _exporters(signal: str, environ: Mapping[str, str], endpoint: str) -> list[Any]:
    return [make() for make in _asked(signal, environ, endpoint)]


def _asked(signal: str, environ: Mapping[str, str], endpoint: str) -> list[Callable[[], Any]]:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    if endpoint:
        url = f"{endpoint.rstrip('/')}/v1/{signal}"
        return [partial(_load(signal, "otlp_proto_http", place="telemetry.otlp_endpoint"), endpoint=url)]
    asked = environ.get(variable, "")
    place = variable
    if not asked and _is_endpoint_set(signal, environ):
        asked, place = "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT"  # whose default exporter it is
    names = [name.strip() for name in asked.split(",")]
    names = [name for name in names if name not in ("", "none") and (signal, name) != ("metrics", "prometheus")]
    return [_load(signal, _meant(name, signal, environ), place=place) for name in names]


def _is_endpoint_set(signal: str, environ: Mapping[str, str]) -> bool:
    return any(
        environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    )


def _meant(name: str, signal: str, environ: Mapping[str, str]) -> str:
    """`otlp` is one of two packages, by the protocol."""
    if name != "otlp":
        return name
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"


def _load(signal: str, name: str, *, place: str) -> Any:
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found:
        raise _missing(name, place)
    try:
        return found[0].load()
    except ImportError:
        raise _missing(name, place) from None


def _missing(name: str, place: str) -> ConfigurationError:
    return refuse(f'no exporter "{name[:40]}" is installed', place=place, remedy=_PACKAGES.get(name, _INSTALL))
