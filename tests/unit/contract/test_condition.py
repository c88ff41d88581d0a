"""What a stated value must be: told for sure, or not told."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract.condition import Condition, read_condition


@pytest.mark.parametrize(
    ("said", "value", "holds"),
    [
        ("1080p", "1080P", True),
        ("1080p", "720p", False),
        ("1080p", None, None),
        ("1080p", ["1080p"], None),
        ("5", 5, True),
        (True, True, True),
        (True, False, False),
        (False, "false", True),
        (True, "https://files.example/song.mp3", None),
        (True, 1, None),
        (5, "5s", True),
        (5, 5.0, True),
        (5, 8, False),
        (5, "auto", None),
        (1, True, None),
        (["720p", "768p"], "768p", True),
        (["720p", "768p"], "480p", False),
        ([5, "auto"], "auto", True),
        ([5, "auto"], "never", None),
        ({"at_least": 1.5}, 1.5, True),
        ({"at_least": 1.5}, 1.49, False),
        ({"at_least": 1, "below": 2}, "2", False),
        ({"at_least": 1, "below": 2}, 1.99, True),
        ({"below": 2}, None, None),
        ({"below": 2}, float("nan"), None),
    ],
)
def test_it_holds_it_does_not_or_nobody_can_tell(said: Any, value: Any, holds: bool | None) -> None:
    assert read_condition(said).holds(value) is holds


@pytest.mark.parametrize("said", [None, "", [], {}, {"above": 1}, {"at_least": "1"}, {"at_least": True}, [["a"]], b"x"])
def test_what_is_none_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match=r"it is|is no bound"):
        read_condition(said)


def test_it_is_shown_as_it_is_meant() -> None:
    assert read_condition(["1080p", True, 2.0]).text == "1080p or true or 2"
    assert Condition(at_least=1.5, below=4).text == "≥ 1.5 < 4"
