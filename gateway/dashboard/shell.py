"""The page's own files: markup, script, style. They hold no data, and so need no key; who may see data is the API's."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

_FOLDER = Path(__file__).parent / "static"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)+\Z", re.ASCII)
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class ShellFile(msgspec.Struct, kw_only=True, frozen=True):
    content: bytes
    content_type: str
    etag: str  # without quotes


class Shell:
    """
    The files of one folder, flat, found by name only: no path can lead out of it.

    `public_url` is where artifacts lie: the page may have been opened at another origin.
    """

    def __init__(self, *, public_url: str, folder: Path = _FOLDER) -> None:
        self._folder = folder
        self._kept: dict[str, tuple[tuple[int, int], ShellFile]] = {}
        self.policy = _content_policy(public_url)

    def file(self, name: str) -> ShellFile | None:
        """The file called `name`, "" for the page itself; None if there is none. Read again once it has changed."""
        name = name or _INDEX
        if _NAME.match(name) is None:
            return None
        path = self._folder / name
        try:
            state = path.stat()
            mark = (state.st_mtime_ns, state.st_size)
            kept = self._kept.get(name)
            if kept is not None and kept[0] == mark:
                return kept[1]
            content = path.read_bytes()
        except (OSError, ValueError):
            return None
        content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        file = ShellFile(content=content, content_type=content_type, etag=hashlib.sha256(content).hexdigest()[:32])
        self._kept[name] = (mark, file)
        return file


def _content_policy(public_url: str) -> str:
    parts = urlsplit(public_url)
    # A host cannot hold what would end a directive, but configurations are written by hand.
    origin = f"{parts.scheme}://{parts.netloc}" if re.fullmatch(r"[A-Za-z0-9.:\[\]_-]+", parts.netloc) else ""
    media = f"'self' {origin}".strip()
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"img-src {media} data: blob:; media-src {media} blob:; connect-src 'self'; font-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
