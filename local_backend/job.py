"""One prediction inside this server, and the shelf where ended ones wait to be fetched. Runs nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime
from typing import Any

import msgspec

from gateway.contract.prediction import Status

MAX_LOG_CHARACTERS = 64_000


class Work(msgspec.Struct, kw_only=True, frozen=True):
    """What a kind made of a checked input."""

    payload: Any
    cost: float  # in the kind's own unit: megapixels, rows, tokens
    size_bytes: int  # what it holds in memory while it waits
    group: Hashable = None  # work of the same group may share a run


class Job:
    """
    One prediction. Changed only on the event loop; a worker thread reads `work` and `is_over`, and posts its news.

    The first end is final: whatever comes later changes nothing.
    """

    def __init__(
        self, id: str, *, model: str, version: str, input: dict[str, Any], now: datetime, deadline: datetime | None
    ) -> None:
        self.id = id
        self.model = model
        self.version = version
        self.input = input
        self.created_at = now
        self.deadline = deadline
        self.started_at: datetime | None = None
        self.completed_at: datetime | None = None
        self.status = Status.STARTING
        self.output: Any = None
        self.error: str | None = None
        self.logs = ""
        self.metrics: dict[str, Any] = {}
        self.work: Work | None = None
        self.ended = asyncio.Event()
        self.size_bytes = 0
        self.cold_seconds = 0.0  # it waited so long for its model to be opened, before it was queued

    @property
    def is_over(self) -> bool:
        return self.status.is_terminal

    def start(self, now: datetime) -> None:
        if self.status is Status.STARTING:
            self.status = Status.PROCESSING
            self.started_at = now

    def log(self, line: str) -> None:
        if not self.is_over and len(self.logs) < MAX_LOG_CHARACTERS:
            self.logs += line + "\n"

    def succeed(self, output: Any, metrics: dict[str, Any], size_bytes: int, now: datetime) -> None:
        if not self.is_over:
            self.output = output
            self.metrics = metrics
            self._end(Status.SUCCEEDED, size_bytes, now)

    def fail(self, error: str, now: datetime) -> None:
        if not self.is_over:
            self.error = error
            self._end(Status.FAILED, 0, now)

    def cancel(self, now: datetime, *, why: str = "") -> None:
        """By hand: canceled. At its deadline (`why`): aborted if it had not begun, as Replicate has it."""
        if not self.is_over:
            self.error = why or None
            not_begun = self.status is Status.STARTING
            self._end(Status.ABORTED if why and not_begun else Status.CANCELED, 0, now)

    def _end(self, status: Status, size_bytes: int, now: datetime) -> None:
        self.status = status
        self.completed_at = now
        self.size_bytes = size_bytes
        self.work = None  # frees the input
        if self.started_at is not None:
            self.metrics["predict_time"] = (now - self.started_at).total_seconds()
        if self.cold_seconds:
            self.metrics["cold_start_time"] = self.cold_seconds
        self.metrics["total_time"] = (now - self.created_at).total_seconds()
        self.ended.set()


class Shelf:
    """
    Ended jobs, kept `seconds` so that they can be fetched, and less long only if there are too many, oldest first.

    `count` and `size_bytes` bound what is kept; `now` is monotonic seconds.
    """

    def __init__(self, *, seconds: float = 600, count: int = 2_000, size_bytes: int = 512 * 2**20) -> None:
        self._seconds = seconds
        self._count = count
        self._size_bytes = size_bytes
        self._jobs: OrderedDict[str, tuple[float, Job]] = OrderedDict()
        self._held_bytes = 0

    def put(self, job: Job, now: float) -> list[Job]:
        """Keep a job; returns those that had to go."""
        self._jobs[job.id] = (now, job)
        self._held_bytes += job.size_bytes
        return self.sweep(now)

    def sweep(self, now: float) -> list[Job]:
        """Let go of what is too old or too much; the newest always stays."""
        gone = []
        while len(self._jobs) > 1 and (len(self._jobs) > self._count or self._held_bytes > self._size_bytes):
            gone.append(self._drop())
        while self._jobs and next(iter(self._jobs.values()))[0] + self._seconds <= now:
            gone.append(self._drop())
        return gone

    def _drop(self) -> Job:
        _, (_, job) = self._jobs.popitem(last=False)
        self._held_bytes -= job.size_bytes
        return job
