"""Reasons: the sentence that values make, and what older and newer gateways read of each other's."""

from __future__ import annotations

import msgspec
import pytest

from gateway.contract.reason import Reason


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason(code="cheapest", values=("cost", 400_000, 1_000_000)), "$0.0004 expected, next $0.001 expected"),
        (Reason(code="cheapest", values=("cost", 400_000)), "$0.0004 expected, no other"),
        (Reason(code="cheapest", values=("cost", 0, None)), "$0.00 expected, next cost unknown"),
        (Reason(code="fastest", values=("p95", 4.26, None)), "p95 4.26 s, next latency unknown"),
        (Reason(code="steadiest", values=("success", 0.987)), "99% succeed, no other"),
        (Reason(code="best", values=("score", 0.5, 0.75)), "score 0.500, next score 0.750"),
        (Reason(code="ordered", values=("place", 1.0, 2.0)), "place 1, next place 2"),
        (Reason(code="next", values=("mean", 12.0)), "mean 12 s"),
        (Reason(code="tie", values=(3,)), "one of 3 that are about as good, ordered by draw"),
        (Reason(code="price", written="dearer than it may be"), "dearer than it may be"),
        (Reason(code="of a later version", values=("a", 1)), "a, 1"),
    ],
)
def test_a_sentence_is_made_when_it_is_read(reason: Reason, text: str) -> None:
    assert reason.text == text


def test_a_gateway_of_before_and_one_of_now_read_each_other() -> None:
    class Before(msgspec.Struct):
        code: str
        text: str

    old = msgspec.msgpack.decode(msgspec.msgpack.encode(Reason(code="tie", values=(3,))), type=Before)
    assert (old.code, old.text) == ("tie", "")
    new = msgspec.msgpack.decode(msgspec.msgpack.encode(Before(code="next", text="$0.01, behind fal")), type=Reason)
    assert new.text == "$0.01, behind fal"
