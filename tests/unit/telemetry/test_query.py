from __future__ import annotations

import pytest

from gateway.telemetry import instrument as of
from gateway.telemetry.query import Query

PANEL, ALERT = Query(panel=True), Query(panel=False)


def test_a_panels_query_is_narrowed_by_the_variables_that_its_instrument_has_labels_for() -> None:
    assert PANEL.rate(of.ATTEMPTS, of.PROVIDER) == (
        "sum by (gen_ai_provider_name) (rate(turnout_attempts_total"
        '{job=~"$job",gen_ai_request_model=~"$model",gen_ai_provider_name=~"$provider"}[$__rate_interval]))'
    )
    assert PANEL.now(of.LOCAL_QUEUE) == 'sum (turnout_local_backend_queue{job=~"$job"})'


def test_an_alerts_query_keeps_jobs_apart_and_knows_no_variables() -> None:
    assert ALERT.increase(of.SPEND, window="1h") == "sum by (job) (increase(turnout_spend_dollars_total[1h]))"
    assert ALERT.now(of.BACKLOG_AGE, of.STATE, where={of.STATE: ("queued", "running")}, how="max") == (
        'max by (job, turnout_state) (turnout_backlog_age_seconds{turnout_state=~"queued|running"})'
    )


def test_a_histogram_is_asked_for_its_buckets_or_counted() -> None:
    assert ALERT.quantile(0.95, of.REQUEST_DURATION, of.ROUTE, window="5m") == (
        "histogram_quantile(0.95, sum by (le, job, http_route) (rate(http_server_request_duration_seconds_bucket[5m])))"
    )
    assert "http_server_request_duration_seconds_count[5m]" in ALERT.rate(of.REQUEST_DURATION, window="5m")


def test_a_share_divides_by_nothing_that_is_nothing() -> None:
    share = ALERT.share(of.POLLS, of={of.POLL: "failed"}, window="5m")
    assert share == (
        'sum by (job) (increase(turnout_polls_total{turnout_outcome="failed"}[5m]))'
        " / (sum by (job) (increase(turnout_polls_total[5m])) > 0)"
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda: PANEL.rate(of.ATTEMPTS, of.PHASE),
        lambda: PANEL.rate(of.ATTEMPTS, where={of.PHASE: "run"}),
        lambda: PANEL.rate(of.ATTEMPTS, where={of.ATTEMPT: "exploded"}),
        lambda: PANEL.rate(of.ATTEMPTS, of.DELIVERY),  # of the same name, and another set of words
        lambda: PANEL.quantile(0.5, of.ATTEMPTS),
        lambda: PANEL.now(of.ATTEMPTS),
    ],
)
def test_what_is_not_there_cannot_be_asked_for(ask: object) -> None:
    with pytest.raises(KeyError):
        ask()  # type: ignore[operator]
