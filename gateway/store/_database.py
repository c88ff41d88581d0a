"""The file of the SQLite store: its lock, its connections, its schema. Not what is in its rows."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.resources
import os
import sqlite3
from pathlib import Path

from gateway.contract.errors import ConfigurationError, refuse
from gateway.store._encoding import FILE, decode_prediction, decode_state, providers_of, to_micros

SCHEMA_VERSION = 4
# The lowest version that may write a file of ours: an earlier one leaves out what a later one relies on. Each later
# version only adds to the schema, and raises this one only if it must.
MIN_VERSION = 3
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
                version = _examine(self.reader, path)  # before anything is changed in a file that may not be ours
                self.writer = self.connect_writer()
                undo.callback(self.writer.close)
                _bring_up(self.writer, version)
                if version == 0:
                    _sync_folder(path.parent)  # that there is such a file, as durable as what is in it
                attach(self.reader)
            except sqlite3.Error as error:
                remedy = "restore the file from a copy, or name another one in [store] url"
                raise _unusable(path, str(error), remedy) from error
            undo.pop_all()

    def connect_writer(self) -> sqlite3.Connection:
        db = connect(self.path)
        try:
            # A new file gets its log by way of a rollback journal, whose removal must be as durable as what follows:
            # one that came back after a power cut would take the file back to when it was empty.
            db.execute("PRAGMA synchronous = EXTRA")
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise sqlite3.OperationalError("no write-ahead log is possible there")  # noqa: TRY301 - to be closed
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            # What is removed is overwritten: else it would lie in the file's free pages until chance overwrites it.
            db.execute("PRAGMA secure_delete = ON")
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
        _make_folder(path.parent)
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


def _make_folder(folder: Path) -> None:
    """As durable as what will lie in it: a folder that a power cut takes away takes everything with it."""
    missing = [folder, *folder.parents]
    while missing and missing[-1].exists():
        missing.pop()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for made in missing:
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def attach(reader: sqlite3.Connection) -> None:
    """Connect it to the log: as long as a reader is, a failed writer can be replaced (see `_writer`)."""
    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _examine(db: sqlite3.Connection, path: Path) -> int:
    """The version of its schema; 0 for a file that is empty, and to become a store."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise _unusable(path, "it is another program's database", "name another file in [store] url")
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION and (asked := _min_version(db, version)) > SCHEMA_VERSION:
        raise refuse(
            f"a newer Turnout wrote this store (schema {version}, for {asked} and later; this one knows"
            f" {SCHEMA_VERSION})",
            place=str(path),
            remedy="run that Turnout, or name another file in [store] url",
        )
    return version


def _min_version(db: sqlite3.Connection, version: int) -> int:
    """Which version a newer one has said is enough; its own, if it has said nothing that we can read."""
    found = db.execute("SELECT value FROM setting WHERE name = 'store.min_version'").fetchone()
    return int(found[0]) if found is not None and found[0].isdecimal() else version


def _bring_up(db: sqlite3.Connection, version: int) -> None:
    """From `version` to ours, step by step, each in a transaction of its own. A new file goes the same way."""
    for step in range(version + 1, SCHEMA_VERSION + 1):
        name = "schema.sql" if step == 1 else f"schema_{step}.sql"
        sql = importlib.resources.files("gateway.store").joinpath(name).read_text("utf-8")
        # A script commits what was begun before it, and so begins by itself. One that fails is rolled back as the
        # connection is closed.
        db.executescript(f"BEGIN IMMEDIATE; {sql} PRAGMA application_id = {_APPLICATION_ID};")
        if step == 2:
            _fill_searched(db)
        elif step == 3:
            _fill_swept(db)
            db.execute(
                "INSERT OR REPLACE INTO setting (name, value) VALUES ('store.min_version', ?)", (str(MIN_VERSION),)
            )
        db.execute(f"PRAGMA user_version = {step}")
        db.execute("COMMIT")


def _fill_searched(db: sqlite3.Connection) -> None:
    """What predictions of the first version are searched by."""
    rows = db.execute("SELECT p.number, r.body, p.state FROM prediction p JOIN request r ON r.prediction = p.number")
    for number, request, state in rows:
        prediction = decode_prediction(request, state)
        db.execute(
            "UPDATE prediction SET model = ?, providers = ?, is_rescued = ? WHERE number = ?",
            (prediction.request.model, providers_of(prediction), prediction.is_rescued, number),
        )


def _fill_swept(db: sqlite3.Connection) -> None:
    """By what age predictions and files of earlier versions are swept."""
    closed = db.execute("SELECT number, state, created_at FROM prediction WHERE is_open = 0")
    for number, state, created_at in closed:
        prediction = decode_state(state)
        if not prediction.data_removed:
            ended_at = to_micros(prediction.completed_at) if prediction.completed_at is not None else created_at
            db.execute("UPDATE prediction SET ended_at = ? WHERE number = ?", (ended_at, number))
    for id, body in db.execute("SELECT id, body FROM file"):
        db.execute("UPDATE file SET expires_at = ? WHERE id = ?", (to_micros(FILE.decode(body).expires_at), id))


def _unusable(
    path: Path, problem: str, remedy: str = "name a file in a folder that this user can write in [store] url"
) -> ConfigurationError:
    place = str(path).replace("\0", "\\0")
    return refuse(f"the store cannot be opened: {problem}", place=place, remedy=remedy)
