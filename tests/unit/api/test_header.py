"""Request headers, read without HTTP: every number of seconds, every range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.header import byte_range, cancel_after_seconds, labels, prefer_seconds
from gateway.contract.errors import InputInvalid


@given(st.integers(5, 86_400))
def test_every_allowed_duration_is_read_the_same_in_each_form(seconds: int) -> None:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    assert cancel_after_seconds(str(seconds)) == seconds
    assert cancel_after_seconds(f"{seconds}s") == seconds
    assert cancel_after_seconds(f"{hours}h{minutes}m{rest}s") == seconds


@given(st.text(max_size=12))
def test_no_text_gives_a_duration_outside_of_the_bounds(text: str) -> None:
    try:
        seconds = cancel_after_seconds(text)
    except InputInvalid:
        return
    assert seconds is not None
    assert 5 <= seconds <= 86_400


@given(st.text(max_size=20) | st.from_regex(r"\A(wait)?=?\d{0,30}\Z"), st.sampled_from([0.0, 1.0, 58.0]))
def test_no_preference_holds_longer_than_may_be(text: str, most: float) -> None:
    seconds = prefer_seconds(text, most_seconds=most)
    assert seconds is None or 0 < seconds <= most


@given(st.text(max_size=20) | st.from_regex(r"\Abytes=\d{0,4}-\d{0,4}\Z"), st.integers(0, 2000))
def test_a_range_always_lies_in_the_file(text: str, size: int) -> None:
    try:
        found = byte_range(text, size)
    except ValueError:
        return
    if found is not None:
        assert 0 <= found[0] <= found[1] < size


@pytest.mark.parametrize("text", ["a=b\r\nx: y", "a=\x00", "a=é", "ключ=v", "a=" + "v" * 200, "a=b=\x7f"])
def test_labels_hold_nothing_that_a_log_or_header_could_choke_on(text: str) -> None:
    with pytest.raises(InputInvalid):
        labels(text)


def test_labels_may_hold_an_equals_sign_and_be_none() -> None:
    assert labels("a=b=c,,") == {"a": "b=c"}
    assert labels(None) == {}
