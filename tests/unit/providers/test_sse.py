"""The event parser against the standard's rules, and against streams cut at every byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers._sse import EventParser, EventTooLarge


def parse(*chunks: bytes) -> list[tuple[str, str, str | None]]:
    parser = EventParser()
    return [(event.event, event.data, event.id) for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_ending_of_the_standard_ends_a_line(end: bytes) -> None:
    stream = end.join([b"event: output", b"id: 7", b"data: one", b"data: two", b"", b""])
    assert parse(stream) == [("output", "one\ntwo", "7")]


def test_characters_that_other_splitters_take_for_line_ends_are_text() -> None:
    text = "a\u2028b\x0bc\x0cd\x85e\x1cf"
    assert parse(f"data: {text}\n\n".encode()) == [("message", text, None)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data\n\n", [("message", "", None)]),  # a field without a colon has an empty value
        (b"data:\ndata:\n\n", [("message", "\n", None)]),
        (b"data:  two spaces\n\n", [("message", " two spaces", None)]),
        (b": a comment\n\n:another\ndata: x\n\n", [("message", "x", None)]),
        (b"event: lonely\n\ndata: x\n\n", [("message", "x", None)]),  # no data: dropped, and its name with it
        (b"\xef\xbb\xbfdata: bom\n\n", [("message", "bom", None)]),
        (b"data: \xff\xfe\n\n", [("message", "\ufffd\ufffd", None)]),
        (b"data: cut off\n", []),  # no blank line: never dispatched
        (b"retry: 10\nunknown: y\ndata: x\n\n", [("message", "x", None)]),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),  # it outlives its event
        (b"id: 1\nid\ndata: c\n\n", [("message", "c", "")]),
        (b"id: 1\0\ndata: a\n\n", [("message", "a", None)]),
        (b"data: {\"a\": 1}\n\n", [("message", '{"a": 1}', None)]),
    ],
)  # fmt: skip
def test_fields_mean_what_the_standard_says(stream: bytes, events: list[tuple[str, str, str | None]]) -> None:
    assert parse(stream) == events


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"data: a\n\ndata: cut off", ("message", "cut off", None)),
        (b"event: e\nid: 1\ndata: one\ndata: two\n", ("e", "one\ntwo", "1")),
        (b"data: a\n\n", None),
        (b"event: e\n", None),
        (b"", None),
    ],
)
def test_the_event_that_a_stream_ends_in_is_told_at_its_end_alone(
    stream: bytes, event: tuple[str, str, str | None] | None
) -> None:
    parser = EventParser()
    assert all(told.data == "a" for told in parser.feed(stream))
    last = parser.end()
    assert (last and (last.event, last.data, last.id)) == event
    assert parser.end() is None


LINES = st.lists(
    st.sampled_from(
        [b"data: \xe2\x82\xac", b"data", b"event: e", b"id: 1", b": c", b"", b"\xef\xbb\xbf", b"data:\xff"]
    ),
    max_size=12,
)


@given(LINES, st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=12, max_size=12), st.data())
def test_where_a_stream_is_cut_into_chunks_changes_nothing(
    lines: list[bytes], ends: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*chunks) == parse(stream)
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == parse(stream)


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"], ids=["endless line", "endless lines"])
def test_an_event_that_never_ends_is_refused_at_the_limit(piece: bytes) -> None:
    parser = EventParser(max_event_characters=1000)
    for _ in range(1000 // len(piece.rstrip(b"\n"))):
        parser.feed(piece)
    with pytest.raises(EventTooLarge):
        parser.feed(piece)


def test_comments_and_finished_events_do_not_add_up_to_the_limit() -> None:
    parser = EventParser(max_event_characters=1000)
    for _ in range(2000):
        parser.feed(b": ping\n")
        assert len(parser.feed(b"data: x\n\n")) == 1
