from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import AtCapacity, DeadlineExceeded, ModelFailed, OutcomeUnknown
from gateway.contract.fact import LedgerEntry
from gateway.contract.money import Cost, CostBasis
from gateway.contract.observer import Observer, Observers
from gateway.contract.prediction import Prediction, Status
from gateway.telemetry.instrument import INSTRUMENTS, Kind
from gateway.telemetry.metrics import Metrics, Sources
from tests.unit.telemetry.made import at, attempt, lost, prediction, won


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Without the empty labels: Prometheus takes them for none at all."""
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    """Labels by the last word of their name."""
    found = [
        value
        for (sample, pairs), value in samples(metrics).items()
        if sample == series and {label.rpartition("_")[2]: text for label, text in pairs} == labels
    ]
    assert len(found) <= 1
    return found[0] if found else None


def sources(*held: Prediction, **changes: Any) -> Sources:
    return Sources(**({"now": lambda: at(10), "held": lambda: list(held)} | changes))


@pytest.fixture
async def metrics() -> AsyncIterator[Metrics]:
    made = Metrics(version="1.2.3", offers=["acme/up@cheap", "acme/up@dear"])
    yield made
    await made.aclose()


async def test_a_prediction_rescued_by_a_second_offer_is_counted_with_its_times(metrics: Metrics) -> None:
    failed, saved = lost(1, "cheap"), won(2, "local", is_fallback=True)
    done = prediction(failed, saved)
    metrics.prediction_created(done)
    metrics.attempt_ended(done, failed)
    metrics.failed_over(done, failed)
    metrics.attempt_ended(done, saved)
    metrics.prediction_ended(done)

    assert value(metrics, "turnout_predictions_created_total", model="acme/up") == 1
    assert value(metrics, "turnout_predictions_ended_total", model="acme/up", status="succeeded") == 1
    assert value(metrics, "turnout_predictions_rescued_total", model="acme/up", name="local", fallback="true") == 1
    assert value(metrics, "turnout_failovers_total", model="acme/up", name="cheap", type="model_failed") == 1
    failure = {"model": "acme/up", "name": "cheap", "outcome": "failed", "type": "model_failed"}
    assert value(metrics, "turnout_attempts_total", **failure) == 1
    served = {"model": "acme/up", "name": "local"}
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="queue", **served) == pytest.approx(0.5)
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="run", **served) == pytest.approx(2.0)
    duration = "turnout_prediction_duration_seconds_sum"
    assert value(metrics, duration, model="acme/up", status="succeeded") == pytest.approx(4.0)
    operation = [value for (name, _), value in samples(metrics).items() if name.startswith("gen_ai_client_operation")]
    assert operation, "OpenTelemetry's own name for it"


async def test_the_time_of_an_attempt_is_split_by_what_the_provider_tells(metrics: Metrics) -> None:
    told = won(1, metrics={"predict_time": 1.0, "cold_start_time": 0.7})  # of 2.5 s
    metrics.attempt_ended(prediction(told), told)
    served = {"model": "acme/up", "name": "cheap"}
    spans = {
        phase: value(metrics, "turnout_phase_duration_seconds_sum", phase=phase, **served)
        for phase in ("queue", "cold_start", "run")
    }
    assert spans == pytest.approx({"queue": 0.8, "cold_start": 0.7, "run": 1.0})


@pytest.mark.parametrize("metrics_told", [{"predict_time": 99, "cold_start_time": 99}, {"predict_time": "x"}])
async def test_a_provider_that_talks_nonsense_stretches_no_time(metrics: Metrics, metrics_told: dict[str, Any]) -> None:
    odd = won(1, metrics=metrics_told)
    metrics.attempt_ended(prediction(odd), odd)
    total = sum(v for (name, _), v in samples(metrics).items() if name == "turnout_phase_duration_seconds_sum")
    assert total == pytest.approx(2.5)


async def test_our_overhead_is_what_no_attempt_and_no_copy_took(metrics: Metrics) -> None:
    # 0…1 ours, 1…2 the first attempt, 2…3 ours, 3…5.5 the second, until 6 its files are copied.
    second = won(2, begun_at=at(3), running_at=at(3.5), ended_at=at(5.5))
    metrics.prediction_ended(prediction(lost(1), second, completed_at=at(6)))
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="overhead", model="acme/up") == pytest.approx(2)
    collect = value(metrics, "turnout_phase_duration_seconds_sum", phase="collect", model="acme/up", name="cheap")
    assert collect == pytest.approx(0.5)


async def test_accepting_and_delivering_are_phases_too(metrics: Metrics) -> None:
    metrics.prediction_accepted(prediction(status=Status.STARTING), 0.004)
    metrics.delivery_ended("completed", "delivered", 0.3)
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="accept", model="acme/up") == pytest.approx(0.004)
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="delivery") == pytest.approx(0.3)


def entry(state: str, nanos: int | None, basis: str = "computed") -> LedgerEntry:
    return LedgerEntry(attempt=1, offer="acme/up@cheap", provider="cheap", state=state, nanos=nanos, basis=basis)


async def test_money_is_counted_as_the_ledger_has_it_and_an_unknown_cost_never_as_nothing(metrics: Metrics) -> None:
    done = prediction(won(1))
    for one in (
        entry("reserved", 5_000_000, "expected"),
        entry("settled", 2_300_000),
        entry("settled", None, "unknown"),
        entry("maybe", 7_000_000, "expected"),
        entry("maybe", None, "expected"),
        entry("released", 0, "refused"),
    ):
        metrics.committed(None, done, (one,))
    served = {"model": "acme/up", "name": "cheap"}
    assert value(metrics, "turnout_spend_dollars_total", basis="computed", **served) == pytest.approx(0.0023)
    assert value(metrics, "turnout_spend_maybe_dollars_total", **served) == pytest.approx(0.007)
    settled = {
        what: value(metrics, "turnout_settlements_total", settlement=what, **served)
        for what in ("priced", "unknown", "maybe", "released")
    }
    assert settled == {"priced": 1, "unknown": 1, "maybe": 2, "released": 1}


async def test_bills_are_held_against_what_was_expected_of_the_same_attempts(metrics: Metrics) -> None:
    running = attempt(expected_nanos=1_000_000)
    told = won(expected_nanos=1_000_000, metrics={"predict_time": 4.0})
    reckoned = won(expected_nanos=1_000_000)  # of the same input as the estimate: it cannot drift
    tokens = won(expected_nanos=9_000_000, nanos=1_000_000, metrics={"output_token_count": 12})
    for ended in (told, reckoned, tokens, won(metrics={"predict_time": 4.0}), lost(cost=told.cost), won(nanos=None)):
        metrics.committed(prediction(running), prediction(ended), (entry("settled", ended.cost.nanos),))
    assert drift(metrics, "likely") == pytest.approx((0.001, 0.0023))
    assert drift(metrics, "most") == pytest.approx((0.009, 0.001))


async def test_a_bill_that_is_told_twice_drifts_once_by_the_better_word(metrics: Metrics) -> None:
    computed = won(expected_nanos=1_000_000, metrics={"predict_time": 4.0})
    reported = replace(computed, cost=Cost(nanos=3_000_000, basis=CostBasis.REPORTED))
    collecting = replace(computed, status=AttemptStatus.COLLECTING)
    metrics.committed(prediction(attempt()), prediction(collecting), (entry("settled", 2_300_000),))
    correction = replace(entry("settled", 3_000_000, "reported"), corrects_nanos=2_300_000)
    metrics.committed(prediction(collecting), prediction(reported), (correction,))
    assert drift(metrics, "likely") == pytest.approx((0.001, 0.003))


async def test_what_was_only_reckoned_drifts_once_its_provider_tells(metrics: Metrics) -> None:
    reckoned = won(expected_nanos=1_000_000)
    metrics.committed(prediction(attempt()), prediction(reckoned), (entry("settled", 2_300_000),))
    assert drift(metrics, "likely") == (0, 0)
    reported = replace(reckoned, cost=Cost(nanos=3_000_000, basis=CostBasis.REPORTED))
    correction = replace(entry("settled", 3_000_000, "reported"), corrects_nanos=2_300_000)
    metrics.committed(prediction(reckoned), prediction(reported), (correction,))
    assert drift(metrics, "likely") == pytest.approx((0.001, 0.003))


def drift(metrics: Metrics, estimate: str) -> tuple[float | None, float | None]:
    labels = {"offer": "acme/up@cheap", "name": "cheap", "model": "acme/up", "estimate": estimate}
    expected = value(metrics, "turnout_spend_drift_expected_dollars_total", **labels)
    return expected, value(metrics, "turnout_spend_drift_billed_dollars_total", **labels)


async def test_nano_dollars_add_up_exactly_over_many_attempts(metrics: Metrics) -> None:
    done = prediction(won(1))
    for _ in range(1000):
        metrics.committed(None, done, (entry("settled", 1),))
    assert value(metrics, "turnout_spend_dollars_total", model="acme/up", name="cheap", basis="computed") == 1e-6


async def test_money_that_bought_nothing_is_waste_and_says_why(metrics: Metrics) -> None:
    paid = Cost(nanos=1_000_000, basis=CostBasis.COMPUTED)
    failed, late = lost(1, cost=paid), won(3, "late")
    stopped = attempt(4, "hedge", status=AttemptStatus.CANCELED, cost=paid, ended_at=at(4))
    done = prediction(failed, won(2), late, stopped)
    done = replace(done, winner=2)
    for one in done.attempts:
        metrics.attempt_ended(done, one)
    canceled = prediction(replace(stopped, number=1), status=Status.CANCELED, cancel_requested_at=at(2))
    metrics.attempt_ended(canceled, canceled.attempts[0])
    wasted = {
        tuple(sorted(text for label, text in pairs if label != "gen_ai_request_model")): value
        for (name, pairs), value in samples(metrics).items()
        if name == "turnout_spend_wasted_dollars_total"
    }
    assert wasted == pytest.approx(
        {
            ("cheap", "failed"): 0.001,
            ("late", "loser"): 0.0023,
            ("hedge", "loser"): 0.001,
            ("canceled", "hedge"): 0.001,
        }
    )


@pytest.mark.parametrize(
    ("status", "changes", "late"),
    [
        (Status.FAILED, {"failure": DeadlineExceeded().failure}, 1),
        (Status.FAILED, {"failure": ModelFailed("x").failure}, 0),
        (Status.ABORTED, {}, 1),
        (Status.CANCELED, {}, 1),
        (Status.CANCELED, {"cancel_requested_at": at(2)}, 0),
        (Status.SUCCEEDED, {}, 0),
    ],
)
async def test_a_missed_deadline_is_told_from_other_ends(
    metrics: Metrics, status: Status, changes: dict[str, Any], late: int
) -> None:
    metrics.prediction_ended(prediction(lost(1), status=status, **changes))
    assert value(metrics, "turnout_deadline_misses_total", model="acme/up") == late


async def test_a_first_try_that_succeeds_is_no_rescue_even_if_a_loser_fails_later(metrics: Metrics) -> None:
    metrics.prediction_ended(prediction(won(1), lost(2)))
    assert not [name for name, _ in samples(metrics) if "rescued" in name]


async def test_what_was_rejected_ran_nowhere_and_an_abandoned_one_has_no_known_phases(metrics: Metrics) -> None:
    for ended in (lost(1, why=AtCapacity()), lost(2, why=OutcomeUnknown(), status=AttemptStatus.ABANDONED)):
        metrics.attempt_ended(prediction(ended), ended)
    assert not [name for name, _ in samples(metrics) if name.startswith("turnout_phase")]
    counts = [
        v for (name, _), v in samples(metrics).items() if name == "gen_ai_client_operation_duration_seconds_count"
    ]
    assert counts == [1]


async def test_no_metric_carries_an_id_or_a_word_of_input_or_output(metrics: Metrics) -> None:
    failed = lost(1)
    done = prediction(failed, status=Status.FAILED, error="CUDA out of memory", failure=failed.failure)
    metrics.observe(sources(done))
    metrics.prediction_created(done)
    metrics.prediction_accepted(done, 0.1)
    metrics.committed(None, done, (entry("settled", 1),))
    metrics.attempt_ended(done, failed)
    metrics.failed_over(done, failed)
    metrics.prediction_ended(done)
    text = metrics.render().decode()
    assert "turnout_predictions_ended_total" in text
    for private in (done.id, "private", "CUDA", "s" * 43, "b" * 64, '="app"'):
        assert private not in text


async def test_a_word_that_its_attribute_does_not_have_makes_no_series_of_its_own(metrics: Metrics) -> None:
    for number in range(50):
        metrics.callback_received("replicate", f"invented-{number}")
        metrics.request_served("/v1/predictions", f"HACK{number}", 405, 0.001)
    assert value(metrics, "turnout_callbacks_total", name="replicate", outcome="_OTHER") == 50
    count = {"route": "/v1/predictions", "method": "_OTHER", "code": "405"}
    assert value(metrics, "http_server_request_duration_seconds_count", **count) == 50


async def test_what_alerts_watch_is_there_before_it_happens_and_so_its_first_time_is_an_increase(
    metrics: Metrics,
) -> None:
    assert value(metrics, "turnout_policy_reloads_total", outcome="refused") == 0
    assert value(metrics, "turnout_deliveries_total", event="completed", outcome="exhausted") == 0
    assert value(metrics, "turnout_predictions_ended_total", model="acme/up", status="failed", blame="provider") == 0
    assert value(metrics, "turnout_settlements_total", model="acme/up", name="dear", settlement="unknown") == 0
    assert value(metrics, "turnout_spend_dollars_total", model="acme/up", name="dear", basis="computed") == 0
    assert not [name for name, _ in samples(metrics) if name.startswith("turnout_attempts")]


async def test_a_breaker_is_closed_until_it_says_otherwise(metrics: Metrics) -> None:
    metrics.breaker_changed("acme/up@cheap", "closed", "open", "five failures")
    cheap = {"offer": "acme/up@cheap", "name": "cheap", "model": "acme/up"}
    assert value(metrics, "turnout_breaker_state", **cheap) == 2
    assert value(metrics, "turnout_breaker_openings_total", **cheap) == 1
    assert value(metrics, "turnout_breaker_state", offer="acme/up@dear", name="dear", model="acme/up") == 0
    metrics.breaker_changed("acme/up@cheap", "open", "probing", "time")
    assert value(metrics, "turnout_breaker_state", **cheap) == 1


async def test_the_backlog_is_asked_for_when_scraped_by_state_and_age(metrics: Metrics) -> None:
    assert value(metrics, "turnout_backlog", state="queued") is None
    queued = prediction(status=Status.STARTING)
    runs = attempt(1, expected_nanos=4_000_000, status=AttemptStatus.RUNNING, running_at=at(7))
    running = prediction(runs, status=Status.PROCESSING, started_at=at(5))
    collecting = replace(prediction(won(1, status=AttemptStatus.COLLECTING), status=Status.PROCESSING), winner=1)
    stopping = prediction(attempt(1, "dear", expected_nanos=2_000_000), won(2))
    held = [queued, running, collecting, stopping]
    metrics.observe(sources(*held, delivering=lambda: (3, at(4)), held=lambda: held))
    states = ("queued", "running", "collecting", "stopping", "delivering")
    assert {s: value(metrics, "turnout_backlog", state=s) for s in states} == dict.fromkeys(states[:4], 1) | {
        "delivering": 3
    }
    ages = {s: value(metrics, "turnout_backlog_age_seconds", state=s) for s in states}
    assert ages == {"queued": 10, "running": 3, "collecting": 6.5, "stopping": 6, "delivering": 6}
    assert value(metrics, "turnout_spend_reserved_dollars", name="cheap") == pytest.approx(0.004)
    assert value(metrics, "turnout_spend_reserved_dollars", name="dear") == pytest.approx(0.002)
    held.clear()
    assert value(metrics, "turnout_backlog", state="queued") == 0, "nothing is a number, not a gap"
    assert value(metrics, "turnout_backlog_age_seconds", state="queued") == 0


async def test_after_a_failover_it_is_queued_again_whatever_ran_before(metrics: Metrics) -> None:
    waiting = prediction(lost(1), attempt(2, status=AttemptStatus.ACCEPTED), status=Status.PROCESSING, started_at=at(1))
    metrics.observe(sources(waiting))
    assert value(metrics, "turnout_backlog", state="running") == 0
    assert value(metrics, "turnout_backlog", state="queued") == 1
    assert value(metrics, "turnout_backlog_age_seconds", state="queued") == 8, "since the first attempt's end"


async def test_an_attempt_whose_fate_nobody_knows_is_maybe_and_not_reserved(metrics: Metrics) -> None:
    unknown = attempt(1, expected_nanos=4_000_000, status=AttemptStatus.UNKNOWN, unknown_at=at(2))
    metrics.observe(sources(prediction(unknown, status=Status.STARTING)))
    assert not value(metrics, "turnout_spend_reserved_dollars", name="cheap")


async def test_an_attempt_that_is_given_up_is_told_as_maybe_once(metrics: Metrics) -> None:
    sent = prediction(attempt(1, expected_nanos=7_000_000), status=Status.STARTING)
    unknown = replace(sent, attempts=(replace(sent.attempts[0], status=AttemptStatus.UNKNOWN),))
    given_up = replace(sent, attempts=(lost(1, why=OutcomeUnknown(), status=AttemptStatus.ABANDONED),))
    metrics.committed(sent, unknown, (entry("maybe", 7_000_000, "expected"),))
    metrics.committed(unknown, given_up, (entry("maybe", 7_000_000, "expected"),))
    served = {"model": "acme/up", "name": "cheap"}
    assert value(metrics, "turnout_settlements_total", settlement="maybe", **served) == 1
    assert value(metrics, "turnout_spend_maybe_dollars_total", **served) == pytest.approx(0.007)


async def test_what_is_billed_after_it_was_given_up_is_waste_like_any_other(metrics: Metrics) -> None:
    late = replace(entry("settled", 2_300_000), given_up_at=at(3))
    metrics.committed(None, replace(prediction(won(1), won(2, "dear")), winner=2), (late,))
    assert value(metrics, "turnout_spend_wasted_dollars_total", model="acme/up", name="cheap", waste="loser") == 0.0023


@pytest.mark.parametrize(
    "attempts",
    [
        (lost(1), won(2, begun_at=at(3), running_at=at(3.5), ended_at=at(5.5))),
        (lost(1, why=AtCapacity()), won(2, metrics={"predict_time": 0.5, "cold_start_time": 0.2})),
        (lost(1, ended_at=at(5), status=AttemptStatus.ABANDONED), won(2, begun_at=at(3), ended_at=at(4.5))),
        (attempt(1, status=AttemptStatus.UNKNOWN), won(2)),
        (lost(1), lost(2, begun_at=at(1.5))),
    ],
)
async def test_the_phases_add_up_to_the_duration(metrics: Metrics, attempts: tuple[Attempt, ...]) -> None:
    status = Status.SUCCEEDED if attempts[-1].failure is None else Status.FAILED
    done = prediction(*attempts, completed_at=at(6), status=status)
    for one in done.attempts:
        if one.status.is_closed:
            metrics.attempt_ended(done, one)
    metrics.prediction_ended(done)
    whole = sum(v for (name, _), v in samples(metrics).items() if name == "turnout_phase_duration_seconds_sum")
    assert whole == pytest.approx(6.0)


async def test_the_small_announcements_all_arrive(metrics: Metrics) -> None:
    metrics.poll_made("replicate", "same")
    metrics.delivery_tried("completed", "delivered", 0.2)
    metrics.artifact_kept("output", 1234)
    metrics.policies_read("abc", refused=True)
    assert value(metrics, "turnout_polls_total", name="replicate", outcome="same") == 1
    assert value(metrics, "turnout_deliveries_total", event="completed", outcome="delivered") == 1
    assert value(metrics, "turnout_delivery_duration_seconds_sum", outcome="delivered") == pytest.approx(0.2)
    assert value(metrics, "turnout_artifacts_total", direction="output") == 1
    assert value(metrics, "turnout_artifacts_size_bytes_total", direction="output") == 1234
    assert value(metrics, "turnout_policy_reloads_total", outcome="refused") == 1


async def test_what_others_know_is_asked_of_them(metrics: Metrics) -> None:
    health = {"device": "cpu", "queue": 2, "running": 1, "batches": 4, "batched": 9, "memory_bytes": 123, "models": []}
    metrics.local_backend_changed("starting")
    metrics.local_backend_changed("ready")
    metrics.observe(
        sources(
            receivers=lambda: {"failing": 1, "shut": 2},
            headroom=lambda: {"replicate": 0.25},
            policy_version=lambda: "0123456789ab",
            local_backend=lambda: health,
        )
    )
    assert value(metrics, "turnout_local_backend_up", device="cpu") == 1
    assert value(metrics, "turnout_local_backend_starts_total") == 1
    assert value(metrics, "turnout_local_backend_queue") == 2
    assert value(metrics, "turnout_local_backend_batches_total") == 4
    assert value(metrics, "turnout_local_backend_batched_total") == 9
    assert value(metrics, "turnout_local_backend_memory_bytes") == 123
    assert value(metrics, "turnout_receivers", state="shut") == 2
    assert value(metrics, "turnout_rate_limit_headroom", name="replicate") == 0.25
    assert value(metrics, "turnout_policy", version="0123456789ab") == 1
    metrics.local_backend_changed("crashed")
    assert value(metrics, "turnout_local_backend_up", device="cpu") == 0
    assert value(metrics, "turnout_local_backend_queue") is None, "what a dead process said last is no news"


async def test_scrapes_keep_nobody_waiting_and_do_not_mix(metrics: Metrics) -> None:
    threads: set[str] = set()

    def held() -> list[Prediction]:
        threads.add(threading.current_thread().name)
        return [prediction(status=Status.STARTING)]

    metrics.observe(sources(held=held))
    scrapes = await asyncio.gather(*(metrics.scrape() for _ in range(8)))
    assert threads == {"turnout-scrape_0"}, "beside the event loop, and one after the other"
    assert {text.count(b'turnout_backlog{turnout_state="queued"} 1.0') for text in scrapes} == {1}


async def test_two_sets_of_metrics_in_one_process_know_nothing_of_each_other(metrics: Metrics) -> None:
    other = Metrics()
    metrics.poll_made("replicate", "news")
    assert "turnout_polls" not in other.render().decode()
    await other.aclose()


async def test_a_clock_that_runs_backwards_makes_no_negative_time(metrics: Metrics) -> None:
    odd = won(1, running_at=won().ended_at, begun_at=won().ended_at, ended_at=won().begun_at)
    metrics.attempt_ended(prediction(odd), odd)
    assert value(metrics, "turnout_phase_duration_seconds_sum", phase="run", model="acme/up", name="cheap") == 0


async def test_every_announcement_there_is_reaches_the_metrics_through_observers(metrics: Metrics) -> None:
    heard = {name for name in vars(Metrics) if not name.startswith("_") and hasattr(Observer, name)}
    announced = {name for name in vars(Observer) if not name.startswith("_")}
    assert announced - heard == {
        "attempt_begun",  # the engine is asked for what is open
        "callback_told",  # counted as callback_received
        "delivery_made",  # counted as delivery_tried
    }
    Observers(metrics, Observer()).poll_made("replicate", "news")
    assert value(metrics, "turnout_polls_total", name="replicate", outcome="news") == 1


async def test_every_instrument_is_at_metrics_under_the_name_that_the_registry_gives_it() -> None:
    metrics = Metrics(offers=["acme/up@cheap"])
    everything(metrics)
    found = {name for name, _ in samples(metrics)}
    for one in INSTRUMENTS:
        names = [f"{one.series}_{part}" for part in ("bucket", "sum", "count")] if one.bounds else [one.series]
        assert set(names) <= found, f"{one.name} is not served"
        assert bool(one.bounds) == (one.kind is Kind.HISTOGRAM)
    await metrics.aclose()


async def test_every_label_is_an_attribute_of_its_instrument_and_every_closed_one_has_a_known_value() -> None:
    metrics = Metrics(offers=["acme/up@cheap"])
    everything(metrics)
    by_series = {one.series: one for one in INSTRUMENTS}
    for name, pairs in samples(metrics):
        base = next((series for series in by_series if name.removesuffix("_bucket") == series), None) or next(
            (series for series in by_series if name.rpartition("_")[0] == series), name
        )
        if base not in by_series:
            assert name == "target_info"
            continue
        allowed = {attribute.label: attribute.values for attribute in by_series[base].attributes}
        for label, text in pairs:
            assert label == "le" or label in allowed, (name, label)
            assert allowed.get(label) is None or text in allowed[label]
    await metrics.aclose()


def everything(metrics: Metrics) -> None:
    """Each instrument measures something."""
    failed = lost(1, cost=Cost(nanos=5, basis=CostBasis.REPORTED))
    saved = won(2, metrics={"cold_start_time": 0.1})
    done = prediction(failed, saved, completed_at=at(6))
    open_ = prediction(attempt(1, expected_nanos=5), status=Status.STARTING)
    metrics.prediction_created(done)
    metrics.prediction_accepted(done, 0.1)
    for state in ("reserved", "settled", "maybe", "released"):
        metrics.committed(None, done, (entry(state, 5),))
    for one in done.attempts:
        metrics.attempt_ended(done, one)
    metrics.failed_over(done, failed)
    metrics.prediction_ended(done)
    metrics.prediction_ended(prediction(status=Status.ABORTED))
    metrics.breaker_changed("acme/up@cheap", "closed", "open", "")
    metrics.callback_received("cheap", "applied")
    metrics.poll_made("cheap", "news")
    metrics.delivery_tried("completed", "delivered", 0.1)
    metrics.delivery_ended("completed", "delivered", 0.1)
    metrics.request_served("/v1/predictions", "POST", 201, 0.1)
    metrics.artifact_kept("output", 1)
    metrics.policies_read("abc", refused=False)
    metrics.local_backend_changed("starting")
    metrics.local_backend_changed("ready")
    health = {"device": "cuda", "queue": 0, "running": 0, "batches": 0, "batched": 0, "memory_bytes": 1}
    metrics.observe(
        sources(
            open_,
            receivers=lambda: {"failing": 0, "shut": 0},
            headroom=lambda: {"cheap": 1.0},
            policy_version=lambda: "abc",
            local_backend=lambda: health,
        )
    )
