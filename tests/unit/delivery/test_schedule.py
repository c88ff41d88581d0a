"""The retry schedule as a pure function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.schedule import SCHEDULE_SECONDS, next_due

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def wait_seconds(tries: int, age_seconds: float, draw: float = 0.5, retry_after: float | None = None) -> float | None:
    now = CREATED + timedelta(seconds=age_seconds)
    due_at = next_due(tries, CREATED, now, draw, retry_after)
    return None if due_at is None else round((due_at - now).total_seconds(), 3)


def test_first_retries_come_at_the_listed_seconds_after_the_event() -> None:
    ages = [0.0]
    while (wait := wait_seconds(len(ages), ages[-1])) is not None:
        ages.append(ages[-1] + wait)
    assert ages == list(SCHEDULE_SECONDS)


def test_jitter_is_a_fifth_to_both_sides() -> None:
    assert wait_seconds(1, 0, 0.0) == 1.6
    assert wait_seconds(1, 0, 1.0) == 2.4


def test_after_the_last_slot_there_is_none() -> None:
    assert wait_seconds(len(SCHEDULE_SECONDS), 0) is None


@pytest.mark.parametrize(("retry_after", "wait"), [(0, 8), (1, 8), (11, 11), (16, 16), (17, 16), (1e9, 16)])
def test_retry_after_is_clamped_between_the_wait_and_its_double(retry_after: float, wait: float) -> None:
    assert wait_seconds(2, 2, retry_after=retry_after) == wait


@given(
    tries=st.integers(1, len(SCHEDULE_SECONDS) - 1),
    age=st.floats(0, 1e7),
    draw=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.floats(0, 1e9),
)
def test_a_late_delivery_still_gets_a_good_part_of_each_gap(
    tries: int, age: float, draw: float, retry_after: float | None
) -> None:
    wait = wait_seconds(tries, age, draw, retry_after)
    gap = SCHEDULE_SECONDS[tries] - SCHEDULE_SECONDS[tries - 1]
    assert wait is not None
    assert gap * 0.39 <= wait <= max(SCHEDULE_SECONDS[tries] * 2.41, 1)
