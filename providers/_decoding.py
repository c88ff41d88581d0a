"""A body's content coding undone within bounds: 823 bytes of gzip must not become 400 MB. Knows nothing of HTTP."""

from __future__ import annotations

import zlib
from collections.abc import Callable


class BodyTooLarge(ValueError):
    """The body, decoded, is over the limit."""


class BodyUndecodable(ValueError):
    """The body is in a coding that was not asked for, or is broken."""


def make_decoder(coding: str, *, max_bytes: int) -> Callable[[bytes], bytes]:
    """
    A function that takes a body's raw chunks in order and gives back what they hold.

    We ask for no coding at all; gzip and deflate are read all the same, for servers that do not listen. What it
    returns raises BodyTooLarge as soon as it has seen more than `max_bytes`, or BodyUndecodable.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        inflate = None
    elif coding in ("gzip", "x-gzip", "deflate"):
        inflate = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib, by its first bytes
    else:
        raise BodyUndecodable(f"its coding is {coding[:40]!r}")
    left = max_bytes

    def decode(chunk: bytes) -> bytes:
        nonlocal left
        if inflate is not None:
            try:
                chunk = inflate.decompress(chunk, left + 1)
            except zlib.error:
                raise BodyUndecodable(f"it is not the {coding} it says it is") from None
        left -= len(chunk)
        if left < 0:
            raise BodyTooLarge(f"it is larger than {max_bytes} bytes")
        return chunk

    return decode
