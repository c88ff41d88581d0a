"""Nothing a caller or a provider says, and no secret, leaves by a log, a metric or a span: searched for, not hoped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.contract.key import new_key
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.telemetry.collector import Collector
from tests.e2e.telemetry.scene import FAULTS, Caller, make_gateway
from tests.e2e.telemetry.upstream import Quoting, Refusing

# Everything below that must not get out has this word in it, and nothing else has.
WORD = "canary"
ENVIRON = {
    "FIRST_TOKEN": "canary-token-of-first",
    "SECOND_TOKEN": "canary-token-of-second",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary-header-of-the-collector",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
}
INPUT = {"text": "canary in the prompt", "token": "canary in a secret field"}
HEADERS = {
    "turnout-labels": "team=canary-label",
    "user-agent": "canary-agent",
    "x-anything": "canary-header",
    "turnout-policy": "hasty",
}
# Bugs that would let something out: an error's words in the log and as a metric's attribute, the input in a span.
PLANTED = """
from gateway.telemetry import metrics, tracing, transition

transition.reason_of = lambda failure: failure.message
attributes = tracing._root_attributes
tracing._root_attributes = lambda p: attributes(p) | {"turnout.input": str(p.request.input)}
moved = metrics.Metrics.failed_over
metrics.Metrics.failed_over = lambda self, p, failed: self._created.add(failed.failure.message)
"""


@dataclass
class Scene:
    gateway: GatewayProcess
    caller: Caller
    collector: Collector
    receiver: Receiver
    refusing: Refusing
    metrics: list[str]

    def leaks(self) -> dict[str, list[str]]:
        """What got out, by the way it took. The process has ended: all was sent."""
        out = (self.gateway.folder / "stdout.log").read_text(errors="replace")
        exported = b"\n".join(self.collector.raw).decode("latin-1")
        found = {"stdout": out, "log": self.gateway.log, "metrics": "\n".join(self.metrics), "otlp": exported}
        return {way: near for way, text in found.items() if (near := _near(text))}


def _near(text: str) -> list[str]:
    return [text[max(0, at.start() - 120) : at.end() + 40] for at in re.finditer(WORD, text, re.IGNORECASE)]


@contextmanager
def scene(folder: Path, *, log_format: str, environ: dict[str, str] | None = None) -> Iterator[Scene]:
    key = new_key(WORD).text
    with Quoting() as upstream, Receiver() as receiver, Refusing() as refusing, Collector() as collector:
        running = make_gateway(
            folder / "gateway",
            upstream=upstream.url,
            receiver=receiver.place,
            refusing=refusing.place,
            otlp=collector.url,
            log_format=log_format,
            key=key,
            environ=ENVIRON | (environ or {}),
        )
        with running, running.client() as client:
            yield Scene(running, Caller(client), collector, receiver, refusing, [])


def _all_that_can_go_wrong(scene: Scene) -> None:
    caller, hook = scene.caller, f"{scene.refusing.url}/500?token=canary-in-the-query"
    for fault in FAULTS:
        caller.post(f"{fault}-saved", fault, input=INPUT, webhook=f"{scene.receiver.url}/?canary-hook")
        caller.post(f"{fault}-alone", fault, input=INPUT, webhook=hook, more_headers=HEADERS)
    caller.post("later", "later", input=INPUT, webhook=f"{scene.refusing.url}/410?canary")
    caller.post("file", "file", input=INPUT)
    caller.post("file", "lost", input=INPUT)
    caller.upload("canary-file.png")
    held = caller.begin("later", "hang", input=INPUT)
    caller.cancel(held["id"])
    _bad_requests(scene)


def _bad_requests(scene: Scene) -> None:
    client = scene.caller.client
    image = "data:image/png;base64,canary"
    for method, path, body in (
        ("POST", "/v1/models/acme/later/predictions", '{"input": {"do": 5, "text": "canary"}}'),
        ("POST", "/v1/models/acme/later/predictions", '{"input": {"canary'),
        (
            "POST",
            "/v1/models/acme/later/predictions",
            '{"input": {"do": "echo"}, "webhook": "http://10.0.0.1/?canary"}',
        ),
        ("POST", "/v1/models/canary/canary/predictions", "{}"),
        ("POST", "/v1/predictions", '{"version": "canary", "input": {}}'),
        ("POST", "/v1/predictions", f'{{"version": "turnout/upscaler", "input": {{"image": "{image}"}}}}'),
        ("POST", "/cb/canary-that-nobody-gave-out-canary", '{"canary": 1}'),
        ("GET", "/v1/predictions/canary", ""),
        ("GET", "/canary?canary", ""),
        ("CANARY", "/v1/predictions", ""),
    ):
        headers = {"prefer": "wait=5", "idempotency-key": f"canary-{len(body)}", "content-type": "application/json"}
        client.request(method, path, content=body, headers=headers)
    client.get("/v1/predictions", headers={"authorization": "Bearer canary-key"})
    with httpx.Client(base_url=scene.gateway.url, trust_env=False) as stranger:
        stranger.get("/v1/predictions", headers={"authorization": "Token canary"})


@pytest.mark.timeout(60)  # every way of failing there is, some of them slow, against a real process
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_and_no_payload_leaves_by_a_log_a_metric_or_a_span(log_format: str, tmp_path: Path) -> None:
    with scene(tmp_path, log_format=log_format) as made:
        _all_that_can_go_wrong(made)
        made.metrics.append(made.caller.metrics())
    assert made.leaks() == {}
    # And there was something to search: the failures were logged, counted and drawn.
    for code in ("rate_limited", "credential_refused", "outcome_unknown", "result_lost", "output_moderated"):
        assert code in made.gateway.log, code
        assert code in made.metrics[0], code
    names = {span.name for span in made.collector.spans()}
    assert {"accept", "attempt first", "attempt second", "callback", "deliver completed"} <= names
    assert "turnout.attempts" in made.collector.metrics()
    assert made.collector.headers[0]["authorization"] == ENVIRON["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")[2]


def test_a_planted_leak_is_found_wherever_it_is(tmp_path: Path) -> None:
    """The test above can fail: three bugs, each let in by what the interpreter loads at its start, are all found."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    with scene(tmp_path, log_format="json", environ={"PYTHONPATH": str(tmp_path)}) as made:
        made.caller.post("refuse-saved", "fail", input=INPUT)
        made.metrics.append(made.caller.metrics())
    leaks = made.leaks()
    assert set(leaks) == {"log", "metrics", "otlp"}
    assert any("turnout.input" in near for near in leaks["otlp"])
