"""One trace per prediction over real sockets: from the caller, through providers and callbacks, to the receiver."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.receiver import Receiver
from tests.e2e.telemetry.collector import Collector
from tests.e2e.telemetry.scene import Caller, make_gateway
from tests.e2e.telemetry.upstream import Quoting, Refusing
from tests.waiting import until

SPAN = "cd" * 8


@dataclass
class Traced:
    gateway: GatewayProcess
    upstream: Quoting
    receiver: Receiver
    refusing: Refusing
    collector: Collector

    def spans(self, trace_id: str) -> list[Any]:
        return [span for span in self.collector.spans() if span.trace_id.hex() == trace_id]

    def until_drawn(self, trace_id: str, *names: str) -> dict[str, Any]:
        """The spans of one trace by name, once all of these are there."""
        self.collector.until(lambda: set(names) <= {span.name for span in self.spans(trace_id)})
        return {span.name: span for span in self.spans(trace_id)}


@pytest.fixture
def trace() -> str:
    """A caller's own trace, 32 hex."""
    return uuid.uuid4().hex


@pytest.fixture(scope="module", params=["traced", "untraced"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A gateway that draws spans; with `untraced` one that draws none."""
    with Quoting() as upstream, Receiver() as receiver, Refusing() as refusing, Collector() as collector:
        made = make_gateway(
            tmp_path_factory.mktemp("traced") / "gateway",
            upstream=upstream.url,
            receiver=receiver.place,
            refusing=refusing.place,
            otlp=collector.url if request.param == "traced" else "",
            environ={"OTEL_BSP_SCHEDULE_DELAY": "50"},
        )
        with made:
            yield Traced(made, upstream, receiver, refusing, collector)


@pytest.mark.parametrize("traced", ["traced"], indirect=True)
def test_a_callers_trace_goes_through_providers_and_callbacks_to_the_receiver(traced: Traced, trace: str) -> None:
    with traced.gateway.client() as client:
        done = Caller(client).post(
            "later",
            "later",
            webhook=f"{traced.receiver.url}/hook",
            more_headers={"traceparent": f"00-{trace}-{SPAN}-01"},
        )
    assert done["status"] == "succeeded"
    (arrived, *_) = traced.receiver.until("/hook", lambda arrived: len(arrived) >= 1)
    names = ("accept", "predict acme/later", "attempt second", "callback", "deliver completed")
    spans = traced.until_drawn(trace, *names)
    root, attempt, delivery = spans["predict acme/later"], spans["attempt second"], spans["deliver completed"]
    assert root.parent_span_id.hex() == SPAN
    for name in ("accept", "attempt second", "deliver completed"):
        assert spans[name].parent_span_id == root.span_id, name
    assert spans["callback"].parent_span_id == attempt.span_id
    assert [link.trace_id.hex() for link in spans["callback"].links] == ["e" * 32]
    # What went over the wire is what was drawn.
    assert traced.upstream.traceparents[-1] == f"00-{trace}-{attempt.span_id.hex()}-01"
    assert arrived.headers["traceparent"] == f"00-{trace}-{delivery.span_id.hex()}-01"
    # Every line of the log that is about it says so.
    lines = [json.loads(line) for line in traced.gateway.log.splitlines()]
    about = [line for line in lines if line.get("prediction") == done["id"]]
    assert len(about) >= 7
    assert {line["trace_id"] for line in about} == {trace}


@pytest.mark.parametrize("traced", ["traced"], indirect=True)
def test_a_trace_survives_the_death_of_the_gateway_between_an_attempt_and_its_end(traced: Traced, trace: str) -> None:
    with traced.gateway.client() as client:
        begun = Caller(client).begin(
            "later",
            "hang",
            webhook=f"{traced.receiver.url}/late",
            more_headers={"traceparent": f"00-{trace}-{SPAN}-01"},
        )

        def is_running() -> bool:
            return bool(client.get(f"/v1/predictions/{begun['id']}").json()["status"] == "processing")

        until(is_running, seconds=15, or_else=lambda: f"{begun['id']} does not run: {traced.gateway.log[-4000:]}")
    job = list(traced.upstream.jobs.values())[-1]
    traced.gateway.kill()
    job.status = "succeeded"
    traced.gateway.start()
    traced.receiver.until("/late", lambda arrived: len(arrived) >= 1)
    spans = traced.until_drawn(trace, "predict acme/later", "attempt second", "deliver completed")
    # The second process drew the span whose id the first one had told the provider.
    assert job.traceparent == f"00-{trace}-{spans['attempt second'].span_id.hex()}-01"
    assert spans["attempt second"].parent_span_id == spans["predict acme/later"].span_id
    assert spans["predict acme/later"].parent_span_id.hex() == SPAN
    ids = [attribute.value.string_value for attribute in spans["predict acme/later"].attributes]
    assert begun["id"] in ids


@pytest.mark.parametrize("traced", ["traced"], indirect=True)
def test_without_a_callers_trace_there_is_one_all_the_same_and_every_try_to_deliver_is_in_it(traced: Traced) -> None:
    with traced.gateway.client() as client:
        done = Caller(client).post("refuse-saved", "fail", webhook=f"{traced.refusing.url}/500")
    assert done["status"] == "succeeded"
    (own,) = {json.loads(line)["trace_id"] for line in traced.gateway.log.splitlines() if done["id"] in line}
    traced.collector.until(lambda: [span.name for span in traced.spans(own)].count("deliver completed") == 2)
    spans = traced.until_drawn(own, "accept", "attempt first", "attempt second", "predict acme/refuse-saved")
    assert not spans["predict acme/refuse-saved"].parent_span_id
    told = {headers["traceparent"][36:52] for headers in traced.refusing.headers}
    drawn = {span.span_id.hex() for span in traced.spans(own) if span.name == "deliver completed"}
    assert told == drawn
    assert len(told) == 2


@pytest.mark.parametrize("traced", ["traced"], indirect=True)
def test_a_caller_who_is_not_sampled_is_not_drawn_and_says_so_onwards(traced: Traced, trace: str) -> None:
    with traced.gateway.client() as client:
        caller = Caller(client)
        caller.post("later", "later", more_headers={"traceparent": f"00-{trace}-{SPAN}-00"})
        caller.post("later", "later", more_headers={"traceparent": "nonsense"})
    unsampled, sampled = traced.upstream.traceparents[-2:]
    assert (unsampled[-2:], sampled[-2:]) == ("00", "01")
    # What came later is there, and so would be what came before.
    traced.until_drawn(sampled[3:35], "predict acme/later")
    assert traced.spans(trace) == []


@pytest.mark.parametrize("traced", ["untraced"], indirect=True)
def test_a_gateway_that_draws_nothing_hands_on_what_it_was_given_and_invents_nothing(
    traced: Traced, trace: str
) -> None:
    with traced.gateway.client() as client:
        caller = Caller(client)
        caller.post("later", "later", more_headers={"traceparent": f"00-{trace}-{SPAN}-01"})
        caller.post("later", "later")
    assert traced.upstream.traceparents == [f"00-{trace}-{SPAN}-01", ""]
    assert traced.collector.raw == []
