"""What strangers made, cut to what a page can bear: our files by link, never bytes, never a secret, never megabytes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gateway.dashboard.shown import About, cut, own_links, shown_json, shown_output, shown_size
from tests.unit.dashboard.making import BASE

PNG = f"{BASE}/artifacts/{'t' * 43}/output.png"
MP4 = f"{BASE}/artifacts/{'u' * 43}/film.mp4"
BYTES = base64.b64encode(b"\x89PNG" * 5_000).decode()


def shown(output: Any, characters: int = 300, files: int = 4, known: dict[str, About] | None = None) -> Any:
    return shown_output(output, base=BASE, characters=characters, files=files, known=known)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("output.png", "image"),
        ("film.mp4", "video"),
        ("voice.mp3", "audio"),
        ("drawing.svg", "file"),
        ("page.html", "file"),
        ("mesh.glb", "file"),
        ("output", "file"),
    ],
)
def test_a_file_of_ours_is_shown_as_what_its_name_says(name: str, kind: str) -> None:
    [found] = shown(f"{BASE}/artifacts/{'t' * 43}/{name}")
    assert (found.kind, found.text) == (kind, None)


def test_what_is_known_of_a_file_goes_before_its_name() -> None:
    [found] = shown([PNG], known={PNG: About("application/octet-stream", 77)})
    assert (found.kind, found.content_type, found.size_bytes) == ("file", "application/octet-stream", 77)


@pytest.mark.parametrize(
    "foreign",
    [
        "https://evil.example/artifacts/x/output.png",
        f"{BASE}.evil.example/artifacts/x/output.png",
        "javascript:alert(1)",
        f"{BASE}/dashboard",
        f" {PNG}",
    ],
)
def test_somebody_elses_link_is_a_text_and_nothing_to_be_loaded(foreign: str) -> None:
    [found] = shown(foreign)
    assert (found.kind, found.url, found.text) == ("text", None, foreign)


def test_files_come_first_and_only_so_many() -> None:
    output = {"title": "two", "files": [PNG, {"film": MP4}], "more": [f"{BASE}/artifacts/x/{n}.png" for n in range(9)]}
    found = shown(output, characters=5_000)
    assert [one.kind for one in found] == ["image", "video", "image", "image", "json"]
    assert json.loads(found[-1].text)["title"] == "two"
    assert [one.kind for one in shown([PNG, MP4])] == ["image", "video"]


def test_a_text_that_came_in_parts_is_one_text() -> None:
    [found] = shown(["Once ", "upon ", "a time"])
    assert (found.kind, found.text, found.is_cut) == ("text", "Once upon a time", False)
    [found] = shown(["0123456789"] * 100_000)
    assert (len(found.text), found.is_cut) == (301, True)
    assert shown(None) == ()
    assert shown("") != ()


@pytest.mark.parametrize(
    "output",
    [
        f"data:image/png;base64,{BYTES}",
        BYTES,
        [f"data:image/png;base64,{BYTES}"],
        [BYTES, BYTES],
        {"b64_json": BYTES},
        {"a": [{"b": {"c": f"data:audio/mpeg;base64,{BYTES}"}}]},
        {BYTES: 1},
    ],
)
def test_bytes_are_named_and_never_shown(output: Any) -> None:
    for found in shown(output, characters=10_000):
        assert "iVBORw" not in (found.text or "")
        assert BYTES[20:60] not in (found.text or "")
    assert "kB" in json.dumps([found.text for found in shown(output, characters=10_000)])


def test_long_words_and_data_in_prose_stay_text() -> None:
    prose = "data: see below, and above. " * 100
    assert cut(prose, 50).text == prose[:50] + "…"
    assert cut("https://example.com/" + "a-b/" * 200, 40).text.startswith("https://example.com/")


def test_vectors_deep_nests_and_wide_objects_are_cut_and_stay_json() -> None:
    deep: Any = "bottom"
    for _ in range(100):
        deep = [deep]
    value = {"vector": [0.5] * 100_000, "deep": deep, **{f"key{n}": n for n in range(500)}}
    text, is_cut = shown_json(value)
    found = json.loads(text)
    assert is_cut
    assert len(found) == 51
    assert found["vector"][-1] == "… 99950 more"
    assert len(text) < 10_000


def test_a_secret_input_is_not_shown_and_a_picture_is_named() -> None:
    value = {"api_key": "hunter2", "image": f"data:image/png;base64,{BYTES}", "prompt": "p" * 5_000 + " end"}
    text, _ = shown_json(value, secret=("api_key",))
    assert "hunter2" not in text
    assert '"[image/png, 20 kB]"' in text
    assert '"api_key": "[REDACTED]"' in text


def test_markup_and_odd_characters_stay_what_they_are() -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e\u0000\n&lt;"
    [found] = shown(hostile)
    assert found.text == hostile
    assert json.loads(shown_json({"prompt": hostile}).text) == {"prompt": hostile}


def test_links_are_found_once_each_in_a_bounded_walk() -> None:
    assert own_links([PNG, [PNG, MP4], 3, None], base=BASE, most=9) == [PNG, MP4]
    assert own_links([["x"] * 3_000, PNG], base=BASE, most=9) == []


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_340_000, "2.34 MB")])
def test_sizes_read_as_people_say_them(size: int, text: str) -> None:
    assert shown_size(size) == text
