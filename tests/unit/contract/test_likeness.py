"""What is equal is found again by its likeness, and what differs is mostly told apart by it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.likeness import likeness

SCALARS = st.none() | st.booleans() | st.integers(-1_000, 1_000) | st.text(max_size=5)
VALUES: Any = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)


def other_words(value: Any) -> Any:
    """The same value by other means: whole numbers as floats, keys in another order."""
    if isinstance(value, dict):
        return {key: other_words(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [other_words(item) for item in value]
    return float(value) if isinstance(value, int) else value


@given(VALUES, VALUES)
def test_equal_values_have_one_likeness(one: Any, other: Any) -> None:
    again = other_words(json.loads(json.dumps(one)))
    assert again == one
    assert (likeness(again), hash(likeness(again))) == (likeness(one), hash(likeness(one)))
    if one == other:
        assert likeness(one) == likeness(other)


def test_different_ones_are_told_apart_as_deep_as_is_looked() -> None:
    pairs: list[tuple[Any, Any]] = [({"a": 1}, {"a": 2}), ({"a": [1]}, {"a": [1, 1]}), ({"a": {}}, {"a": []}), ("1", 1)]
    pairs += [({"a": {"b": {"c": [{"d": 1}]}}}, {"a": {"b": {"c": [{"d": 2}]}}})]
    for one, other in pairs:
        assert likeness(one) != likeness(other)


def test_what_is_very_deep_costs_no_depth() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert likeness(value) == likeness([[[[[[[0]]]]]]])
    while isinstance(value, list):  # one by one: Python itself would fall over letting it go
        value = value.pop()
