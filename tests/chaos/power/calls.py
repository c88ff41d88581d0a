"""The system calls of a process and all its threads, as strace has seen them. What they should be, others say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# Of those that are asked for here only these may move the end of a file, or tell somebody of it.
TRACED = "write,writev,pwrite64,pwritev,ftruncate,fsync,fdatasync,sendto,sendmsg"
_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s*= (-?\d+)")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on the PATH")


class Call(NamedTuple):
    """`begun` and `ended` are places in one order over all threads."""

    begun: int
    ended: int
    at: float  # seconds, when it was begun
    name: str
    arguments: str
    result: int

    @property
    def is_sync(self) -> bool:
        return self.name in ("fsync", "fdatasync") and self.result == 0

    def is_on(self, name: str) -> bool:
        """Its descriptor is that of a file whose path ends so."""
        return re.match(rf"\d+<[^>]*{re.escape(name)}>", self.arguments) is not None


def prefix(out: Path) -> list[str]:
    """What a command line begins with, to be seen; it stays our own child, and gets our signals."""
    strace = shutil.which("strace")
    assert strace is not None
    return [
        strace,
        "-D",
        "-f",
        "-q",
        "-ttt",
        "-y",
        "-s",
        "5000",  # a page, whole
        "-e",
        f"trace={TRACED}",
        "-e",
        "signal=none",
        "-o",
        str(out),
    ]


def read(out: Path) -> list[Call]:
    return list(_read(out.read_text(errors="replace").splitlines()))


def _read(lines: list[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, float, str]] = {}
    for place, line in enumerate(lines):
        matched = _LINE.fullmatch(line)
        if matched is None:
            continue
        thread, at, text = matched[1], float(matched[2]), matched[3]
        if text.endswith("<unfinished ...>"):
            begun[thread] = (place, at, text.removesuffix("<unfinished ...>").rstrip())
            continue
        start = place
        resumed = _RESUMED.fullmatch(text)
        if resumed is not None:
            start, at, before = begun.pop(thread, (place, at, ""))
            text = before + resumed[2]
        call = _CALL.match(text)
        if call is not None:
            yield Call(start, place, at, call[1], call[2], int(call[3]))
