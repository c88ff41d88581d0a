"""Keeps files in a local folder, each whole or not at all. Knows no prediction, and serves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import msgspec

from gateway.artifact.content import HEAD_BYTES, safe_name, settle_type
from gateway.artifact.links import Links, is_token
from gateway.contract.clock import Clock, Ids
from gateway.contract.errors import ConfigurationError, StoreUnavailable, TooLarge, refuse
from gateway.contract.observer import Observer

WRITE_BYTES = 1_000_000  # gathered before a thread is asked to write
INPUT_SPARE_SECONDS = 60.0
ABANDONED_SECONDS = 86_400  # a draft that no process can still be writing

P = ParamSpec("P")
T = TypeVar("T")

_CONTENT = "content"
_ABOUT = "about.json"


class About(msgspec.Struct, kw_only=True, frozen=True):
    """What lies beside the bytes."""

    owner: str
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    md5: str
    kept_at: datetime
    expires_at: datetime | None = None  # None: for ever


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """A file that is in our keeping: durable when you have this."""

    token: str
    size_bytes: int
    sha256: str
    md5: str
    content_type: str
    name: str


class Opened(msgspec.Struct, kw_only=True, frozen=True):
    """A file in our keeping, ready to be read."""

    path: Path
    name: str
    content_type: str
    size_bytes: int
    etag: str  # MD5, hex


class Artifacts:
    """
    Files under unguessable tokens: `path/ab/abcd…/content` and what is known of it beside.

    A file is written as a draft, synced, and then renamed into its place as a whole: a crash leaves a draft or a file,
    never half of one. Raises ConfigurationError if the folder cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        public_url: str,
        signing_secret: bytes,
        max_file_bytes: int,
        ids: Ids,
        clock: Clock,
        observer: Observer | None = None,
        link_seconds: float = 86_400,
        file_seconds: float = 86_400,
    ) -> None:
        self.links = Links(public_url, signing_secret, clock, link_seconds=link_seconds)
        self.max_file_bytes = max_file_bytes
        self.file_seconds = file_seconds
        self._path = Path(path)
        self._drafts = self._path / "drafts"
        self._ids = ids
        self._clock = clock
        self._observer = observer or Observer()
        _prepare(self._path, self._drafts, ids.token())

    async def keep(
        self,
        chunks: AsyncIterator[bytes] | bytes,
        *,
        owner: str,
        name: str,
        content_type: str,
        token: str | None = None,
        is_output: bool = False,
    ) -> Kept:
        """
        Take a file. Outputs are kept for ever, inputs for `file_seconds` and a minute.

        A token that is kept already is left as it is, and `chunks` unread. Raises TooLarge, and StoreUnavailable if the
        disk does not take it.
        """
        if token is not None and not is_token(token):
            raise ValueError("a token has 43 characters of A-Z a-z 0-9 _ -")
        about = await asyncio.to_thread(self._about, token) if token else None
        token = token or self._ids.token()
        if about is None:
            about = await self._write(chunks, token, owner, safe_name(name), content_type, is_output=is_output)
            self._observer.artifact_kept("output" if is_output else "input", about.size_bytes)
        return Kept(
            token=token,
            size_bytes=about.size_bytes,
            sha256=about.sha256,
            md5=about.md5,
            content_type=about.content_type,
            name=about.name,
        )

    async def open(self, token: str) -> Opened | None:
        """None for a token that names nothing, or nothing any more."""
        about = await asyncio.to_thread(self._about, token)
        if about is None:
            return None
        return Opened(
            path=self._place(token) / _CONTENT,
            name=about.name,
            content_type=about.content_type,
            size_bytes=about.size_bytes,
            etag=about.md5,
        )

    async def remove(self, token: str) -> None:
        if is_token(token):
            await asyncio.to_thread(self._remove, self._place(token))

    async def sweep(self, now: datetime) -> int:
        """Remove what has expired and drafts that nobody finishes. Returns how many files went."""
        return await asyncio.to_thread(self._sweep, now)

    def periods(self) -> range:
        """Halves of an input's life, counted from 1970: in which one that still lives was kept; the last is now."""
        now = self._clock.now().timestamp()
        half = self.file_seconds / 2 or 1
        return range(int((now - self.file_seconds - INPUT_SPARE_SECONDS) // half), int(now // half) + 1)

    def link(self, token: str, name: str) -> str:
        return self.links.artifact(token, name)

    def sign_download(self, file_id: str, owner: str, expiry: int) -> str:
        return self.links.sign(file_id, owner, expiry)

    def verify_download(self, file_id: str, owner: str, expiry: int, signature: str) -> bool:
        return self.links.verify(file_id, owner, expiry, signature)

    async def _write(
        self,
        chunks: AsyncIterator[bytes] | bytes,
        token: str,
        owner: str,
        name: str,
        content_type: str,
        *,
        is_output: bool,
    ) -> About:
        now = self._clock.now()
        expires_at = None if is_output else now + timedelta(seconds=self.file_seconds + INPUT_SPARE_SECONDS)
        draft = await _on_disk(_Draft, self._drafts / self._ids.token(), self.max_file_bytes)
        try:
            if isinstance(chunks, bytes):
                await _on_disk(draft.write, chunks)
            else:
                async for part in _gathered(chunks, self.max_file_bytes):
                    await _on_disk(draft.write, part)
            about = About(
                owner=owner,
                name=name,
                content_type=settle_type(content_type, draft.head, name),
                size_bytes=draft.size_bytes,
                sha256=draft.sha256.hexdigest(),
                md5=draft.md5.hexdigest(),
                kept_at=now,
                expires_at=expires_at,
            )
            return await _on_disk(self._settle, draft, about, token)
        finally:
            draft.discard()

    def _settle(self, draft: _Draft, about: About, token: str) -> About:
        place = self._place(token)
        draft.seal(about)
        for _ in range(2):
            if draft.settle(place):
                return about
            # Somebody was quicker with the same token: theirs stays, unless it had expired.
            found = self._about(token)
            if found is not None:
                return found
            self._remove(place)
        raise OSError(None, "the file's place is taken")

    def _place(self, token: str) -> Path:
        return self._path / token[:2] / token

    def _about(self, token: str) -> About | None:
        if not is_token(token):
            return None
        found = _read_about(self._place(token))
        if found is None or (found.expires_at is not None and found.expires_at <= self._clock.now()):
            return None
        return found

    def _remove(self, place: Path) -> None:
        """As a whole, too: renamed away first, so that nobody finds half of it."""
        grave = self._drafts / self._ids.token()
        with contextlib.suppress(FileNotFoundError):
            place.rename(grave)
            shutil.rmtree(grave)

    def _sweep(self, now: datetime) -> int:
        removed = 0
        for place in self._places():
            about = _read_about(place)
            if about is not None and about.expires_at is not None and about.expires_at <= now:
                self._remove(place)
                removed += 1
        for draft in self._drafts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now - datetime.fromtimestamp(draft.stat().st_mtime, UTC) > timedelta(seconds=ABANDONED_SECONDS):
                    shutil.rmtree(draft)
        return removed

    def _places(self) -> Iterator[Path]:
        for shard in self._path.iterdir():
            if len(shard.name) == 2 and shard.is_dir():
                yield from (place for place in shard.iterdir() if is_token(place.name))


class _Draft:
    """A file on its way in. Blocks: for threads."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        path.mkdir(mode=0o700)
        self._file: IO[bytes] = (path / _CONTENT).open("xb")
        self.head = b""
        self.size_bytes = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        self.head = (self.head + chunk[:HEAD_BYTES])[:HEAD_BYTES]
        self.sha256.update(chunk)
        self.md5.update(chunk)
        self._file.write(chunk)

    def seal(self, about: About) -> None:
        """All is written: see that a crash cannot take it back."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with (self._path / _ABOUT).open("wb") as file:
            file.write(msgspec.json.encode(about))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._path)

    def settle(self, place: Path) -> bool:
        """Rename the whole into its place. False if something is there already: then nothing was changed."""
        is_new_shard = not place.parent.exists()
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            self._path.rename(place)
        except OSError:
            if place.exists():
                return False
            raise
        _sync_folder(place.parent)
        if is_new_shard:
            _sync_folder(place.parent.parent)
        return True

    def discard(self) -> None:
        """Whatever is left of it; nothing after `settle`."""
        self._file.close()
        shutil.rmtree(self._path, ignore_errors=True)


async def _on_disk(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread; the disk's troubles, and only those, become StoreUnavailable."""
    try:
        return await asyncio.to_thread(do, *args, **kwargs)
    except OSError as error:
        raise StoreUnavailable(f"the artifact folder cannot be written: {error.strerror}") from error


async def _gathered(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in parts that are worth a thread's while. Raises TooLarge before they pile up."""
    waiting: list[bytes] = []
    size = 0
    total = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(max_bytes)
        if size >= WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _too_large(max_bytes: int) -> TooLarge:
    size = f"{max_bytes // 1_000_000}MB" if max_bytes >= 1_000_000 else f"{max_bytes} bytes"
    return TooLarge(f"Files must be less than {size} in size")


def _read_about(place: Path) -> About | None:
    try:
        return msgspec.json.decode((place / _ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _sync_folder(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _prepare(path: Path, drafts: Path, name: str) -> None:
    try:
        drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = drafts / name
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return refuse(
        f"the folder cannot be written ({error.strerror})",
        place=str(path),
        remedy="name a folder that Turnout may create or write in",
    )
