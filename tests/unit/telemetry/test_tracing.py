from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from gateway.contract.observer import DeliveryTry
from gateway.contract.prediction import Status
from gateway.contract.trace import read_traceparent, trace_id
from gateway.telemetry.tracing import Tracing
from tests.unit.telemetry.made import at, attempt, lost, prediction, won

CALLER = f"00-{'c' * 32}-{'d' * 16}-01"


class Drawn:
    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing([self._exporter], sampler=sampler)

    def spans(self) -> Mapping[str, Any]:
        """By name."""
        self.tracing._provider.force_flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}


def tried(number: int = 1, outcome: str = "delivered", status: int | None = 200) -> DeliveryTry:
    return DeliveryTry(
        delivery="msg_1",
        event="completed",
        number=number,
        outcome=outcome,
        status=status,
        begun_at=at(5),
        seconds=0.25,
    )


def ids(span: Any) -> tuple[str, str]:
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_a_prediction_is_one_trace_with_a_span_per_attempt_in_its_own_times() -> None:
    drawn = Drawn()
    drawn.tracing.prediction_ended(prediction(lost(1, "cheap"), won(2, "local", is_fallback=True)))
    spans = drawn.spans()
    first, second, root = spans["attempt cheap"], spans["attempt local"], spans["predict acme/up"]
    assert root.parent is None
    assert {first.parent.span_id, second.parent.span_id} == {root.context.span_id}
    assert {first.context.trace_id, second.context.trace_id} == {root.context.trace_id}
    assert root.end_time - root.start_time == 4_000_000_000
    assert second.start_time == int(at(2).timestamp()) * 1_000_000_000
    assert second.end_time - second.start_time == 2_500_000_000
    assert first.attributes["error.type"] == "model_failed"
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["turnout.cost.nanos"] == 2_300_000
    assert second.attributes["turnout.cost.basis"] == "computed"
    assert second.attributes["turnout.attempt.is_fallback"] is True
    assert [event.name for event in second.events] == ["accepted", "running"]


@pytest.mark.parametrize("trace", ["", CALLER])
def test_everything_of_a_prediction_is_in_one_trace_and_below_what_it_belongs_to(trace: str) -> None:
    drawn = Drawn()
    done = prediction(lost(1, "cheap"), won(2, "local"), trace=trace)
    drawn.tracing.prediction_accepted(replace(done, attempts=(), completed_at=None), 0.003)
    drawn.tracing.callback_told(done, 2, "applied", at(4), "")
    drawn.tracing.prediction_ended(done)
    drawn.tracing.delivery_made(done, tried())
    spans = drawn.spans()
    assert len(spans) == 6
    assert {ids(span)[0] for span in spans.values()} == {trace_id(done)}
    root, second = spans["predict acme/up"], spans["attempt local"]
    assert (f"{root.parent.span_id:016x}" if root.parent else "") == trace[36:52]
    for name in ("accept", "attempt cheap", "attempt local", "deliver completed"):
        assert spans[name].parent.span_id == root.context.span_id, name
    assert spans["callback"].parent.span_id == second.context.span_id
    assert spans["accept"].end_time - spans["accept"].start_time == 3_000_000
    assert spans["deliver completed"].kind is SpanKind.CLIENT
    assert spans["deliver completed"].attributes["http.response.status_code"] == 200


def test_a_callback_is_linked_to_the_providers_span() -> None:
    drawn = Drawn()
    drawn.tracing.callback_told(prediction(won(1)), 1, "applied", at(4), f"00-{'e' * 32}-{'f' * 16}-01")
    (link,) = drawn.spans()["callback"].links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == ("e" * 32, "f" * 16)


@pytest.mark.parametrize("trace", ["", CALLER])
def test_the_context_that_was_passed_on_is_the_span_that_is_drawn_after_a_restart(trace: str) -> None:
    before, after = Drawn().tracing, Drawn()
    open_ = prediction(attempt(1), status=Status.STARTING, trace=trace)
    attempt_context, delivery_context = before.attempt_context(open_, 1), before.delivery_context(open_, "msg_1", 2)
    done = replace(open_, attempts=(won(1),), status=Status.SUCCEEDED, completed_at=at(4))
    after.tracing.prediction_ended(done)
    after.tracing.delivery_made(done, tried(2))
    spans = after.spans()
    for context, name in ((attempt_context, "attempt cheap"), (delivery_context, "deliver completed")):
        assert context == read_traceparent(context), "as W3C has it"
        assert context == "00-{}-{}-01".format(*ids(spans[name]))


