"""Open predictions at one moment: at which stage, how old, with how much money out, and which are stuck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.phase import current_of, under_way
from gateway.contract.prediction import Prediction
from gateway.dashboard.shape import Stage, StuckPrediction
from gateway.dashboard.story import seconds_text
from gateway.store.protocol import AGES_SECONDS

MOST_STUCK = 50
UNKNOWN_SECONDS = 20.0  # nobody knows for so long whether it runs
UNPLACED_SECONDS = 30.0  # nobody has it for so long
LATE_SECONDS = 10.0  # beyond its deadline
SLOW_SECONDS = 60.0  # and three times what is usual
_STAGES = ("queued", "running", "collecting")


class Open(msgspec.Struct, kw_only=True, frozen=True):
    count: int
    stages: tuple[Stage, ...]
    stuck: tuple[StuckPrediction, ...]
    reserved_nanos: int  # expected of attempts under way
    unresolved: int  # attempts of which nobody knows whether they run
    unresolved_nanos: int


def look_at(predictions: Iterable[Prediction], now: datetime, *, slow: Mapping[str, float | None]) -> Open:
    """`slow` is the p95 of each model, in seconds."""
    ages: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    stuck: list[StuckPrediction] = []
    reserved = unresolved = unresolved_nanos = 0
    for prediction in predictions:
        for attempt in under_way(prediction):
            if attempt.status is AttemptStatus.UNKNOWN:
                unresolved += 1
                unresolved_nanos += attempt.expected_nanos or 0
            else:
                reserved += attempt.expected_nanos or 0
        if prediction.completed_at is not None:
            continue  # only its losers are being stopped
        age = max(0.0, (now - prediction.created_at).total_seconds())
        current = current_of(prediction)
        ages[_stage(current)].append(age)
        why = _why_stuck(prediction, current, age, now, slow.get(prediction.request.model))
        if why is not None:
            stuck.append(
                StuckPrediction(
                    id=prediction.id,
                    model=prediction.request.model,
                    status=prediction.status.value,
                    provider=current.provider if current is not None else None,
                    age_seconds=round(age, 3),
                    why=why,
                )
            )
    stuck.sort(key=lambda one: -one.age_seconds)
    return Open(
        count=sum(len(found) for found in ages.values()),
        stages=tuple(_shown(stage, found) for stage, found in ages.items()),
        stuck=tuple(stuck[:MOST_STUCK]),
        reserved_nanos=reserved,
        unresolved=unresolved,
        unresolved_nanos=unresolved_nanos,
    )


def _stage(current: Attempt | None) -> str:
    if current is None:
        return "queued"
    if current.status is AttemptStatus.COLLECTING:
        return "collecting"
    return "running" if current.status is AttemptStatus.RUNNING else "queued"


def _why_stuck(
    prediction: Prediction, current: Attempt | None, age: float, now: datetime, slow: float | None
) -> str | None:
    late = (now - prediction.deadline_at).total_seconds()
    if late > LATE_SECONDS:
        return f"its deadline passed {seconds_text(late)} ago"
    if prediction.cancel_requested_at is not None:
        asked = (now - prediction.cancel_requested_at).total_seconds()
        return f"a cancel was asked for {seconds_text(asked)} ago" if asked > UNPLACED_SECONDS else None
    if current is None:
        ends = [attempt.ended_at for attempt in prediction.attempts if attempt.ended_at is not None]
        idle = (now - max(ends, default=prediction.created_at)).total_seconds()
        if idle <= UNPLACED_SECONDS:
            return None
        return f"nobody has taken it for {seconds_text(idle)}{_waits_for(prediction)}"
    if current.status is AttemptStatus.UNKNOWN and current.unknown_at is not None:
        silent = (now - current.unknown_at).total_seconds()
        if silent > UNKNOWN_SECONDS:
            return f"{current.provider} has not said for {seconds_text(silent)} whether it runs"
    if slow is not None and age > max(SLOW_SECONDS, 3 * slow):
        return f"open for {seconds_text(age)}, where 95 % end within {seconds_text(slow)}"
    return None


def _waits_for(prediction: Prediction) -> str:
    """Why the newest plan found nobody."""
    plan = prediction.plan
    dropped = [choice for choice in plan.choices if not choice.kept and choice.reasons] if plan is not None else []
    return f": {dropped[0].provider}, {dropped[0].reasons[0].text}" if dropped else ""


def _shown(stage: str, ages: list[float]) -> Stage:
    first, second, third = (sum(age < limit for age in ages) for limit in AGES_SECONDS)
    return Stage(
        stage=stage,
        count=len(ages),
        oldest_seconds=round(max(ages), 3) if ages else None,
        ages=(first, second - first, third - second, len(ages) - third),
    )
