"""What a kept file may be called, and as what it may be served. Judges bytes by their beginning, decodes nothing."""

from __future__ import annotations

import re

UNTYPED = "application/octet-stream"
HEAD_BYTES = 32
MAX_NAME_CHARACTERS = 100

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\Z")
# Types in which a browser runs something: their bytes are kept, their name is not.
_ACTIVE = re.compile(r".*(html|xml|svg|script|ecma|multipart|flash|css)")
_MEDIA = ("image/", "audio/", "video/")
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")
_MESSAGES = re.compile(r"(application|text)/([\w.-]+\+)?(json|xml)\Z")  # what servers say errors in; not image/svg+xml
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"v/1\x01", "image/x-exr"),
)
_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/avif": "avif",
    "image/heic": "heic",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "model/gltf-binary": "glb",
    "text/plain": "txt",
    "text/csv": "csv",
    "application/json": "json",
    "application/pdf": "pdf",
    "application/zip": "zip",
}
_TYPES = {extension: content_type for content_type, extension in reversed(_EXTENSIONS.items())}


def sniff_image(head: bytes) -> str | None:
    """The image type that the first bytes prove."""
    for offset, magic, content_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return content_type
    return None


def settle_type(declared: str, head: bytes, name: str = "") -> str:
    """
    The content type to serve bytes as: for images what the bytes say, else what was declared, if it is harmless.

    A declared image that is none of those we know, and anything a browser would run, is `application/octet-stream`.
    """
    declared = declared.partition(";")[0].strip().lower()
    if declared in ("", UNTYPED, "binary/octet-stream"):
        declared = _TYPES.get(name.rpartition(".")[2].lower(), UNTYPED)
    proven = sniff_image(head)
    # Two bytes prove no bitmap to somebody who said what else it is.
    if proven is not None and (proven != "image/bmp" or declared in (UNTYPED, "image/bmp")):
        return proven
    if not _TYPE.match(declared) or _ACTIVE.match(declared) or declared.startswith("image/"):
        return UNTYPED
    return declared


def contradiction(declared: str, name: str, head: bytes) -> str:
    """
    Why bytes that begin with `head` cannot be the file that type and name speak of; empty if they may be.

    Servers that have lost a file, or want somebody to sign in, say so in a page or a message, and with a 200.
    """
    named, declared = _TYPES.get(name.rpartition(".")[2].lower(), ""), declared.partition(";")[0].strip().lower()
    if not any(kind.startswith(_MEDIA) for kind in (declared, named)):
        return ""
    if not head:
        return "it is empty"
    start = head.lstrip()[:20].lower()
    if start.startswith(_PAGES):
        return "a web page came in its place"
    is_message = _MESSAGES.match(declared) and start.startswith((b"{", b"[", b"<"))
    return "a message came in its place" if is_message else ""


def extension(content_type: str) -> str:
    """`.png` for image/png; empty if there is no common one."""
    found = _EXTENSIONS.get(content_type.partition(";")[0].strip().lower())
    return f".{found}" if found else ""


def safe_name(name: str) -> str:
    """One plain segment of a path or a URL: letters, digits, dot, dash, underscore; never empty, never hidden."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("\\", "/").rpartition("/")[2]).lstrip("._-")
    if len(name) > MAX_NAME_CHARACTERS:
        stem, dot, suffix = name.rpartition(".")
        suffix = (dot + suffix)[:12] if stem else ""
        name = name[: MAX_NAME_CHARACTERS - len(suffix)] + suffix
    return name or "file"
