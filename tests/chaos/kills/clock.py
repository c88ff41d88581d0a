"""
The machine's clock is set an hour ahead and an hour back while predictions run. The gateway alone is told so.

A small library that is loaded before libc answers every question for the wall clock, whoever of the process asks: as a
machine's clock does when it is set by hand. Monotonic clocks and sleeps stay as they are. It needs a C compiler.
"""

from __future__ import annotations

import asyncio
import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.judge import Verdict
from tests.chaos.kills.scene import Options, Scene

STEPS_SECONDS = (3600.0, -3600.0, 7200.0, 0.0)
EACH_SECONDS = 2.0
DEADLINE_SECONDS = 600.0  # an hour is far beyond it, either way; and no row of faults takes so long
_SOURCE = Path(__file__).with_name("shifted_clock.c")


def has_compiler() -> bool:
    return shutil.which("cc") is not None


class ShiftedClock:
    """`environ` has a process see the machine's time plus what `shift` was told last."""

    def __init__(self, folder: Path, shared: mmap.mmap) -> None:
        self.environ = {"LD_PRELOAD": str(folder / "shifted_clock.so"), "SHIFTED_CLOCK": str(folder / "shift")}
        self._shared = shared

    def shift(self, seconds: float) -> None:
        self._shared[:8] = struct.pack("d", seconds)


@contextmanager
def shifted_clock(folder: Path) -> Iterator[ShiftedClock]:
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "shifted_clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl", "-lm"]
    subprocess.run(command, check=True, timeout=60)
    (folder / "shift").write_bytes(struct.pack("d", 0.0))
    with (folder / "shift").open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        yield ShiftedClock(folder, shared)


def stepped_clock(folder: Path, options: Options) -> Verdict:
    return asyncio.run(_stepped(folder, options))


async def _stepped(folder: Path, options: Options) -> Verdict:
    with shifted_clock(folder / "clock") as clock:
        # An interpreter of its own: what is preloaded has to be there before it begins.
        environ = options.environ | clock.environ
        options = replace(options, environ=environ, is_fresh=True, deadline_seconds=DEADLINE_SECONDS)

        async def step(scene: Scene, over: asyncio.Event) -> None:
            steps = 0
            while not over.is_set() or steps < len(STEPS_SECONDS):
                clock.shift(STEPS_SECONDS[steps % len(STEPS_SECONDS)])
                steps += 1
                scene.trouble()
                await asyncio.sleep(EACH_SECONDS)
            clock.shift(0.0)

        with Scene(folder, options) as scene:
            verdict = await scene.play(lambda over: asyncio.create_task(step(scene, over)))
            failed = [one for one in scene.asked if one.shown.get("status") not in (None, "succeeded")]
            for one in failed:
                verdict.break_("no deadline passes by a step", f"{one.id} {one.shown['status']}: {one.shown['error']}")
            verdict.figures["steps"] = len(scene.kills)
            return verdict
