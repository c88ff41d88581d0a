"""Files inside JSON: strict data URIs, pictures decoded within limits. Fetches nothing."""

from __future__ import annotations

import binascii
import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_FILE_BYTES = 100_000_000
MAX_RESULT_BYTES = 100_000_000  # as a gateway keeps at most, by its defaults

FORMATS = ("PNG", "JPEG", "WEBP")
# Most pixels a side that each format can hold.
_MAX_SIDES = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}
_HEAD = re.compile(r"data:([A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+)?(;[A-Za-z0-9-]+=[A-Za-z0-9.+_-]+)*;base64")


class MediaRefused(Exception):
    """A file in an input is not what it should be. The message completes "<field> …"."""


def decode_data_uri(text: str, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a base64 data URI. Raises MediaRefused; a URL is refused too, since this process has no network."""
    if not text.startswith("data:"):
        what = "is a URL, and this server fetches none" if "://" in text[:16] else "is no data URI"
        raise MediaRefused(f"{what}: send data:<type>;base64,<content>")
    if len(text) > max_bytes * 4 // 3 + 300:
        raise MediaRefused(f"is over {max_bytes} bytes")
    head, comma, encoded = text.partition(",")
    if not comma or not _HEAD.fullmatch(head):
        raise MediaRefused("is no data URI of the form data:<type>;base64,<content>")
    try:
        content = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise MediaRefused("has content that is no base64") from None
    if not content:
        raise MediaRefused("is empty")
    return content


def encode_data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{binascii.b2a_base64(content, newline=False).decode()}"


def decode_image(content: bytes, *, max_pixels: int) -> Image.Image:
    """
    The picture, upright, as RGB or RGBA; of an animation the first frame. Its size is checked before it is decoded.

    Raises MediaRefused.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        fits = width * height <= max_pixels
        plain = _decode(image) if fits else image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaRefused(f"has more than the {max_pixels} pixels that fit this request") from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on a hostile file, and each of it means the same
        raise MediaRefused(f"is no sound picture in one of {', '.join(FORMATS)} ({_reason(error)})") from None
    if not fits:
        raise MediaRefused(f"has {width} x {height} pixels, over the {max_pixels} that fit this request")
    return plain


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    plain = _flatten_mode(ImageOps.exif_transpose(image))
    plain.info = {"icc_profile": profile} if profile else {}
    return plain


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "format not recognised" if "cannot identify" in text else text[:120]


def _flatten_mode(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16 bits to 8; scale them.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    has_alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def fits_format(width: int, height: int, name: str) -> bool:
    return max(width, height) <= _MAX_SIDES[name]


def encode_image(image: Image.Image, name: str, profile: bytes | None = None) -> tuple[bytes, str]:
    """Encode as png, jpeg or webp; returns content and media type. JPEG has no alpha: it is laid on white."""
    options: dict[str, Any] = {"icc_profile": profile} if profile else {}
    if name == "png":
        options |= {"compress_level": 3}  # level 6 takes three times as long for a tenth of the size
    else:
        options |= {"quality": 92}
    if name == "jpeg" and image.mode == "RGBA":
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    buffer = io.BytesIO()
    image.save(buffer, format=name.upper(), **options)
    return buffer.getvalue(), f"image/{name}"
