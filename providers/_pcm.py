"""Sound without a head: samples as some providers send them, made a file that can be played. Converts no samples."""

from __future__ import annotations

import re
import struct

_RATE = re.compile(r"\brate=([0-9]{4,6})\b")
_PCM = re.compile(r"audio/(?:l16|pcm|raw)\b|audio/.*\bcodec=pcm\b", re.IGNORECASE)


def is_pcm(content_type: str) -> bool:
    return _PCM.match(content_type) is not None


def rate_of(content_type: str, otherwise: int = 24_000) -> int:
    """Samples a second, as `audio/L16;codec=pcm;rate=24000` says it."""
    found = _RATE.search(content_type)
    return int(found[1]) if found else otherwise


def wave(samples: bytes, *, rate: int) -> bytes:
    """A WAV file of mono 16-bit little-endian `samples`."""
    size = len(samples)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)  # fmt: skip  # noqa: E501 - one head
    return head + samples
