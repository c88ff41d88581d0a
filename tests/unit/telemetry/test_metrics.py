from __future__ import annotations

import inspect
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.contract.errors import AtCapacity
from gateway.contract.observer import Observer, Observers
from gateway.contract.prediction import Status
from gateway.telemetry import metrics as module
from gateway.telemetry.metrics import MOST_SERIES, Metrics, Tally
from tests.unit.telemetry.made import lost, prediction, won


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


@pytest.fixture
async def metrics():
    made = Metrics(version="1.2.3", offers=["acme/up@cheap", "acme/up@dear"])
    yield made
    await made.aclose()


async def test_a_prediction_rescued_by_a_second_offer_is_counted_with_its_money_and_its_times(metrics: Metrics) -> None:
    failed, saved = lost(1, "cheap"), won(2, "local", is_fallback=True)
    done = prediction(failed, saved)
    metrics.prediction_created(done)
    metrics.attempt_ended(done, failed)
    metrics.failed_over(done, failed)
    metrics.attempt_ended(done, saved)
    metrics.prediction_ended(done)

    assert value(metrics, "turnout_predictions_created_total", model="acme/up") == 1
    assert value(metrics, "turnout_predictions_ended_total", model="acme/up", status="succeeded") == 1
    assert value(metrics, "turnout_predictions_rescued_total", model="acme/up", provider="local", fallback="true") == 1
    assert value(metrics, "turnout_failovers_total", model="acme/up", provider="cheap", reason="model_failed") == 1
    offer = {"provider": "cheap", "offer": "acme/up@cheap"}
    assert value(metrics, "turnout_attempts_total", **offer, outcome="model_failed") == 1
    assert value(metrics, "turnout_cost_dollars_total", provider="local", basis="computed") == pytest.approx(0.0023)
    served = {"provider": "local", "offer": "acme/up@local"}
    assert value(metrics, "turnout_attempt_queue_duration_seconds_sum", **served) == pytest.approx(0.5)
    assert value(metrics, "turnout_attempt_run_duration_seconds_sum", **served) == pytest.approx(2.0)
    assert value(
        metrics, "turnout_prediction_duration_seconds_sum", model="acme/up", status="succeeded"
    ) == pytest.approx(4.0)


async def test_an_unknown_cost_is_counted_apart_and_never_as_nothing_spent(metrics: Metrics) -> None:
    for ended in (won(1, nanos=None), lost(2), lost(3, why=AtCapacity())):
        metrics.attempt_ended(prediction(ended), ended)
    assert value(metrics, "turnout_cost_unknown_total", provider="cheap") == 2, "what was rejected ran nowhere"
    assert not [name for name, _ in samples(metrics) if name == "turnout_cost_dollars_total"]


async def test_nano_dollars_add_up_exactly_over_many_attempts(metrics: Metrics) -> None:
    cheap = won(nanos=1)
    for _ in range(1000):
        metrics.attempt_ended(prediction(cheap), cheap)
    assert value(metrics, "turnout_cost_dollars_total", provider="cheap", basis="computed") == pytest.approx(1e-6)


async def test_a_first_try_that_succeeds_is_no_rescue_even_if_a_loser_fails_later(metrics: Metrics) -> None:
    metrics.prediction_ended(prediction(won(1), lost(2)))
    assert not [name for name, _ in samples(metrics) if "rescued" in name]


async def test_no_metric_carries_an_id_or_a_word_of_input_or_output(metrics: Metrics) -> None:
    failed = lost(1)
    done = prediction(failed, status=Status.FAILED, error="CUDA out of memory")
    metrics.prediction_created(done)
    metrics.attempt_ended(done, failed)
    metrics.failed_over(done, failed)
    metrics.prediction_ended(done)
    text = metrics.render().decode()
    assert "turnout_predictions_ended_total" in text
    for private in (done.id, "private", "CUDA", "s" * 43, "b" * 64, 'owner="app"'):
        assert private not in text


async def test_requests_are_named_as_opentelemetry_names_them_and_an_invented_method_makes_no_series(
    metrics: Metrics,
) -> None:
    metrics.request_served("/v1/predictions", "POST", 201, 0.004)
    for number in range(50):
        metrics.request_served("/v1/predictions", f"HACK{number}", 405, 0.001)
    found = samples(metrics)
    route = {"http_route": "/v1/predictions"}
    count = "http_server_request_duration_seconds_count"
    posted = frozenset((route | {"http_request_method": "POST", "http_response_status_code": "201"}).items())
    other = frozenset((route | {"http_request_method": "_OTHER", "http_response_status_code": "405"}).items())
    assert found[(count, posted)] == 1
    assert found[(count, other)] == 50
    assert len([key for key in found if key[0] == count]) == 2


