"""
The disk that the store is on fills up, and is freed again: 503s meanwhile, and nothing that was accepted is lost.

A small tmpfs, mounted in a namespace of its own (`unshare -Urm`), holds the store alone. Where namespaces
are not allowed there is nothing to show, and that is said.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.judge import Verdict
from tests.chaos.kills.scene import Options, Scene

# Of SQLite's a write-ahead log alone may take half; Redis' file holds every write there was, for it is not rewritten.
TMPFS_BYTES = {"sqlite": 128_000_000, "redis": 1_000_000_000}
FULL_SECONDS = 2.0
CALM_SECONDS = 2.0


def may_mount() -> bool:
    """Whether this process may make itself a tmpfs in a namespace of its own."""
    command = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        return False


def full_disk(folder: Path, options: Options) -> Verdict:
    """Runs in a child that has a small tmpfs at `folder/small`; here only if that is mounted already."""
    small = folder / "small"
    if not os.path.ismount(small):
        raise RuntimeError(f"nothing is mounted at {small}; enter by `within_small_disk`")
    return asyncio.run(_fill_and_free(folder, small, options))


async def _fill_and_free(folder: Path, small: Path, options: Options) -> Verdict:
    ballast = small / "ballast"
    refused: list[float] = []
    restarts = 0

    async def fill(scene: Scene, over: asyncio.Event) -> None:
        nonlocal restarts
        while not over.is_set():
            await asyncio.sleep(CALM_SECONDS)
            scene.trouble()
            await asyncio.to_thread(_fill, ballast)
            before = scene.caller_statuses()["503"]
            await asyncio.sleep(FULL_SECONDS)
            refused.append(scene.caller_statuses()["503"] - before)
            ballast.unlink()
            if scene.redis is not None and not scene.redis.is_running:
                # With `appendfsync always` it ends itself where it cannot write: whoever runs it starts it again.
                await asyncio.to_thread(scene.redis.start)
                restarts += 1
            scene.trouble()
            if sum(1 for count in refused if count) >= 3 and over.is_set():
                return

    with Scene(folder / "scene", options, store_folder=small / "store") as scene:
        verdict = await scene.play(lambda over: asyncio.create_task(fill(scene, over)))
        verdict.figures["times full"] = len(refused)
        verdict.figures["503s while full"] = int(sum(refused))
        if options.store == "redis":
            verdict.figures["ends of redis-server"] = restarts
        if not any(refused):
            verdict.break_("a full disk is felt", "no create was ever refused: nothing was shown")
        return verdict


def _fill(path: Path) -> None:
    """Take every block there is."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@contextmanager
def _small_disk(folder: Path, store: str) -> Iterator[None]:
    small = folder / "small"
    small.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES[store]}", "none", str(small)], check=True)
    yield


def within_small_disk(folder: Path, options: Options) -> tuple[bool, str]:
    """The scenario in a child with its own mounts; whether it held, and what it said."""
    command = [
        "unshare", "-Urmpf", "--mount-proc", "--kill-child", sys.executable, "-m", "tests.chaos.kills.disk",
        str(folder), options.store, str(options.predictions), str(options.seed), str(int(options.is_hurried)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    return done.returncode == 0, done.stdout + done.stderr[-4000:]


def main(arguments: list[str]) -> int:
    folder, store, predictions, seed, is_hurried = arguments
    options = Options(
        predictions=int(predictions), store=store, seed=int(seed), is_hurried=is_hurried == "1", clients=8
    )
    if is_hurried == "1":
        options = replace(options, attempt_seconds=5, patience_seconds=60, pause_seconds=0.5)
    if store == "redis":
        # An AOF that is rewritten needs room for two.
        options = replace(options, redis_options=("--auto-aof-rewrite-percentage", "0"))
    began = time.monotonic()
    with _small_disk(Path(folder), store):
        verdict = full_disk(Path(folder), options)
    print(verdict)
    print(f"  {time.monotonic() - began:.0f} s")
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
