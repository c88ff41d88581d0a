"""What a manifest may say, what its version covers, and the schema it becomes."""

from __future__ import annotations

import re

import pytest

from local_backend.manifest import MANIFEST, PackageRefused, parse
from local_backend.package import BUNDLED

BASE = b"""
name = "acme/double"
kind = "tensor"
[input.x]
type = "tensor"
[input.mode]
type = "string"
enum = ["a", "b"]
default = "a"
[output]
type = "tensor"
[parameters]
graph = "model.onnx"
[[files]]
path = "model.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
bytes = 1
"""


def test_the_version_covers_values_not_comments() -> None:
    version = parse(BASE, "p").version
    assert re.fullmatch(r"[0-9a-f]{64}", version)
    assert parse(b"# a comment\n" + BASE, "p").version == version
    assert parse(BASE.replace(b'default = "a"', b'default = "b"'), "p").version != version
    assert parse(BASE.replace(b'"0000', b'"1000'), "p").version != version


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b'name = "acme/double"', b'name = "acme"', "owner/name"),
        (b'name = "acme/double"', b'name = "acme/../double"', "owner/name"),
        (b'kind = "tensor"', b'kind = "magic"', "magic"),
        (b'type = "string"', b'type = "strong"', "strong"),
        (b"[input.mode]", b"[input.Output]", "usable name"),
        (b'default = "a"', b'default = "c"', "not in enum"),
        (b'default = "a"', b"default = 1", "is no string"),
        (b'default = "a"', b"minimum = 1", "takes no minimum"),
        (b"[input.x]", b"colour = 1\n[input.x]", "colour"),
        (b'graph = "model.onnx"', b'graph = "other.onnx"', "does not list"),
        (b'path = "model.onnx"', b'path = "../model.onnx"', "plain relative path"),
        (b'path = "model.onnx"', b'path = "/model.onnx"', "plain relative path"),
        (b'sha256 = "0', b'sha256 = "x', "64 hex"),
        (b'type = "tensor"\n[parameters]', b'type = "vectors"\n[parameters]', "tensor"),
        (b"name = ", b"name ", "valid TOML"),
        (b"name = ", b"\xff = ", "valid TOML"),
    ],
)
def test_a_wrong_manifest_is_refused_in_one_line(before: bytes, after: bytes, words: str) -> None:
    assert before in BASE
    with pytest.raises(PackageRefused, match=re.escape(words)) as refused:
        parse(BASE.replace(before, after, 1), f"folder/{MANIFEST}")
    assert str(refused.value).startswith(f"folder/{MANIFEST}: ")
    assert "\n" not in str(refused.value)


def test_the_schema_is_what_replicates_clients_read() -> None:
    manifest = parse((BUNDLED / "upscaler" / MANIFEST).read_bytes(), "p")
    schemas = manifest.schema()["components"]["schemas"]
    assert schemas["Output"] == {"title": "Output", "type": "string", "format": "uri"}
    assert schemas["Input"]["required"] == ["image"]
    image, scale = (schemas["Input"]["properties"][key] for key in ("image", "scale"))
    assert (image["type"], image["format"], image["x-order"]) == ("string", "uri", 0)
    assert scale["allOf"] == [{"$ref": "#/components/schemas/scale"}]
    assert scale["default"] == 2
    assert (schemas["scale"]["enum"], schemas["scale"]["type"]) == ([2, 4], "integer")


def test_several_scales_need_an_enum_that_names_them() -> None:
    text = (BUNDLED / "upscaler" / MANIFEST).read_bytes()
    with pytest.raises(PackageRefused, match="enum = "):
        parse(text.replace(b"enum = [2, 4]", b"enum = [2, 3]"), "p")
