"""Data URIs are read strictly, and prose is not taken for one."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import data_uri
from gateway.contract.data_uri import Malformed, build, encoded_length, is_data_uri, is_sound, parse
from gateway.contract.errors import TooLarge


@given(st.binary(max_size=300))
def test_what_is_built_is_read_again_and_its_length_was_foretold(content: bytes) -> None:
    text = build(content, "image/png")
    assert is_data_uri(text)
    assert parse(text, max_bytes=300) == data_uri.DataUri(content_type="image/png", content=content)
    assert len(text) == encoded_length(len(content), "image/png")


@pytest.mark.parametrize(
    ("text", "content_type", "content"),
    [
        ("data:text/plain,hello%20world", "text/plain", b"hello world"),
        ("data:text/plain;charset=utf-8,a%C3%A9", "text/plain", "aé".encode()),
        ("data:Image/PNG;name=x.png;base64,AAEC", "image/png", b"\x00\x01\x02"),
        ("DATA:application/json;BASE64,e30=", "application/json", b"{}"),
        ("data:application/octet-stream;base64,", "application/octet-stream", b""),
    ],
)
def test_both_forms_are_read(text: str, content_type: str, content: bytes) -> None:
    assert is_data_uri(text)
    assert parse(text, max_bytes=100) == data_uri.DataUri(content_type=content_type, content=content)


@pytest.mark.parametrize(
    "payload",
    [
        "A",
        "AA",
        "AAA",
        "AA=",
        "AA==AA==",
        "AAEC,AAEC",
        "AA EC",
        "AAEC\n",
        "-_-_",
        "AA%3D%3D",
        "====",
        "AAEC====",
        "ÀAEC",
    ],
)
def test_anything_but_strict_base64_is_malformed(payload: str) -> None:
    text = f"data:image/png;base64,{payload}"
    assert is_data_uri(text)
    assert not is_sound(text)
    with pytest.raises(Malformed):
        parse(text, max_bytes=100)


@pytest.mark.parametrize(
    "text",
    ["", "data:", "data:,x", "data: see below, and above", "data:text/plain", "data:text/plain,two, parts",
     "data:text/plain,a,b", "data:text/plain,%zz", "data:;base64,AAEC", "data:text;base64,AAEC",
     "xdata:text/plain,x", "data:text/plain,é",
     "data:" + "a" * 300 + "/x,x"],
)  # fmt: skip
def test_prose_and_half_uris_are_not_data_uris(text: str) -> None:
    assert not is_data_uri(text)
    with pytest.raises(Malformed):
        parse(text, max_bytes=1000)


@given(st.text(alphabet="AQz9+/=-_% é\n,", max_size=12), st.sampled_from(["", ";base64", ";charset=utf-8;base64"]))
def test_sound_is_what_can_be_parsed(payload: str, form: str) -> None:
    text = f"data:image/png{form},{payload}"
    try:
        parse(text, max_bytes=1_000)
    except Malformed:
        assert not is_sound(text)
    else:
        assert is_sound(text)


@pytest.mark.parametrize("repeated", ["a", "%41", "a%41"])
def test_megabytes_of_percent_encoding_are_stepped_over_in_runs(repeated: str) -> None:
    # Memory, not time, tells how the pattern goes: one that can go back keeps a place for every step.
    text = "data:text/plain," + repeated * 300_000
    broken = text + ","
    tracemalloc.start()
    assert is_sound(text)
    assert not is_sound(broken)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_length_is_looked_at_before_anything_is_decoded() -> None:
    text = "data:image/png;base64," + "A" * 8_000_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        parse(text, max_bytes=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "text", ["data:text/plain,%41%41%41%41", "data:text/plain;base64,QUFBQQ==", "data:text/plain;base64,QUFBQUE="]
)
def test_one_byte_more_than_allowed_is_too_large(text: str) -> None:
    with pytest.raises(TooLarge):
        parse(text, max_bytes=3)
