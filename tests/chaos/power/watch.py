"""
Watches what SQLite does to its files: every write, truncation, deletion and sync, in their order.

It stands between the very library that Python's sqlite3 uses and the operating system, as a VFS made with ctypes: the
code that runs, and all that it calls, is what runs in production. Every call is passed on; nothing is changed.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from tests.chaos.power.disk import Delete, Step, Sync, Told, Truncate, Write

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    """sqlite3_vfs; what is not replaced is only carried along."""

    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("rest", c_void_p * 14),
    )


class _Methods(Structure):
    """sqlite3_io_methods"""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("rest", c_void_p * 13),
    )


class Watch:
    """`log` grows while files inside of `folder` are written; their names in it are relative to it."""

    def __init__(self, folder: Path) -> None:
        self.log: list[Step] = []
        self.troubles: list[BaseException] = []
        self._folder = f"{folder.resolve()}/"
        self._files: dict[int, str] = {}
        self._methods: dict[int, _Methods] = {}
        self._kept: list[Any] = []  # what C points to must not be collected
        self._lock = threading.Lock()

    def told(self, what: str) -> None:
        self._add(Told(what))

    def _add(self, step: Step) -> None:
        with self._lock:
            self.log.append(step)

    def _callback(self, kind: Any, act: Callable[..., int]) -> int:
        """Its address. What it raises would otherwise be printed and taken for success."""

        def call(*arguments: Any) -> int:
            try:
                return act(*arguments)
            except BaseException as error:
                self.troubles.append(error)
                return 1  # SQLITE_ERROR

        made = kind(call)
        self._kept.append(made)
        address = ctypes.cast(made, c_void_p).value
        assert address is not None
        return address

    def vfs(self, base: Any) -> _Vfs:
        """A copy of `base` that sees who opens what."""
        real_open, real_delete = _Open(base.contents.open), _Delete(base.contents.delete)
        address = ctypes.cast(base, c_void_p)

        def open_(_: int, name: int | None, file: int, flags: int, out_flags: int) -> int:
            result = real_open(address, name, file, flags, out_flags)
            path = ctypes.string_at(name).decode() if name else ""
            if result == 0 and path.startswith(self._folder):
                self._files[file] = path.removeprefix(self._folder)
                self._wrap(file)
            return int(result)

        def delete(_: int, name: bytes, is_synced: int) -> int:
            result = real_delete(address, name, is_synced)
            path = name.decode()
            if result == 0 and path.startswith(self._folder):
                self._add(Delete(path.removeprefix(self._folder), bool(is_synced)))
            return int(result)

        copy = _Vfs()
        ctypes.pointer(copy)[0] = base.contents
        copy.name = b"watched"
        copy.open = self._callback(_Open, open_)
        copy.delete = self._callback(_Delete, delete)
        return copy

    def _wrap(self, file: int) -> None:
        """Put our methods in the place of those that the file was opened with."""
        slot = ctypes.cast(file, POINTER(c_void_p))
        real = slot[0]
        assert real is not None
        if real not in self._methods:
            self._methods[real] = self._watched(ctypes.cast(real, POINTER(_Methods)).contents)
        slot[0] = ctypes.addressof(self._methods[real])

    def _watched(self, real: _Methods) -> _Methods:
        real_close, real_write = _Close(real.close), _Write(real.write)
        real_truncate, real_sync = _Truncate(real.truncate), _Sync(real.sync)

        def close(file: int) -> int:
            self._files.pop(file, None)
            return int(real_close(file))

        def write(file: int, data: int, size: int, offset: int) -> int:
            content = ctypes.string_at(data, size)
            result = real_write(file, data, size, offset)
            self._add(Write(self._files[file], offset, content))
            return int(result)

        def truncate(file: int, size: int) -> int:
            result = real_truncate(file, size)
            self._add(Truncate(self._files[file], size))
            return int(result)

        def sync(file: int, flags: int) -> int:
            result = real_sync(file, flags)
            if result == 0:
                self._add(Sync(self._files[file]))
            return int(result)

        copy = _Methods()
        ctypes.pointer(copy)[0] = real
        copy.close = self._callback(_Close, close)
        copy.write = self._callback(_Write, write)
        copy.truncate = self._callback(_Truncate, truncate)
        copy.sync = self._callback(_Sync, sync)
        return copy


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Of every connection that is opened inside. All of them must be closed before the end."""
    library = _library()
    watch = Watch(folder)
    vfs = watch.vfs(library.sqlite3_vfs_find(None))
    if library.sqlite3_vfs_register(ctypes.byref(vfs), 1) != 0:
        raise RuntimeError("SQLite takes no VFS from us")
    try:
        yield watch
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))
    if watch.troubles:
        raise watch.troubles[0]


def _library() -> Any:
    """The SQLite that Python's own module is linked to, and no other."""
    place = getattr(_sqlite3, "__file__", None)  # none: it is a part of the interpreter
    library = ctypes.CDLL(place)
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    return library
