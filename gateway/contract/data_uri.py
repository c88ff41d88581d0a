"""Data URIs, read strictly and built. Whether one may be used is for others to say."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.contract.errors import TooLarge

_MAX_HEADER_CHARACTERS = 256
_BASE64 = ";base64"
_HEADER = re.compile(
    r"data:(?P<type>[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63})"
    r"(?P<parameters>(;[A-Za-z0-9-]+=[A-Za-z0-9!#$&^_.+-]+)*)(?P<base64>;base64)?,",
    re.ASCII | re.IGNORECASE,
)
# Both are run over megabytes on the event loop: they step over long runs at once and never go back.
_TEXT = re.compile(r"(?:[!#$&-+\-./0-9:;=?@A-Z_a-z~]++|%[0-9A-Fa-f]{2})*+\Z", re.ASCII)
_ENCODED = re.compile(r"[A-Za-z0-9+/]*+={0,2}\Z", re.ASCII)


class Malformed(ValueError):
    """It begins as a data URI and does not hold what it says."""


class DataUri(msgspec.Struct, kw_only=True, frozen=True):
    content_type: str  # lower case, without parameters
    content: bytes


def is_data_uri(text: str) -> bool:
    """
    True if the whole string is meant as one: it names a type, and has base64 or percent-encoded text after one comma.

    Prose such as "data: see below, and above" is not. Base64 is not checked here.
    """
    header = _HEADER.match(text, 0, _MAX_HEADER_CHARACTERS)
    return header is not None and (header["base64"] is not None or _TEXT.match(text, header.end()) is not None)


def is_sound(text: str) -> bool:
    """True if `parse` would read it, whatever its size. Decodes nothing: 10 MB take some 30 ms."""
    header = _HEADER.match(text, 0, _MAX_HEADER_CHARACTERS)
    if header is None:
        return False
    if header["base64"] is None:
        return _TEXT.match(text, header.end()) is not None
    return (len(text) - header.end()) % 4 == 0 and _ENCODED.match(text, header.end()) is not None


def parse(text: str, *, max_bytes: int) -> DataUri:
    """
    Decode. The encoded length is looked at before anything is decoded.

    Raises Malformed, and TooLarge for more than `max_bytes` of content.
    """
    header = _HEADER.match(text, 0, _MAX_HEADER_CHARACTERS)
    if header is None:
        raise Malformed("not a data URI with a content type")
    length = len(text) - header.end()
    if header["base64"] is None:
        if length > 3 * max_bytes:
            raise TooLarge(f"a data URI holds more than {max_bytes} bytes")
        if _TEXT.match(text, header.end()) is None:
            raise Malformed("a data URI without ;base64 must be percent-encoded and hold one comma")
        content = unquote_to_bytes(text[header.end() :])
    else:
        if length > (max_bytes + 2) // 3 * 4:
            raise TooLarge(f"a data URI holds more than {max_bytes} bytes")
        if text.endswith("==="):  # which strict mode lets pass after a full group
            raise Malformed("a data URI holds something that is not base64")
        try:
            content = binascii.a2b_base64(text[header.end() :], strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise Malformed("a data URI holds something that is not base64") from error
    if len(content) > max_bytes:
        raise TooLarge(f"a data URI holds more than {max_bytes} bytes")
    return DataUri(content_type=header["type"].lower(), content=content)


def build(content: bytes, content_type: str) -> str:
    return f"data:{content_type}{_BASE64},{base64.b64encode(content).decode()}"


def encoded_length(size_bytes: int, content_type: str) -> int:
    """How long `build` would make it."""
    return len(f"data:{content_type}{_BASE64},") + (size_bytes + 2) // 3 * 4
