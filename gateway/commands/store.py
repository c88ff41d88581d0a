"""`turnout store export|import`: moves all that a store holds into another one. How the file looks is the store's."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from gateway import __version__
from gateway.config.load import Loaded, load
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError, refuse
from gateway.store import archive
from gateway.store.archive import Counts
from gateway.store.opening import StorePlace, open_store
from gateway.store.protocol import Store

_PROGRESS_SECONDS = 2.0
_BUFFER_BYTES = 1 << 20
_STREAM = Path("-")


def run(options: argparse.Namespace) -> int:
    loaded = load(options.config, environ=os.environ)
    if options.verb == "export":
        asyncio.run(_export(loaded, options.file))
    else:
        asyncio.run(_import(loaded, options.file))
    return 0


async def _export(loaded: Loaded, file: Path) -> None:
    path = loaded.store_path
    if path is not None and not path.exists():  # opening it would make an empty one
        raise refuse("there is no store to export", place=str(path), remedy="name its file in [store] url")
    async with opened(loaded) as store:
        with _target(file) as out:
            counts = await archive.write(
                store, out, made_by=f"turnout {__version__}", at=SystemClock().now(), progress=_Progress("read")
            )
    _say(f"exported {counts}")
    _say("It holds inputs, outputs and the keys that sign links and webhooks: let nobody read it, and remove it after.")
    _say("Files are not in it: the other gateway needs the folder in [artifacts] path too.")


async def _import(loaded: Loaded, file: Path) -> None:
    place = "standard input" if file == _STREAM else str(file)
    with _source(file) as source:
        end = archive.examine(source, place=place)
        _say(f"the file is whole: {end.counts}")
        async with opened(loaded) as store:
            counts = await archive.fill(store, source, place=place, progress=_Progress("written"))
    _say(f"imported {counts}")


@contextlib.asynccontextmanager
async def opened(loaded: Loaded) -> AsyncIterator[Store]:
    place = StorePlace(loaded.store, clock=SystemClock(), draw=random.random)
    with loaded.blaming("store", "url"):
        store = await open_store(place, reduce=_change_nothing, snapshot=_change_nothing)
    try:
        yield store
    finally:
        await store.aclose()


def _change_nothing(*_: object) -> NoReturn:
    raise AssertionError("nothing is changed while a store is moved")


@contextlib.contextmanager
def _target(file: Path) -> Iterator[BinaryIO]:
    """What is written stands under its name once it is whole and on the disk."""
    if file == _STREAM:
        if sys.stdout.isatty():
            raise refuse("a terminal is no place for it", place="standard output", remedy="name a file, or use a pipe")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = file.with_name(f"{file.name}.part")
    if file.exists():
        raise refuse("it is there already", place=str(file), remedy="name another file, or remove it")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()  # of one that was broken off
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=_BUFFER_BYTES) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.rename(file)
        _sync_folder(file.parent)
    except OSError as error:
        raise _unusable(file, "written", error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    """One that can be read twice: nothing goes into a store before all of it was examined."""
    with contextlib.ExitStack() as stack:
        try:
            if file == _STREAM:
                # Nobody else can read it, and it is gone with us, however we end.
                source: BinaryIO = stack.enter_context(tempfile.TemporaryFile(prefix="turnout-import-"))
                shutil.copyfileobj(sys.stdin.buffer, source, _BUFFER_BYTES)
            else:
                source = stack.enter_context(file.open("rb", buffering=_BUFFER_BYTES))
                source.seek(0)
        except (OSError, io.UnsupportedOperation) as error:
            raise _unusable(file, "read", error) from error
        yield source


def _unusable(file: Path, what: str, error: OSError) -> ConfigurationError:
    return refuse(f"it cannot be {what}: {error.strerror or error}", place=str(file), remedy="name another file")


class _Progress:
    def __init__(self, what: str) -> None:
        self._what = what
        self._next_at = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, counts: Counts) -> None:
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + _PROGRESS_SECONDS
            _say(f"{counts.predictions} predictions {self._what}")


def _say(line: str) -> None:
    # Standard output is for the file.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
