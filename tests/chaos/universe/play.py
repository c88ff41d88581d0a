"""Plays one universe in this process from its beginning to its end, and reports what came of it. Judges none of it."""

from __future__ import annotations

import asyncio
import atexit
import gc
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.chaos.universe.judge import Judge, Line, Violation
from tests.chaos.universe.loop import UniverseLoop
from tests.chaos.universe.universe import Universe


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """What came of one universe. `trace` is the same for the same seed."""

    seed: int
    store: str
    predictions: int
    counts: dict[str, int]
    violations: tuple[Violation, ...]
    story: tuple[Line, ...] = ()  # of the predictions that were wronged
    trace: str = ""
    virtual_seconds: float = 0.0
    seconds: float = 0.0


def play(seed: int, *, store: str = "sqlite", server: Any = None, with_trace: bool = False, **plan: Any) -> Report:
    """A universe from its beginning to its end, in this process."""
    begun = time.perf_counter()
    with _folder() as folder, _quiet():
        loop = UniverseLoop(Random(f"schedule {seed}"))
        asyncio.set_event_loop(loop)
        universe = Universe(seed, folder, loop, server=server, **plan)
        loop.set_exception_handler(lambda _, told: _complain(universe.judge, told))
        try:
            loop.run_until_complete(loop.world.spawn(universe.run()))
        except Exception as error:
            universe.judge.breach("I12", "", f"the universe broke down: {type(error).__name__}: {error}")
            if not universe.judge.violations:
                raise
        finally:
            virtual = loop.time()
            judge = universe.judge
            loop.bury()
            loop.close()
            asyncio.set_event_loop(None)
            for path in folder.glob(f"{seed}.db*"):
                path.unlink()
    wronged = {violation.prediction for violation in judge.violations[:5]}
    return Report(
        seed=seed,
        store=store,
        predictions=len(judge.rows),
        counts=dict(universe.counts),
        violations=tuple(judge.violations[:20]),
        story=tuple(line for line in judge.chronicle if line.prediction in wronged),
        trace=_trace(judge.chronicle, loop.turns) if with_trace else "",
        virtual_seconds=virtual,
        seconds=time.perf_counter() - begun,
    )


def _complain(judge: Judge, told: dict[str, Any]) -> None:
    """A callback that fails stops whatever it was to move on. Tasks answer for themselves."""
    if "handle" in told:
        judge.breach("I12", "", f"a callback failed: {told['exception']!r} {told['message']}")


def _trace(chronicle: list[Line], turns: int) -> str:
    digest = hashlib.sha256(str(turns).encode())
    for line in chronicle:
        digest.update(repr(line).encode())
    return digest.hexdigest()


_FOLDER: list[Path] = []


@contextmanager
def _folder() -> Iterator[Path]:
    """One for this process, in memory if it can be."""
    if not _FOLDER:
        memory = Path("/dev/shm")
        place = tempfile.mkdtemp(prefix="turnout-universe-", dir=memory if memory.is_dir() else None)
        _FOLDER.append(Path(place))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    yield _FOLDER[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """The gateway's log says nothing the chronicle does not; and no collection runs in the middle of a universe."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