async def test_a_breaker_is_closed_until_it_says_otherwise(metrics: Metrics) -> None:
    metrics.breaker_changed("acme/up@cheap", "closed", "open", "five failures")
    assert value(metrics, "turnout_breaker_state", offer="acme/up@cheap") == 2
    assert value(metrics, "turnout_breaker_state", offer="acme/up@dear") == 0
    metrics.breaker_changed("acme/up@cheap", "open", "probing", "time")
    assert value(metrics, "turnout_breaker_state", offer="acme/up@cheap") == 1


async def test_open_predictions_are_asked_of_the_engine_when_scraped(metrics: Metrics) -> None:
    assert value(metrics, "turnout_predictions_open") is None
    count = 7
    metrics.observe(open_count=lambda: count)
    assert value(metrics, "turnout_predictions_open") == 7
    count = 3
    assert value(metrics, "turnout_predictions_open") == 3


async def test_the_small_announcements_all_arrive(metrics: Metrics) -> None:
    metrics.callback_received("replicate", "applied")
    metrics.poll_made("replicate", "same")
    metrics.delivery_tried("completed", "delivered", 0.2)
    metrics.artifact_kept("output", 1234)
    metrics.local_backend_changed("ready")
    assert value(metrics, "turnout_callbacks_total", provider="replicate", outcome="applied") == 1
    assert value(metrics, "turnout_polls_total", provider="replicate", outcome="same") == 1
    assert value(metrics, "turnout_deliveries_total", event="completed", outcome="delivered") == 1
    assert value(metrics, "turnout_delivery_duration_seconds_sum", outcome="delivered") == pytest.approx(0.2)
    assert value(metrics, "turnout_artifacts_total", direction="output") == 1
    assert value(metrics, "turnout_artifacts_size_bytes_total", direction="output") == 1234
    assert value(metrics, "turnout_local_backend_up") == 1
    metrics.local_backend_changed("crashed")
    assert value(metrics, "turnout_local_backend_up") == 0


async def test_two_sets_of_metrics_in_one_process_know_nothing_of_each_other(metrics: Metrics) -> None:
    other = Metrics()
    metrics.poll_made("replicate", "news")
    assert "turnout_polls" not in other.render().decode()
    await other.aclose()


async def test_a_clock_that_runs_backwards_makes_no_negative_time(metrics: Metrics) -> None:
    odd = won(1, running_at=won().ended_at, ended_at=won().begun_at)
    metrics.attempt_ended(prediction(odd), odd)
    assert value(metrics, "turnout_attempt_run_duration_seconds_sum", provider="cheap", offer="acme/up@cheap") == 0


async def test_a_tally_stops_growing_and_loses_no_count() -> None:
    tally = Tally("name")
    for number in range(MOST_SERIES + 500):
        tally.add(f"n{number}")
    tally.add("n3")
    observed = list(tally.observe(None))  # type: ignore[arg-type]
    assert len(observed) == MOST_SERIES + 1
    assert sum(o.value for o in observed) == MOST_SERIES + 501
    assert [o.value for o in observed if o.attributes == {"otel.metric.overflow": True}] == [500]


async def test_every_announcement_there_is_reaches_the_metrics_through_observers(metrics: Metrics) -> None:
    heard = {name for name in vars(Metrics) if not name.startswith("_") and hasattr(Observer, name)}
    announced = {name for name in vars(Observer) if not name.startswith("_")}
    assert announced - heard == {"attempt_begun"}, "begun attempts are no metric: the board counts them in flight"
    Observers(metrics, Observer()).poll_made("replicate", "news")
    assert value(metrics, "turnout_polls_total", provider="replicate", outcome="news") == 1


def test_all_instruments_are_turnouts_or_opentelemetrys_and_described() -> None:
    source = inspect.getsource(module)
    names = set(re.findall(r'"((?:turnout|http)\.[a-z_.]+)"', source)) - {"http.route"}
    names -= {"http.request.method", "http.response.status_code"}
    assert len(names) >= 20
    assert all(re.fullmatch(r"(turnout|http\.server)(\.[a-z_]+)+", name) for name in names)
