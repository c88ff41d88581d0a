"""Whether the store's file and the artifacts' folder can be used as `serve` would. Makes and changes nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gateway.config.load import Loaded
from gateway.contract.errors import ConfigurationError, refuse

_SQLITE = b"SQLite format 3\0"


def check_folders(loaded: Loaded) -> list[str]:
    """A line for each of them that cannot be used, with file, line and remedy."""
    store, artifacts = loaded.store_path, loaded.artifacts_path
    wrong: list[ConfigurationError] = []
    if store is not None and (problem := unwritable(store.parent) or _unusable(store)):
        remedy = "name a file in a folder that this user can write"
        wrong.append(refuse(problem, place=loaded.where("store", "url"), remedy=remedy))
    if problem := unwritable(artifacts):
        remedy = "name a folder that this user can make or write in"
        wrong.append(refuse(problem, place=loaded.where("artifacts", "path"), remedy=remedy))
    return [str(error) for error in wrong]


def unwritable(path: Path) -> str | None:
    """Why no file can be made in `path`, or, if it is not there yet, where it would be made. None: one can."""
    there = path
    try:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        problem = f"{there} cannot be written ({error.strerror})"
        return problem if there == path else f"{path} cannot be made: {problem}"


def _unusable(store: Path) -> str | None:
    """What the file itself says, if it is there. It is not locked: a gateway may have it open."""
    try:
        file = os.open(store, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{store} cannot be opened for writing ({error.strerror})"
    with open(file, "rb") as content:
        begin = content.read(len(_SQLITE))
    return None if begin in (b"", _SQLITE) else f"{store} is no SQLite database"
