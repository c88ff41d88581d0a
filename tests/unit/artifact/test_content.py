"""What is served as what: bytes prove images, and nothing that a browser runs keeps its name."""

from __future__ import annotations

import pytest

from gateway.artifact.content import extension, safe_name, settle_type
from tests.unit.artifact.fakes import PNG


@pytest.mark.parametrize(
    ("declared", "head", "name", "served"),
    [
        ("image/png", PNG, "", "image/png"),
        ("image/jpeg", PNG, "", "image/png"),
        ("text/html", PNG, "", "image/png"),
        ("image/png", b"<html><script>", "", "application/octet-stream"),
        ("image/svg+xml", b"<svg onload=", "", "application/octet-stream"),
        ("text/html; charset=utf-8", b"<html>", "", "application/octet-stream"),
        ("application/xhtml+xml", b"<html>", "", "application/octet-stream"),
        ("TEXT/HTML", b"x", "", "application/octet-stream"),
        ("text/javascript", b"x", "", "application/octet-stream"),
        ("application/ecmascript", b"x", "", "application/octet-stream"),
        ("multipart/x-mixed-replace", b"x", "", "application/octet-stream"),
        ("", b"x", "a.html", "application/octet-stream"),
        ("", b"x", "a.wav", "audio/wav"),
        ("application/octet-stream", b"x", "a.mp4", "video/mp4"),
        ("", b"x", "photo.png", "application/octet-stream"),
        ("video/mp4; codecs=x", b"x", "", "video/mp4"),
        ("text/plain", b"BM is how it begins", "", "text/plain"),
        ("image/bmp", b"BM\x00", "", "image/bmp"),
        ("no type", b"x", "", "application/octet-stream"),
        ("a/b\r\nset-cookie: x", b"x", "", "application/octet-stream"),
    ],
)
def test_type_served(declared: str, head: bytes, name: str, served: str) -> None:
    assert settle_type(declared, head, name) == served


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("out-0.png", "out-0.png"), ("../../etc/passwd", "passwd"), ("a/b\\c d.png", "c_d.png"),
        (".hidden", "hidden"), ("", "file"),
        ("..", "file"), ("é" * 5, "file"), ("a\r\nb\x00c", "a_b_c"), ("x" * 300 + ".jpeg", "x" * 95 + ".jpeg"),
        ("%2e%2e%2f", "2e_2e_2f"),
        ("a?b#c", "a_b_c"),
    ],
)  # fmt: skip
def test_names_are_one_plain_segment(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_extension_is_the_common_one() -> None:
    assert (extension("image/jpeg"), extension("image/png; x=y"), extension("x/y")) == (".jpg", ".png", "")
