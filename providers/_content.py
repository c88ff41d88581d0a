"""Bytes that come or go inside a message: data URIs out of answers, parts of a form out of inputs. Fetches nothing."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections.abc import Collection
from typing import Any

from gateway.contract import data_uri
from gateway.contract.errors import InputRefused, TooLarge
from gateway.contract.provider import HttpResponse

UNTYPED = "application/octet-stream"
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")  # as data URIs may have them
# What the first bytes of a file look like: servers seldom say what they send.
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ftyp", 4, "video/mp4"),
    (b"\x1aE\xdf\xa3", 0, "video/webm"),
    (b"OggS", 0, "audio/ogg"),
    (b"fLaC", 0, "audio/flac"),
    (b"ID3", 0, "audio/mpeg"),
    (b"\xff\xfb", 0, "audio/mpeg"),
    (b"\xff\xf3", 0, "audio/mpeg"),
    (b"glTF", 0, "model/gltf-binary"),
)
_PROSE = ("prompt", "text", "system_prompt", "negative_prompt", "inputText")
_EXTENSIONS = {"image/jpeg": ".jpg", "audio/mpeg": ".mp3", "audio/wav": ".wav", "video/mp4": ".mp4"}


def sniff(content: bytes, otherwise: str = UNTYPED) -> str:
    """The content type that the first bytes tell, or `otherwise`."""
    head = content[:16]
    return next((kind for magic, at, kind in _MAGIC if head[at : at + len(magic)] == magic), otherwise)


def content_type_of(response: HttpResponse) -> str:
    """The answer's content type, in lower case and without parameters; empty if it names none that is one."""
    said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return said if _TYPE.fullmatch(said) else ""


def is_json(response: HttpResponse) -> bool:
    return content_type_of(response).endswith("json")


def inline(response: HttpResponse, *, otherwise: str = UNTYPED) -> str:
    """An answer that is a file, as a data URI. Its own type, unless that says nothing; then what the bytes tell."""
    said = content_type_of(response)
    kind = said if said and said != UNTYPED else sniff(response.body, otherwise)
    return data_uri.build(response.body, kind)


def inline_base64(text: str, *, otherwise: str = UNTYPED, says: str = "") -> str | None:
    """A field of base64 (or a data URI) as a data URI, None if it is neither. `says`: the type, where it is told."""
    if text.startswith("data:"):
        return text if data_uri.is_data_uri(text) else None
    text = "".join(text.split())
    try:
        head = binascii.a2b_base64(text[:64].encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    if not head or len(text) % 4:
        return None
    return f"data:{says or sniff(head, otherwise)};base64,{text}"


def is_file(value: object) -> bool:
    """True for a data URI. A prompt that begins with "data:" is none: prose stays prose."""
    return isinstance(value, str) and value.startswith("data:") and data_uri.is_data_uri(value)


def part_of(value: object, *, name: str, max_bytes: int = 100_000_000) -> tuple[str, str, bytes]:
    """(file name, content type, bytes) of the file that input `name` holds. Raises InputRefused if it holds none."""
    if not isinstance(value, str) or not value.startswith("data:"):
        raise InputRefused(f"`{name}` must be a file")
    try:
        uri = data_uri.parse(value, max_bytes=max_bytes)
    except (data_uri.Malformed, TooLarge) as error:
        raise InputRefused(f"`{name}` cannot be read: {error}") from None
    return file_name(name, uri.content_type), uri.content_type, uri.content


def bare_base64(value: object, *, name: str) -> str:
    """The base64 of the file that input `name` holds, without the head of its data URI. Raises InputRefused."""
    _, _, content = part_of(value, name=name)
    return base64.b64encode(content).decode()


def bare_files(value: Any, *, name: str = "input") -> Any:
    """`value` with the base64 alone in the place of every data URI in it. Raises InputRefused."""
    if isinstance(value, dict):
        return {key: bare_files(item, name=key) for key, item in value.items()}
    if isinstance(value, list):
        return [bare_files(item, name=name) for item in value]
    return bare_base64(value, name=name) if is_file(value) else value


def check_storage(value: Any, scheme: str, buckets: Collection[str], *, key: str = "") -> None:
    """
    Raises InputRefused for an address in a cloud's storage (`scheme` is "gs://" or "s3://") outside of `buckets`.

    It would be read, or written, by the rights of our account, which are not the caller's to use. Prose may name one.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            check_storage(item, scheme, buckets, key=name)
    elif isinstance(value, list):
        for item in value:
            check_storage(item, scheme, buckets, key=key)
    elif isinstance(value, str) and value[:5].lower() == scheme and key not in _PROSE:
        bucket = value[5:].partition("/")[0]
        if bucket not in buckets:
            raise InputRefused(f"`{key}` may not lead into storage: give the file itself")


def file_name(stem: str, content_type: str) -> str:
    return stem + (_EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type) or ".bin")
