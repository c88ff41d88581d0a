"""The file of the SQLite store: its lock, its connections, its schema. Not what is in its rows."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.resources
import os
import sqlite3
from pathlib import Path

from gateway.contract.errors import ConfigurationError, refuse

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0
_APPLICATION_ID = 0x54_52_4E_54  # "TRNT": what `file` and other programs see in the header
_LOG_BYTES = 64 * 1024 * 1024
_CHECKPOINT_PAGES = 4_000  # 16 MB: the same few pages change again and again, and are carried over once
_CACHE_KIBIBYTES = 16_000  # ids are random: an insert touches a page anywhere in their index


class Database:
    """An open file that no other process has open. Building it raises ConfigurationError and leaves nothing open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.ExitStack() as undo:
            self._lock = _lock(path)
            undo.callback(os.close, self._lock)
            try:
                # Inputs, outputs and signing keys lie in it: it is nobody else's to read. The log inherits the mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise _unusable(path, error.strerror or str(error)) from error
            try:
                self.reader = self.connect_reader()
                undo.callback(self.reader.close)
                is_new = _examine(self.reader, path)  # before anything is changed in a file that may not be ours
                self.writer = self.connect_writer()
                undo.callback(self.writer.close)
                if is_new:
                    _create(self.writer)
                attach(self.reader)
            except sqlite3.Error as error:
                remedy = "restore the file from a copy, or name another one in [store] url"
                raise _unusable(path, str(error), remedy) from error
            undo.pop_all()

    def connect_writer(self) -> sqlite3.Connection:
        db = connect(self.path)
        try:
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise sqlite3.OperationalError("no write-ahead log is possible there")  # noqa: TRY301 - to be closed
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        except BaseException:
            db.close()
            raise
        return db

    def connect_reader(self) -> sqlite3.Connection:
        db = connect(self.path)
        try:
            db.execute("PRAGMA query_only = ON")
            attach(db)
        except BaseException:
            db.close()
            raise
        return db

    def unlock(self) -> None:
        """Once every connection is closed. The lock's file stays: removing it would race with the next opener."""
        os.close(self._lock)


def connect(path: Path) -> sqlite3.Connection:
    # Autocommit, so that transactions begin and end where we say; used by one thread at a time, not always the same.
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise _unusable(path, error.strerror or str(error)) from error
        raise refuse(
            "another process has this store open",
            place=str(path),
            remedy="stop that process, name another file in [store] url, or use Redis for several processes",
        ) from None
    return lock


def attach(reader: sqlite3.Connection) -> None:
    """Connect it to the log: as long as a reader is, a failed writer can be replaced (see `_writer`)."""
    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _examine(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty, and to become a store."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return True
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise _unusable(path, "it is another program's database", "name another file in [store] url")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise refuse(
            f"a newer Turnout wrote this store (schema {version}, this one knows {SCHEMA_VERSION})",
            place=str(path),
            remedy="run that Turnout, or name another file in [store] url",
        )
    return False


def _create(db: sqlite3.Connection) -> None:
    schema = importlib.resources.files("gateway.store").joinpath("schema.sql").read_text("utf-8")
    db.executescript(
        f"BEGIN IMMEDIATE; {schema}"
        f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


def _unusable(
    path: Path, problem: str, remedy: str = "name a file in a folder that this user can write in [store] url"
) -> ConfigurationError:
    place = str(path).replace("\0", "\\0")
    return refuse(f"the store cannot be opened: {problem}", place=place, remedy=remedy)
