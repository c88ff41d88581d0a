"""The policy files, read as one set and swapped whole when they change. What a policy says is not its business."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from gateway.contract.errors import ConfigurationError, refuse
from gateway.contract.observer import Observer
from policies.document import Policy

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]
Accept = Callable[[tuple[Policy, ...]], None]


class Read(Protocol):
    """Reads the text of one policy file. Raises ConfigurationError with one line per problem."""

    def __call__(self, text: str, *, place: str) -> tuple[Policy, ...]: ...


class PolicySet(msgspec.Struct, kw_only=True, frozen=True):
    """All policies at one moment. `version` names this very set: 12 hex of the files' contents."""

    policies: tuple[Policy, ...]
    version: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(policy.name for policy in self.policies)

    def find(self, name: str) -> Policy | None:
        return next((policy for policy in self.policies if policy.name == name), None)


class PolicyFiles:
    """
    The policies in `paths` (files, or folders of *.toml).

    Reading the first set raises ConfigurationError. Later a set with anything wrong in it is refused aloud and the
    last good one stays. `accept` may refuse a set for what the rest of the configuration needs of it.
    """

    def __init__(self, paths: Sequence[Path], *, read: Read, accept: Accept | None = None) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._accept = accept
        self._seen = self._fingerprint()  # before reading: a write in between shows as a change later
        self._pending: Fingerprint | None = None
        self._current = self._read_all()
        self.observer = Observer()  # whoever runs it may set its own; it is told from a thread

    def current(self) -> PolicySet:
        return self._current

    async def run(
        self, *, every_seconds: float = 1.0, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Look for changes until cancelled. Nothing that a disk does ends it."""
        while True:
            await sleep(every_seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """
        Look once; True if the set was swapped.

        A change is read only when the next look finds it unchanged: half a file may well be valid TOML, and say less.
        """
        found = self._fingerprint()
        if found == self._seen:
            self._pending = None
            return False
        if found != self._pending:
            self._pending = found
            return False
        self._seen, self._pending = found, None
        before = self._current
        try:
            self._current = self._read_all()
        except ConfigurationError as error:
            for line in str(error).splitlines():
                log.error("policies refused, version %s stays: %s", before.version, line)  # noqa: TRY400 - no trace: it says all
            self.observer.policies_read(before.version, refused=True)
            return False
        if self._current.version == before.version:
            return False
        log.info("policies swapped, version %s → %s: %s", before.version, self._current.version, self._changes(before))
        self.observer.policies_read(self._current.version, refused=False)
        return True

    def _changes(self, before: PolicySet) -> str:
        old = {policy.name: policy for policy in before.policies}
        new = {policy.name: policy for policy in self._current.policies}
        changes = [f"+{name}" for name in new.keys() - old.keys()]
        changes += [f"-{name}" for name in old.keys() - new.keys()]
        changes += [f"~{name}" for name in new.keys() & old.keys() if new[name] != old[name]]
        return ", ".join(sorted(changes, key=lambda change: change[1:])) or "the same policies in other words"

    def files(self) -> Iterator[Path]:
        """Those that are there now, in the order in which their policies are asked."""
        for path in self._paths:
            if path.is_dir():
                yield from sorted(file for file in path.glob("*.toml") if not file.name.startswith("."))
            else:
                yield path

    def _fingerprint(self) -> Fingerprint:
        marks = []
        for file in self.files():
            try:
                state = file.stat()
            except OSError:
                marks.append((str(file), 0, 0, -1))
            else:
                marks.append((str(file), state.st_mtime_ns, state.st_ino, state.st_size))
        return tuple(marks)

    def _read_all(self) -> PolicySet:
        policies: list[Policy] = []
        homes: dict[str, Path] = {}
        wrong: list[str] = []
        digest = hashlib.sha256()
        for file in self.files():
            try:
                content = file.read_bytes()
                digest.update(len(content).to_bytes(8, "big") + content)
                found = self._read(content.decode("utf-8"), place=str(file))
            except ConfigurationError as error:
                wrong += str(error).splitlines()
                continue
            except UnicodeDecodeError as error:
                wrong.append(
                    str(refuse(f"not UTF-8 at byte {error.start}", place=str(file), remedy="save it as UTF-8"))
                )
                continue
            except OSError as error:
                reason = f"it cannot be read ({error.strerror})"
                wrong.append(str(refuse(reason, place=str(file), remedy="correct the path")))
                continue
            for policy in found:
                if policy.name in homes:
                    problem = f'policy "{policy.name}" is there already, in {homes[policy.name]}'
                    wrong.append(str(refuse(problem, place=str(file), remedy="give one of them another name")))
                homes.setdefault(policy.name, file)
            policies += found
        if wrong:
            raise ConfigurationError("\n".join(wrong))
        if self._accept is not None:
            self._accept(tuple(policies))
        return PolicySet(policies=tuple(policies), version=digest.hexdigest()[:12])
