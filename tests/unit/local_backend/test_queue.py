"""Batches that grow while busy, jobs that end once, estimates, and a worker that outlives its model's failures."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.clock import SystemClock
from gateway.contract.prediction import Status
from local_backend.batcher import Batch, Stopped, take
from local_backend.job import Job, Shelf, Work
from local_backend.queue import Estimate, ModelUnfit, Worker, as_post

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(id: str = "j", *, cost: float = 1.0, group: str | None = "g") -> Job:
    made = Job(id, model="m", version="v", input={}, now=NOW, deadline=None)
    made.work = Work(payload=id, cost=cost, size_bytes=0, group=group)
    return made


class Gated:
    """A kind whose runs begin when told, and go on until told: no sleeps."""

    max_cost = 4.0
    devices: tuple[str, ...] = ("cpu",)

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def prepare(self, input: dict[str, Any]) -> Work:
        return Work(payload=input, cost=1.0, size_bytes=0)

    def run(self, batch: Batch) -> None:
        self.batches.append([work.payload for _, work in batch.wanted()])
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if batch.is_stopped:
            raise Stopped
        if self.error is not None:
            raise self.error
        for number, work in batch.wanted():
            batch.succeed(number, work.payload, 1)


@pytest.fixture
async def kind() -> Gated:
    return Gated()


@pytest.fixture
async def worker(kind: Gated) -> AsyncIterator[Worker]:
    made = Worker("m", lambda: kind, clock=SystemClock(), post=as_post(asyncio.get_running_loop()))
    made.start()
    await made.opened
    yield made
    made.close()
    kind.go.release(100)
    made._thread.join(5)


async def _begun(kind: Gated) -> None:
    assert await asyncio.to_thread(kind.begun.acquire, timeout=10)


async def test_a_lone_job_runs_at_once_and_the_next_batch_grows_meanwhile(worker: Worker, kind: Gated) -> None:
    jobs = [job(str(number)) for number in range(7)]
    worker.submit(jobs[0])
    await _begun(kind)
    for one in jobs[1:]:
        worker.submit(one)
    kind.go.release(3)
    await asyncio.gather(*(one.ended.wait() for one in jobs))
    assert kind.batches == [["0"], ["1", "2", "3", "4"], ["5", "6"]]
    assert all(one.status is Status.SUCCEEDED for one in jobs)


async def test_a_job_that_was_released_from_the_queue_never_runs(worker: Worker, kind: Gated) -> None:
    running, queued, last = job("running"), job("queued"), job("last")
    for one in (running, queued, last):
        worker.submit(one)
        if one is running:
            await _begun(kind)
    queued.cancel(NOW)
    worker.release(queued)
    kind.go.release(2)
    await asyncio.gather(running.ended.wait(), last.ended.wait())
    assert kind.batches == [["running"], ["last"]]


async def test_a_shared_run_is_stopped_only_when_nobody_wants_it(worker: Worker, kind: Gated) -> None:
    first = job("first")
    worker.submit(first)
    await _begun(kind)
    pair = [job("a"), job("b")]
    for one in pair:
        worker.submit(one)
    kind.go.release()
    await _begun(kind)
    batch = worker._batch
    assert batch is not None
    pair[0].cancel(NOW)
    worker.release(pair[0])
    assert not batch.is_stopped
    assert worker.overrun_seconds() == 0
    pair[1].cancel(NOW)
    worker.release(pair[1])
    assert batch.is_stopped
    assert worker.overrun_seconds() > 0
    kind.go.release()
    after = job("after")
    worker.submit(after)
    kind.go.release()
    await after.ended.wait()
    assert after.status is Status.SUCCEEDED


async def test_a_model_that_raises_fails_its_batch_and_the_worker_goes_on(worker: Worker, kind: Gated) -> None:
    kind.error = RuntimeError("boom\nwith a stack")
    bad = job("bad")
    worker.submit(bad)
    kind.go.release()
    await bad.ended.wait()
    assert bad.error == "the model raised RuntimeError: boom"
    kind.error = None
    good = job("good")
    worker.submit(good)
    kind.go.release()
    await good.ended.wait()
    assert good.status is Status.SUCCEEDED


async def test_a_model_that_cannot_be_opened_says_why() -> None:
    def refuse() -> Gated:
        raise ValueError("no such graph")

    worker = Worker("m", refuse, clock=SystemClock(), post=as_post(asyncio.get_running_loop()))
    worker.start()
    with pytest.raises(ModelUnfit, match="no such graph"):
        await worker.opened
    assert worker.state == "failed"


def test_taking_keeps_the_oldest_first_the_group_together_and_the_order_of_the_rest() -> None:
    waiting = deque([job("a"), job("x", group="other"), job("b", cost=3), job("c"), job("d", cost=2), job("e")])
    assert [one.id for one in take(waiting, 6)] == ["a", "b", "c", "e"]
    assert [one.id for one in take(waiting, 6)] == ["x"]
    assert [one.id for one in take(waiting, 6)] == ["d"]


def test_work_without_a_group_and_work_over_the_limit_run_alone() -> None:
    waiting = deque([job("a", group=None), job("b", group=None), job("c", cost=100), job("d")])
    assert [[one.id for one in take(waiting, 6)] for _ in range(4)] == [["a"], ["b"], ["c"], ["d"]]


@given(st.floats(0, 10), st.floats(0, 10), st.lists(st.floats(1, 1_000), min_size=2, max_size=50))
def test_an_estimate_finds_the_line_its_runs_lie_on(slope: float, start: float, costs: list[float]) -> None:
    estimate = Estimate()
    for cost in costs:
        estimate.learn(cost, slope * cost + start)
    wide = max(costs) - min(costs) > 1
    if wide:
        assert estimate.seconds(500) == pytest.approx(slope * 500 + start, rel=1e-3, abs=1e-2)
    more, less = estimate.seconds(2_000), estimate.seconds(1)
    assert more is not None
    assert less is not None
    assert more >= less >= 0


def test_without_a_run_there_is_no_estimate() -> None:
    assert Estimate().seconds(1) is None


def test_the_first_end_of_a_job_is_final() -> None:
    one = job()
    one.start(NOW)
    one.cancel(NOW + timedelta(seconds=2))
    one.succeed("late", {}, 1, NOW + timedelta(seconds=3))
    one.fail("later", NOW + timedelta(seconds=4))
    one.log("latest")
    assert (one.status, one.output, one.error, one.logs) == (Status.CANCELED, None, None, "")
    assert one.metrics == {"predict_time": 2.0, "total_time": 2.0}
    assert one.work is None


def test_a_deadline_before_the_start_is_an_abort_and_after_it_a_cancel() -> None:
    queued, running = job(), job()
    running.start(NOW)
    for one in (queued, running):
        one.cancel(NOW, why="The prediction's deadline has passed.")
    assert (queued.status, running.status) == (Status.ABORTED, Status.CANCELED)


def _ended(id: str, size_bytes: int = 0) -> Job:
    one = job(id)
    one.succeed("x", {}, size_bytes, NOW)
    return one


def test_the_shelf_keeps_for_its_time() -> None:
    shelf = Shelf(seconds=600)
    shelf.put(_ended("a"), 0)
    shelf.put(_ended("b"), 500)
    assert shelf.sweep(599) == []
    assert [one.id for one in shelf.sweep(600)] == ["a"]
    assert [one.id for one in shelf.sweep(10_000)] == ["b"]


def test_the_shelf_is_bounded_by_count_and_bytes_and_always_keeps_the_newest() -> None:
    shelf = Shelf(count=2)
    assert shelf.put(_ended("a"), 0) == shelf.put(_ended("b"), 0) == []
    assert [one.id for one in shelf.put(_ended("c"), 0)] == ["a"]
    shelf = Shelf(size_bytes=100)
    shelf.put(_ended("a", 60), 0)
    assert [one.id for one in shelf.put(_ended("b", 60), 0)] == ["a"]
    assert [one.id for one in shelf.put(_ended("giant", 1_000), 0)] == ["b"]
