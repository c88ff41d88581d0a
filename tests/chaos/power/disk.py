"""
A disk that loses its power: what was written lies in its memory until it is synced, and what of it survives is chance.

It replays a log of what a program did to its files. Who writes the log, and who looks at the ruins, is not its affair.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SECTOR_BYTES = 512  # a write is torn at its sectors, never within one


class Write(NamedTuple):
    file: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: str
    size: int


class Delete(NamedTuple):
    file: str
    is_synced: bool  # with its folder


class Sync(NamedTuple):
    """Completed: all that was done to the file before it, and that there is such a file, is durable."""

    file: str


class Told(NamedTuple):
    """Somebody was told that this is kept."""

    what: str


Step = Write | Truncate | Delete | Sync | Told
Change = Write | Truncate | Delete


class Loss(enum.StrEnum):
    """What the cut leaves of what was not synced."""

    ALL = "all"
    TAIL = "tail"  # of each file, the last changes
    ANY = "any"  # each change is kept or lost by itself, a write sector by sector


class Ruin(NamedTuple):
    """What is found when the power is back."""

    cut: int  # steps that were done
    loss: Loss
    files: dict[str, bytes]
    told: list[str]


def cut(log: Sequence[Step], cuts: Sequence[int], seed: int) -> Iterator[Ruin]:
    """A ruin for each of `cuts`, in their order in the log; which losses they see follows from `seed`."""
    disk = _Disk()
    done = 0
    for number, moment in enumerate(sorted(cuts)):
        for step in log[done:moment]:
            disk.do(step)
        done = moment
        chance = random.Random(f"{seed}.{number}.{moment}")
        loss = chance.choice(list(Loss))
        yield Ruin(moment, loss, disk.ruin(loss, chance), list(disk.told))


def lay_out(ruin: Ruin, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in ruin.files.items():
        (folder / name).write_bytes(content)


class _Disk:
    def __init__(self) -> None:
        self.told: list[str] = []
        self._durable: dict[str, bytearray] = {}
        self._pending: dict[str, list[Change]] = {}

    def do(self, step: Step) -> None:
        match step:
            case Told(what):
                self.told.append(what)
            case Sync(file):
                self._durable.setdefault(file, bytearray())
                for change in self._pending.pop(file, []):
                    _apply(self._durable, change)
            case Delete(file, True):
                self._durable.pop(file, None)
                self._pending.pop(file, None)
            case _:
                self._pending.setdefault(step.file, []).append(step)

    def ruin(self, loss: Loss, chance: random.Random) -> dict[str, bytes]:
        files = {name: bytearray(content) for name, content in self._durable.items()}
        for changes in self._pending.values():
            for change in _survivors(changes, loss, chance):
                _apply(files, change)
        return {name: bytes(content) for name, content in files.items()}


def _survivors(changes: list[Change], loss: Loss, chance: random.Random) -> Iterator[Change]:
    if loss is Loss.ALL:
        return
    if loss is Loss.TAIL:
        kept = chance.randint(0, len(changes))
        yield from changes[:kept]
        if kept < len(changes):
            last = changes[kept]
            if isinstance(last, Write):
                yield last._replace(data=last.data[: chance.randrange(0, len(last.data) + 1, SECTOR_BYTES)])
        return
    share = chance.random()
    for change in changes:
        if not isinstance(change, Write):
            if chance.random() < share:
                yield change
            continue
        for start in range(0, len(change.data), SECTOR_BYTES):
            if chance.random() < share:
                yield Write(change.file, change.offset + start, change.data[start : start + SECTOR_BYTES])


def _apply(files: dict[str, bytearray], change: Change) -> None:
    if isinstance(change, Delete):
        files.pop(change.file, None)
        return
    content = files.setdefault(change.file, bytearray())
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    end = change.offset + len(change.data)
    content.extend(bytes(max(0, end - len(content))))
    content[change.offset : end] = change.data
