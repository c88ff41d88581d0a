"""Batches that run right here, without a worker's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.contract.clock import SystemClock
from local_backend.batcher import Batch, Kind
from local_backend.job import Job, Work

RunHere = Callable[..., list[Job]]


@pytest.fixture
async def run_here() -> RunHere:
    """run_here(kind, input, …): prepare and run inputs as one batch; returns their jobs, ended."""

    def run(kind: Kind, *inputs: dict[str, Any]) -> list[Job]:
        clock = SystemClock()
        jobs = []
        for number, given in enumerate(inputs):
            job = Job(str(number), model="m", version="v", input={}, now=clock.now(), deadline=None)
            job.work = given if isinstance(given, Work) else kind.prepare(given)
            jobs.append(job)
        kind.run(Batch(jobs, post=lambda function, *arguments: function(*arguments), clock=clock))
        return jobs

    return run
