"""Files inside JSON, made by somebody who means harm."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from local_backend.media import MediaRefused, decode_data_uri, decode_image
from tests.unit.local_backend.making import data_uri, encoded, picture

PIXELS = 50_000_000


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://example.com/a.png", "is a URL"),
        ("http://169.254.169.254/latest", "is a URL"),
        ("file:///etc/passwd", "is a URL"),
        ("/etc/passwd", "is no data URI"),
        ("", "is no data URI"),
        ("data:image/png;base64", "of the form"),
        ("data:image/png,abc", "of the form"),
        ("data:image/png;charset=utf-8,abc", "of the form"),
        ("data:" + "x" * 1_000 + ";base64,aaaa", "of the form"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,aaa", "no base64"),
        ("data:image/png;base64,aa aa", "no base64"),
        ("data:image/png;base64,aaaa=aaa", "no base64"),
        ("data:image/png;base64,aaaa,aaaa", "no base64"),
        ("data:image/png;base64,äöüß", "no base64"),
        ("data:image/png;base64," + "a" * 2_000, "over 1000 bytes"),
    ],
)
def test_a_bad_data_uri_is_refused(uri: str, words: str) -> None:
    with pytest.raises(MediaRefused, match=words):
        decode_data_uri(uri, max_bytes=1_000)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:;base64,", "data:text/plain;charset=utf-8;base64,"])
def test_a_good_data_uri_is_read(head: str) -> None:
    assert decode_data_uri(head + "aGVsbG8=") == b"hello"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that claims a size, and has almost nothing in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(more) + _chunk(b"IEND", b"")


HOSTILE = {
    "a bomb that claims a terapixel": _png(2_000_000, 2_000_000, _chunk(b"IDAT", zlib.compress(b"\0" * 10_000))),
    "a bomb just over the cap": _png(10_000, 5_001, _chunk(b"IDAT", zlib.compress(b"\0" * 10_000))),
    "no pixels at all": _png(0, 0),
    "a header and no data": _png(100, 100),
    "data that is no zlib": _png(100, 100, _chunk(b"IDAT", b"\xff" * 100)),
    "a text that inflates": _png(8, 8, _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 100_000_000))),
    "a truncated PNG": encoded(picture(200, 200))[:-5_000],
    "a PNG with a wrong checksum": encoded(picture(20, 20)).replace(b"IDAT", b"IDAT\xff", 1),
    "a truncated JPEG": encoded(picture(200, 200), "JPEG")[:2_000],
    "a truncated WebP": encoded(picture(200, 200), "WEBP")[:500],
    "a JPEG's beginning": b"\xff\xd8\xff",
    "a format that is not allowed": encoded(picture(8, 8), "TIFF"),
    "another that is not allowed": encoded(picture(8, 8), "GIF"),
    "PostScript, which would start a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "text": b"hello",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(MediaRefused) as refused:
        decode_image(HOSTILE[name], max_pixels=PIXELS)
    assert "\n" not in str(refused.value)


def test_a_picture_over_the_cap_is_refused_without_decoding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("RGB", (100, 101)))
    assert decode_image(content, max_pixels=10_100).size == (100, 101)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(MediaRefused, match="has 100 x 101 pixels, over the 10099"):
        decode_image(content, max_pixels=10_099)


def test_only_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "green")]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(content, max_pixels=PIXELS).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_a_colour_profile_is_kept() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(picture(8, 8), icc_profile=profile)
    assert decode_data_uri(data_uri(content)) == content
    assert decode_image(content, max_pixels=PIXELS).info == {"icc_profile": profile}