@pytest.mark.parametrize(
    ("sampler", "trace", "sampled"),
    [
        (ALWAYS_OFF, CALLER, False),
        (ALWAYS_ON, "", True),
        (ParentBased(ALWAYS_ON), f"{CALLER[:-2]}00", False),
        (ParentBased(ALWAYS_OFF), CALLER, True),
        (TraceIdRatioBased(0.5), f"00-{'0' * 31}1-{'d' * 16}-00", True),
        (TraceIdRatioBased(0.5), f"00-{'f' * 32}-{'d' * 16}-01", False),
    ],
)
def test_whether_it_is_sampled_is_decided_once_and_told_to_providers_and_receivers(
    sampler: Sampler, trace: str, sampled: bool
) -> None:
    drawn = Drawn(sampler)
    done = prediction(won(1), trace=trace)
    assert drawn.tracing.attempt_context(done, 1)[-2:] == ("01" if sampled else "00")
    assert drawn.tracing.delivery_context(done, "msg_1", 1)[-2:] == ("01" if sampled else "00")
    drawn.tracing.prediction_accepted(done, 0.1)
    drawn.tracing.callback_told(done, 1, "applied", at(4), "")
    drawn.tracing.prediction_ended(done)
    drawn.tracing.delivery_made(done, tried())
    assert len(drawn.spans()) == (5 if sampled else 0)


def test_of_many_predictions_without_a_callers_trace_a_ratio_samples_its_share_whole() -> None:
    drawn = Drawn(ParentBased(TraceIdRatioBased(0.3)))
    sampled = 0
    for number in range(400):
        done = prediction(won(1), id=f"{number:026d}")
        before = len(drawn._exporter.get_finished_spans())
        drawn.tracing.prediction_ended(done)
        drawn.tracing.prediction_accepted(done, 0.1)
        drawn.tracing._provider.force_flush()
        assert len(drawn._exporter.get_finished_spans()) - before in (0, 3)
        sampled += len(drawn._exporter.get_finished_spans()) > before
    assert 80 < sampled < 160


def test_an_attempt_that_is_still_open_ends_with_its_prediction() -> None:
    drawn = Drawn()
    drawn.tracing.prediction_ended(prediction(attempt(1, "slow"), won(2)))
    assert drawn.spans()["attempt slow"].end_time == int(at(4).timestamp()) * 1_000_000_000


def test_a_delivery_that_failed_is_an_error_and_each_try_has_a_span_of_its_own() -> None:
    drawn = Drawn()
    done = prediction(won(1))
    drawn.tracing.delivery_made(done, tried(1, "retry", None))
    first = drawn.spans()["deliver completed"]
    assert first.status.status_code is StatusCode.ERROR
    drawn.tracing.delivery_made(done, tried(2))
    second = drawn.spans()["deliver completed"]
    assert ids(first)[1] != ids(second)[1]


def test_no_span_says_what_was_asked_or_answered() -> None:
    drawn = Drawn()
    failed = lost(1)
    done = prediction(failed, status=Status.FAILED, error="CUDA out of memory", failure=failed.failure)
    drawn.tracing.prediction_accepted(done, 0.1)
    drawn.tracing.callback_told(done, 1, "applied", at(4), "a private wish")
    drawn.tracing.prediction_ended(done)
    drawn.tracing.delivery_made(done, tried())
    spans = drawn.spans()
    assert len(spans) == 5
    for private in ("private", "CUDA", "s" * 43, "b" * 64):
        assert all(private not in span.to_json() for span in spans.values())


def test_where_nobody_samples_no_attempt_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(ALWAYS_OFF)
    monkeypatch.setattr(Tracing, "_draw", lambda *args: pytest.fail("drawn for nobody"))
    drawn.tracing.prediction_ended(prediction(lost(1), won(2)))
    assert drawn.spans() == {}
