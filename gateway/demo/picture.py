"""The picture of the demonstration: the one that was given, or one that is drawn. Makes it small enough to send."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

from PIL import Image, ImageDraw, UnidentifiedImageError

from gateway.contract.errors import refuse

_MOST_PIXELS_A_SIDE = 512


def data_uri(path: Path | None) -> tuple[str, str]:
    """(the picture as a data URI, what it is in words). Raises ConfigurationError for a file that is no picture."""
    if path is None:
        picture, what = _draw(), "a drawn picture"
    else:
        try:
            with Image.open(path) as opened:
                opened.load()
                picture, what = opened.convert("RGB"), path.name
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise refuse(
                f"it cannot be read as a picture ({error})", place=str(path), remedy="name a PNG, JPEG or WebP"
            ) from None
    picture.thumbnail((_MOST_PIXELS_A_SIDE, _MOST_PIXELS_A_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{text}", f"{what}, {picture.width} x {picture.height}"


def _draw() -> Image.Image:
    """A turnout: one track that becomes two, under an evening sky."""
    width, height = 192, 128
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        share = y / height
        draw.line([(0, y), (width, y)], fill=(int(30 + 200 * share), int(40 + 110 * share), int(90 + 30 * share)))
    draw.ellipse((130, 30, 158, 58), fill=(255, 214, 130))
    draw.rectangle((0, 92, width, height), fill=(52, 48, 44))
    for x in range(-20, width, 9):
        draw.line([(x, 100), (x + 5, 124)], fill=(96, 74, 52), width=3)
    for offset in (0, 12):
        draw.line([(0, 104 + offset), (width, 104 + offset)], fill=(198, 198, 204), width=2)
        branch = [(x, 104 + offset - 26 * (1 - math.cos((x - 60) / 132 * math.pi / 2))) for x in range(60, width)]
        draw.line(branch, fill=(222, 222, 228), width=2)
    return picture
