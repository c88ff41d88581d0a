"""One model's queue, thread and session: admission, order, cancelling, and how long it will take. Speaks no HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.contract.clock import Clock
from local_backend.batcher import Batch, Kind, Post, Stopped, explain, take
from local_backend.job import Job

_log = logging.getLogger("local_backend.queue")


class Estimate:
    """Seconds a run of a given cost takes: a line a*cost + b through the last runs. Not thread-safe."""

    def __init__(self, keep: int = 50) -> None:
        self._runs: deque[tuple[float, float]] = deque(maxlen=keep)

    def learn(self, cost: float, seconds: float) -> None:
        self._runs.append((cost, seconds))

    def seconds(self, cost: float) -> float | None:
        """None before the first run."""
        if not self._runs:
            return None
        count = len(self._runs)
        mean_cost = sum(cost for cost, _ in self._runs) / count
        mean = sum(seconds for _, seconds in self._runs) / count
        spread = sum((one - mean_cost) ** 2 for one, _ in self._runs)
        slope = sum((one - mean_cost) * (seconds - mean) for one, seconds in self._runs) / spread if spread else 0.0
        # A bigger job never takes less; and one far beyond what was seen is judged by proportion, at least.
        slope = max(slope, 0.0) if spread else mean / mean_cost if mean_cost else 0.0
        return max(mean + slope * (cost - mean_cost), 0.0)


class Worker:
    """
    One model instance. Its thread opens the model, then runs batches until `close`.

    Everything but the thread's own loop is called on the event loop; the thread answers through `post`.
    """

    def __init__(self, name: str, open_kind: Callable[[], Kind], *, clock: Clock, post: Post) -> None:
        self.name = name
        self.opened: asyncio.Future[Kind] = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(lambda future: future.cancelled() or future.exception())  # never "not retrieved"
        self.state = "loading"
        self.problem: str | None = None
        self.devices: tuple[str, ...] = ()
        self.batches = 0  # begun so far
        self.batched = 0  # jobs in them
        self._open_kind = open_kind
        self._clock = clock
        self._post = post
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._batch: Batch | None = None
        self._began = 0.0
        self._unwanted_since: float | None = None
        self._closed = False
        self._estimate = Estimate()
        self._thread = threading.Thread(target=self._main, name=f"worker {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def is_running(self) -> bool:
        return self._batch is not None

    def submit(self, job: Job) -> None:
        with self._condition:
            self._waiting.append(job)
            self._condition.notify()

    def release(self, job: Job) -> None:
        """A job is over before its run was: forget it, or end the run if nobody else shares it."""
        with self._condition:
            if job in self._waiting:
                self._waiting.remove(job)
            elif self._batch is not None:
                self._batch.stop_if_unwanted()
                if self._batch.is_stopped and self._unwanted_since is None:
                    self._unwanted_since = self._clock.monotonic()

    def seconds_until_free(self) -> float:
        """Predicted seconds until what is here now is done; 0 where nothing is known."""
        with self._condition:
            waiting = sum(self._estimate.seconds(job.work.cost) or 0.0 for job in self._waiting if job.work)
            batch = self._batch
            if batch is None:
                return waiting
            running = self._estimate.seconds(batch.cost) or 0.0
            return waiting + max(running - (self._clock.monotonic() - self._began), 0.0)

    def seconds_for(self, cost: float) -> float | None:
        with self._condition:
            return self._estimate.seconds(cost)

    def overrun_seconds(self) -> float:
        """How long a run that nobody wants any more has not heard its stop: a native call that hangs."""
        with self._condition:
            return 0.0 if self._unwanted_since is None else self._clock.monotonic() - self._unwanted_since

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _main(self) -> None:
        try:
            kind = self._open_kind()
        except Exception as error:  # a model that cannot be opened is this worker's state, not the process's end
            _log.error("%s cannot be opened: %s", self.name, error)
            self._post(self._set_failed, error)
            return
        self._post(self._set_ready, kind)
        while (batch := self._next(kind)) is not None:
            self._run(kind, batch)
            with self._condition:
                self._estimate.learn(batch.cost, self._clock.monotonic() - self._began)
                self._batch = None
                self._unwanted_since = None

    def _next(self, kind: Kind) -> Batch | None:
        with self._condition:
            while not self._waiting and not self._closed:
                self._condition.wait()
            if self._closed:
                return None
            self._batch = Batch(take(self._waiting, kind.max_cost), post=self._post, clock=self._clock)
            self._began = self._clock.monotonic()
            self.batches += 1
            self.batched += len(self._batch.jobs)
            return self._batch

    def _run(self, kind: Kind, batch: Batch) -> None:
        now = self._clock.now()
        for job in batch.jobs:
            self._post(job.start, now)
        try:
            kind.run(batch)
            for number, _ in batch.wanted():
                # Harmless for those that did end: the first end is final, and was posted before this one.
                batch.fail(number, "the model gave no result")
        except Stopped:
            pass
        except Exception as error:  # the model's failure is the batch's; the worker goes on
            _log.warning("%s: %s", self.name, error)
            for number, _ in batch.wanted():
                batch.fail(number, explain(error))

    def _set_ready(self, kind: Kind) -> None:
        self.state = "ready"
        self.devices = kind.devices
        if not self.opened.done():
            self.opened.set_result(kind)

    def _set_failed(self, error: Exception) -> None:
        self.state = "failed"
        self.problem = explain(error)
        if not self.opened.done():
            self.opened.set_exception(ModelUnfit(self.problem))


class ModelUnfit(Exception):
    """The model of a worker cannot be opened."""


def as_post(loop: asyncio.AbstractEventLoop) -> Post:
    """A `post` onto `loop` that falls silent when the loop is closed."""

    def post(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.debug("the event loop is closed; news of a worker is lost")

    return post
