"""Which waiting jobs run together, and the run they share. Grows while busy: a lone job never waits for company."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import onnxruntime

from gateway.contract.clock import Clock
from local_backend.job import Job, Work
from local_backend.session import Array, Session

Post = Callable[..., None]  # post(function, *arguments): call it soon on the event loop


class Kind(Protocol):
    """A model ready to run."""

    max_cost: float  # of one batch; a single job may cost more
    devices: tuple[str, ...]  # where its graphs really are

    def prepare(self, input: dict[str, Any]) -> Work:
        """What a checked input asks for. Called on the intake thread. Raises InputInvalid."""
        ...

    def run(self, batch: Batch) -> None:
        """Run on the worker's thread; ends each job of the batch by `succeed` or `fail`. Raises Stopped."""
        ...


class Stopped(Exception):
    """Nobody waits for this batch any more."""


def take(waiting: deque[Job], max_cost: float) -> list[Job]:
    """
    Remove and return the next batch: the oldest job, and whatever waits of its group while the cost fits.

    Work without a group runs alone. Order among those left behind is kept.
    """
    first = waiting.popleft()
    batch = [first]
    begun = first.work  # read once: a job that ends meanwhile lets go of it
    if begun is None or begun.group is None:
        return batch
    cost = begun.cost
    left: list[Job] = []
    for job in waiting:
        work = job.work
        if work is not None and work.group == begun.group and cost + work.cost <= max_cost:
            cost += work.cost
            batch.append(job)
        else:
            left.append(job)
    waiting.clear()
    waiting.extend(left)
    return batch


class Batch:
    """Jobs that share a run. Lives on the worker's thread; `stop` may be called from any."""

    def __init__(self, jobs: Sequence[Job], *, post: Post, clock: Clock) -> None:
        self.jobs = tuple(jobs)
        self.works = tuple(job.work for job in jobs)
        self.cost = sum(work.cost for work in self.works if work is not None)
        self._post = post
        self._clock = clock
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = 4
        self._stopped = threading.Event()

    def stop_if_unwanted(self) -> None:
        """The run may end at its next node if every job of it is over: the flag ends the whole batch."""
        if all(job.is_over for job in self.jobs):
            self._stopped.set()
            self._options.terminate = True

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def wanted(self) -> Iterator[tuple[int, Work]]:
        """Number and work of each job that somebody still waits for."""
        for number, (job, work) in enumerate(zip(self.jobs, self.works, strict=True)):
            if work is not None and not job.is_over:
                yield number, work

    def run(self, session: Session, feeds: dict[str, Array], outputs: list[str] | None = None) -> list[Array]:
        """One run of a graph. Raises Stopped, or what ONNX Runtime raises."""
        if self.is_stopped:
            raise Stopped
        try:
            return session.run(feeds, outputs=outputs, options=self._options)
        except Exception:
            if self.is_stopped:
                raise Stopped from None
            raise

    def log(self, number: int, line: str) -> None:
        self._post(self.jobs[number].log, line)

    def progress(self, number: int, done: int, total: int, unit: str) -> None:
        """A line of progress in the form Replicate's clients read."""
        percent = 100 * done // total
        bar = ("█" * (percent // 10)).ljust(10)
        self.log(number, f"{percent:3d}%|{bar}| {done}/{total} {unit}")

    def succeed(self, number: int, output: Any, size_bytes: int, **metrics: Any) -> None:
        self._post(self.jobs[number].succeed, output, metrics, size_bytes, self._clock.now())

    def fail(self, number: int, error: str) -> None:
        self._post(self.jobs[number].fail, error, self._clock.now())


def run_rows(
    rows: Sequence[int],
    together: Callable[[Sequence[int]], Sequence[Any]],
    succeed: Callable[[int, Any], None],
    fail: Callable[[int, str], None],
) -> None:
    """Run `rows` in one go; if that fails, each alone, so that a bad one fails by itself. Stopped passes through."""
    try:
        results = together(rows)
    except (Stopped, MemoryError):
        raise
    except Exception as error:  # whatever a graph raises is the row's failure, not the server's
        if len(rows) == 1:
            fail(rows[0], explain(error))
            return
        for row in rows:
            run_rows((row,), together, succeed, fail)
        return
    for row, result in zip(rows, results, strict=True):
        succeed(row, result)


def explain(error: BaseException) -> str:
    """The first line of an error, for the caller: no paths, no stack."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if "Status Message:" in text:
        text = text.rpartition("Status Message:")[2].strip()
    return f"the model raised {type(error).__name__}: {text[:300]}"
