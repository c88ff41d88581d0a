"""Recorded traffic: what was asked for, where it went, and how each attempt ended. No inputs, no outputs."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec.structs import replace

from gateway.contract.attempt import Attempt, AttemptStatus
from gateway.contract.errors import Blame, ConfigurationError, OutcomeUnknown, PlanMovedOn, refuse
from gateway.contract.money import Units
from gateway.contract.prediction import Prediction
from gateway.store.protocol import Page, Search

PAGE = 200
GOOD, FAILED, REFUSED, STOPPED = "good", "failed", "refused", "stopped"


class Tried(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One attempt. Seconds from when it began; nano-dollars, None where nobody knows."""

    offer: str
    at: float  # from the first prediction of the trace on
    how: str  # good, failed, refused (for its rate), stopped (by us)
    seconds: float
    start_seconds: float | None = None
    nanos: int | None = None
    expected_nanos: int | None = None


class Asked(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One prediction, and what became of it."""

    id: str
    at: float  # seconds from the first one of the trace on
    model: str
    version: str
    is_pinned: bool = False
    owner: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    facts: Units = Units()
    policy: str = ""  # that it was served by
    deadline_seconds: float
    status: str
    seconds: float | None = None  # until its result; None: there was none
    tried: tuple[Tried, ...] = ()
    expected: dict[str, int] = msgspec.field(default_factory=dict)  # nano-dollars at each offer of its first plan


class Trace(msgspec.Struct, kw_only=True, frozen=True):
    """Predictions by age, the oldest first. `begun_at` is when the first of them was made."""

    begun_at: datetime
    asked: tuple[Asked, ...]


class Reader(Protocol):
    """The part of a store that tells of the past."""

    async def search_predictions(self, search: Search, *, position: str | None = None, limit: int = 100) -> Page: ...


async def trace_of(store: Reader, *, since: datetime) -> Trace:
    """Of every prediction that was made since then and has ended. Raises StoreError."""
    found = [prediction async for prediction in _ended(store, since)]
    found.sort(key=lambda prediction: (prediction.created_at, prediction.id))
    begun_at = found[0].created_at if found else since
    return Trace(begun_at=begun_at, asked=tuple(_asked(prediction, begun_at) for prediction in found))


async def _ended(store: Reader, since: datetime) -> AsyncIterator[Prediction]:
    position: str | None = None
    while True:
        page = await store.search_predictions(Search(created_after=since), position=position, limit=PAGE)
        for prediction in page.predictions:
            if prediction.is_terminal:
                yield prediction
        position = page.next
        if position is None:
            return


def _asked(prediction: Prediction, begun_at: datetime) -> Asked:
    request, plan = prediction.request, prediction.plan
    won = prediction.winner is not None and prediction.status == "succeeded"
    return Asked(
        id=prediction.id,
        at=(prediction.created_at - begun_at).total_seconds(),
        model=request.model,
        version=request.version,
        is_pinned=request.is_pinned,
        owner=prediction.owner,
        labels=request.labels,
        facts=request.facts or Units(),
        policy=plan.policy if plan is not None else request.policy or "",
        deadline_seconds=(prediction.deadline_at - prediction.created_at).total_seconds(),
        status=prediction.status.value,
        seconds=_between(prediction.created_at, prediction.completed_at) if won else None,
        tried=tuple(made for attempt in prediction.attempts if (made := _tried(attempt, begun_at)) is not None),
        expected={
            choice.offer: choice.expected_nanos
            for choice in (plan.choices if plan is not None else ())
            if choice.expected_nanos is not None
        },
    )


def _tried(attempt: Attempt, begun_at: datetime) -> Tried | None:
    """None of one that says nothing of its offer: the caller's fault or ours, or never heard of again."""
    seconds = _between(attempt.begun_at, attempt.ended_at)
    how = _how(attempt)
    if seconds is None or how is None:
        return None
    return Tried(
        offer=attempt.offer,
        at=(attempt.begun_at - begun_at).total_seconds(),
        how=how,
        seconds=seconds,
        start_seconds=_between(attempt.begun_at, attempt.running_at),
        nanos=attempt.cost.nanos,
        expected_nanos=attempt.expected_nanos,
    )


def _how(attempt: Attempt) -> str | None:
    failure = attempt.failure
    if attempt.status is AttemptStatus.SUCCEEDED:
        return GOOD
    if failure is None:
        return STOPPED if attempt.status is AttemptStatus.CANCELED else None
    if failure.code == PlanMovedOn.code:
        return STOPPED
    if failure.blame is Blame.THROTTLE:
        return REFUSED
    if failure.blame in (Blame.CALLER, Blame.LOCAL) and failure.code != OutcomeUnknown.code:
        return None
    return FAILED


def _between(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else max((end - start).total_seconds(), 0.0)


# -- files --------------------------------------------------------------------------------------------------------


class _Head(msgspec.Struct, kw_only=True, frozen=True):
    turnout_trace: int
    begun_at: datetime


VERSION = 1
_encode = msgspec.json.Encoder().encode
_read_head = msgspec.json.Decoder(_Head).decode
_read_asked = msgspec.json.Decoder(Asked).decode


def write_trace(trace: Trace, path: Path) -> None:
    """A line for each prediction, as JSON. Keys, labels and models are named in it; inputs and outputs are not."""
    lines = [_encode(_Head(turnout_trace=VERSION, begun_at=trace.begun_at)), *map(_encode, trace.asked)]
    path.write_bytes(b"\n".join(lines) + b"\n")


def read_trace(path: Path) -> Trace:
    """Raises ConfigurationError with the line that cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise refuse(f"it cannot be read: {error.strerror}", place=str(path), remedy="name a trace file") from None
    try:
        head = _read_head(lines[0]) if lines else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        head = None
    if head is None or head.turnout_trace != VERSION:
        raise refuse(
            "this is no trace", place=str(path), remedy="write one with `turnout policy rehearse … --save FILE`"
        )
    asked = tuple(_asked_lines(lines[1:], path))
    return Trace(begun_at=head.begun_at, asked=tuple(sorted(asked, key=lambda one: one.at)))


def _asked_lines(lines: Iterable[bytes], path: Path) -> Iterator[Asked]:
    for number, line in enumerate(lines, 2):
        try:
            yield _read_asked(line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ConfigurationError(f"{path}:{number}: this is no prediction of a trace: {error}") from None


def shortened(trace: Trace, *, seconds: float) -> Trace:
    """The last so many seconds of it."""
    last = trace.asked[-1].at if trace.asked else 0.0
    kept = [one for one in trace.asked if one.at >= last - seconds]
    if not kept or not math.isfinite(seconds):
        return trace
    return replace(trace, asked=tuple(kept))
