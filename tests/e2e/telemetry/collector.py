"""An OpenTelemetry collector on a real socket: keeps what was sent to it, decoded. Forwards nothing."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.server import Answering, LoopbackServer


class Collector(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(_Collecting)
        self._news = threading.Condition()
        self._spans: list[Any] = []
        self._metrics: dict[str, Any] = {}
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []  # as it came, uncompressed

    def spans(self) -> list[Any]:
        with self._news:
            return list(self._spans)

    def metrics(self) -> dict[str, Any]:
        """The latest of each name."""
        with self._news:
            return dict(self._metrics)

    def until(self, holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
        """Returns as soon as what has come satisfies `holds`."""
        until = time.monotonic() + seconds
        with self._news:
            while not holds():
                if not self._news.wait(until - time.monotonic()):
                    raise AssertionError(f"after {seconds} s there are only {[span.name for span in self._spans]}")

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        with self._news:
            self.raw.append(body)
            self.headers.append(headers)
            if path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                self._spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
            else:
                metrics = ExportMetricsServiceRequest.FromString(body)
                for resource in metrics.resource_metrics:
                    self._metrics |= {one.name: one for scope in resource.scope_metrics for one in scope.metrics}
            self._news.notify_all()


class _Collecting(Answering):
    def do_POST(self) -> None:  # noqa: N802 - the standard library calls it so
        body = self.body()
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.owner.take(self.path, body, headers)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()
