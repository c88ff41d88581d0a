"""When a delivery that failed is tried again. Pure: now and chance are arguments; who sends is not its business."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

# Seconds after the event. A fast head, because predictions are interactive; a day's tail, because receivers go down.
SCHEDULE_SECONDS = (0, 2, 10, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.2
SLOW_SECONDS = 60.0


def next_due(
    tries: int,
    created_at: datetime,
    now: datetime,
    draw: float,
    retry_after_seconds: float | None = None,
    *,
    schedule_seconds: Sequence[float] = SCHEDULE_SECONDS,
    is_slow: bool = False,
) -> datetime | None:
    """
    The next moment for a delivery that has failed `tries` times; None when the schedule is exhausted.

    `draw` from [0, 1) spreads the wait by ±20 %. A receiver's `retry_after_seconds` lengthens the wait, at most to its
    double: a receiver must not be able to park us. A delivery that is late, because we were down, still gets at least
    half of each gap of the schedule: it is not tried thirteen times in a row. One that is too slow, or says that it is
    asked too often (`is_slow`), has at least a minute.
    """
    if tries >= len(schedule_seconds):
        return None
    gap_seconds = schedule_seconds[tries] - (schedule_seconds[tries - 1] if tries else 0)
    until_slot_seconds = (created_at - now).total_seconds() + schedule_seconds[tries]
    wait_seconds = max(until_slot_seconds, gap_seconds / 2, 0.0) * (1 - JITTER + 2 * JITTER * draw)
    if is_slow:
        wait_seconds = max(wait_seconds, SLOW_SECONDS)
    if retry_after_seconds is not None:
        wait_seconds = min(max(wait_seconds, retry_after_seconds), 2 * wait_seconds)
    return now + timedelta(seconds=wait_seconds)
