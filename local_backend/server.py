"""The model server itself: packages, their workers, predictions and who may still come in. Speaks no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.contract.clock import Clock, Ids
from gateway.contract.errors import Conflict, NotFound
from local_backend.batcher import Kind
from local_backend.dialect import Busy, CreateBody, Unready, read_version, shorten, version_missing
from local_backend.input import check_input
from local_backend.job import Job, Shelf
from local_backend.package import Package
from local_backend.queue import ModelUnfit, Worker, as_post

# What waiting jobs may hold in memory together, beside the bound on their number.
MAX_WAITING_BYTES = 512 * 2**20
# A native call that has not heard its stop for so long will not: only a new process helps.
STUCK_SECONDS = 30.0

OpenKind = Callable[[Package], Kind]


class ModelServer:
    """
    Runs predictions of `packages`, at most `max_queue` waiting at a time. Lives on one event loop.

    `open_kind` opens a package's model, on its worker's thread.
    """

    def __init__(
        self,
        packages: Sequence[Package],
        open_kind: OpenKind,
        *,
        max_queue: int,
        clock: Clock,
        ids: Ids,
        shelf: Shelf | None = None,
    ) -> None:
        self._packages = {package.version: package for package in packages}
        self._defaults = {package.manifest.name: package for package in packages}  # the last found, as in `describe`
        self._max_queue = max_queue
        self._clock = clock
        self._ids = ids
        self._shelf = shelf or Shelf()
        self._jobs: dict[str, Job] = {}
        self._creations: dict[str, tuple[str, asyncio.Task[Job]]] = {}
        self._keys: dict[str, str] = {}  # job id → idempotency key
        self._watches: set[asyncio.Task[None]] = set()
        self._preparing = 0
        self._waiting_bytes = 0
        # Its own thread: pictures are decoded and texts cut here, and the default executor belongs to nobody.
        self._intake = ThreadPoolExecutor(max_workers=1, thread_name_prefix="intake")
        post = as_post(asyncio.get_running_loop())
        self._workers = {
            version: Worker(package.manifest.name, _opener(open_kind, package), clock=clock, post=post)
            for version, package in self._packages.items()
        }
        for worker in self._workers.values():
            worker.start()

    # -- what there is -----------------------------------------------------------------------------------------------

    def models(self) -> list[Package]:
        return list(self._defaults.values())

    def model(self, slug: str) -> Package:
        """The default version's package. Raises NotFound."""
        package = self._defaults.get(slug)
        if package is None:
            raise _not_found()
        return package

    def versions(self, slug: str) -> list[Package]:
        """Newest first. Raises NotFound."""
        self.model(slug)
        return [package for package in reversed(self._packages.values()) if package.manifest.name == slug]

    def resolve(self, version: str) -> Package:
        """Any of the three ways to name a version. Raises VersionMissing."""
        slug, id = read_version(version)
        package = self._packages.get(id) if id else self._defaults.get(slug or "")
        if package is None or (slug and package.manifest.name != slug):
            raise version_missing()
        return package

    # -- predictions -------------------------------------------------------------------------------------------------

    async def create(
        self, package: Package, body: CreateBody, *, key: str | None, body_hash: str, deadline_seconds: float | None
    ) -> Job:
        """
        Accept a prediction, or return the one that the same key made before. It is queued when this returns.

        Raises InputInvalid, Busy, Unready, Conflict.
        """
        if key is None:
            return await self._accept(package, body, deadline_seconds)
        scoped = hashlib.sha256(key.encode()).hexdigest()
        known = self._creations.get(scoped)
        if known is None:
            task = asyncio.ensure_future(self._accept(package, body, deadline_seconds))
            self._creations[scoped] = (body_hash, task)
            task.add_done_callback(lambda done: self._remember(scoped, done))
        elif known[0] != body_hash:
            raise Conflict("This idempotency key was used with another body.")
        else:
            task = known[1]
        return await asyncio.shield(task)

    def _remember(self, key: str, task: asyncio.Task[Job]) -> None:
        """A key answers for as long as its prediction is kept; a refusal ran nothing, and may be tried again."""
        if task.cancelled() or task.exception() is not None:
            del self._creations[key]
        else:
            self._keys[task.result().id] = key

    async def _accept(self, package: Package, body: CreateBody, deadline_seconds: float | None) -> Job:
        checked = check_input(package.manifest, body.input)
        worker = self._workers[package.version]
        waiting = self._preparing + sum(one.waiting_count for one in self._workers.values())
        if waiting >= self._max_queue or self._waiting_bytes >= MAX_WAITING_BYTES:
            raise Busy(
                "The queue of this server is full.", retry_after_seconds=_whole_seconds(worker.seconds_until_free())
            )
        now = self._clock.now()
        begun, cold_seconds = self._clock.monotonic(), 0.0
        is_cold = not worker.opened.done()
        self._preparing += 1
        try:
            async with asyncio.timeout(deadline_seconds):
                kind = await asyncio.shield(worker.opened)
            if is_cold:
                cold_seconds = self._clock.monotonic() - begun
            work = await asyncio.get_running_loop().run_in_executor(self._intake, kind.prepare, checked)
        except TimeoutError:
            raise Busy("The model is still loading.", retry_after_seconds=5) from None
        except ModelUnfit as unfit:
            raise Unready(f"The model cannot be opened: {unfit}") from None
        finally:
            self._preparing -= 1
        if deadline_seconds is not None:
            _check_deadline(worker, work.cost, deadline_seconds)
        job = Job(
            self._ids.prediction(),
            model=package.manifest.name,
            version=package.version,
            input=shorten(checked),
            now=now,
            deadline=None if deadline_seconds is None else now + timedelta(seconds=deadline_seconds),
        )
        job.work = work
        job.cold_seconds = cold_seconds
        self._jobs[job.id] = job
        self._watch(job, worker, work.size_bytes, deadline_seconds)
        worker.submit(job)
        return job

    def _watch(self, job: Job, worker: Worker, size_bytes: int, deadline_seconds: float | None) -> None:
        self._waiting_bytes += size_bytes
        task = asyncio.ensure_future(self._follow(job, worker, size_bytes, deadline_seconds))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _follow(self, job: Job, worker: Worker, size_bytes: int, deadline_seconds: float | None) -> None:
        try:
            await asyncio.wait_for(job.ended.wait(), deadline_seconds)
        except TimeoutError:
            job.cancel(self._clock.now(), why="The prediction's deadline has passed.")
        worker.release(job)
        self._waiting_bytes -= size_bytes
        self._forget(self._shelf.put(job, self._clock.monotonic()))

    def get(self, id: str) -> Job:
        """Raises NotFound."""
        self._forget(self._shelf.sweep(self._clock.monotonic()))
        job = self._jobs.get(id)
        if job is None:
            raise _not_found()
        return job

    async def wait(self, job: Job, seconds: float) -> None:
        """Return when `job` has ended, or after `seconds`."""
        try:
            await asyncio.wait_for(job.ended.wait(), seconds)
        except TimeoutError:
            return

    def cancel(self, id: str) -> Job:
        """End a prediction now; if it is running its run is told to stop at its next node. Raises NotFound."""
        job = self.get(id)
        if not job.is_over:
            job.cancel(self._clock.now())
            self._workers[job.version].release(job)
        return job

    def _forget(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._jobs.pop(job.id, None)
            key = self._keys.pop(job.id, None)
            if key is not None:
                self._creations.pop(key, None)

    # -- health ------------------------------------------------------------------------------------------------------

    @property
    def is_stuck(self) -> bool:
        return any(worker.overrun_seconds() > STUCK_SECONDS for worker in self._workers.values())

    def health(self) -> dict[str, Any]:
        self._forget(self._shelf.sweep(self._clock.monotonic()))
        return {
            "state": "stuck" if self.is_stuck else "ready",
            "queue": self._preparing + sum(worker.waiting_count for worker in self._workers.values()),
            "max_queue": self._max_queue,
            "running": sum(worker.is_running for worker in self._workers.values()),
            "batches": sum(worker.batches for worker in self._workers.values()),
            "batched": sum(worker.batched for worker in self._workers.values()),
            "memory_bytes": _resident_bytes(),
            "models": [
                {
                    "model": package.manifest.name,
                    "version": version,
                    "state": self._workers[version].state,
                    "devices": sorted(set(self._workers[version].devices)),
                    "problem": self._workers[version].problem,
                    "queue": self._workers[version].waiting_count,
                }
                for version, package in self._packages.items()
            ],
        }

    async def aclose(self) -> None:
        """Cancel what is open, and let the threads go."""
        for job in [job for job in self._jobs.values() if not job.is_over]:
            job.cancel(self._clock.now())
        await asyncio.gather(*self._watches)
        for worker in self._workers.values():
            worker.close()
        self._intake.shutdown(wait=False, cancel_futures=True)


def _resident_bytes() -> int | None:
    """Of this process; None where the kernel does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _opener(open_kind: OpenKind, package: Package) -> Callable[[], Kind]:
    return lambda: open_kind(package)


def _not_found() -> NotFound:
    return NotFound("The requested resource could not be found.")


def _check_deadline(worker: Worker, cost: float, deadline_seconds: float) -> None:
    needed = worker.seconds_for(cost)
    if needed is None:
        return
    ahead = worker.seconds_until_free()
    if ahead + needed > deadline_seconds:
        raise Busy(
            f"This would be done in about {ahead + needed:.0f} s, after its deadline.",
            retry_after_seconds=_whole_seconds(min(ahead, ahead + needed - deadline_seconds)),
        )


def _whole_seconds(seconds: float) -> int:
    return max(1, min(math.ceil(seconds), 600))
