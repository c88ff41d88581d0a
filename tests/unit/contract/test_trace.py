from __future__ import annotations

import pytest

from gateway.contract import trace
from gateway.contract.trace import read_traceparent
from tests.unit.telemetry.made import prediction

GIVEN = f"00-{'a' * 31}1-{'b' * 15}2-01"


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (GIVEN, GIVEN),
        (f"  {GIVEN} ", GIVEN),
        (f"01-{GIVEN[3:]}", GIVEN),  # a later version is read as far as we know it
        (f"01-{GIVEN[3:]}-what-comes", GIVEN),
        (f"{GIVEN[:-2]}00", f"{GIVEN[:-2]}00"),
        (None, ""),
        ("", ""),
        (f"{GIVEN}-more", ""),  # version 00 has no more
        (f"01-{GIVEN[3:]}more", ""),
        (f"ff-{GIVEN[3:]}", ""),
        (GIVEN.upper(), ""),
        (f"00-{'0' * 32}-{'b' * 16}-01", ""),
        (f"00-{'a' * 32}-{'0' * 16}-01", ""),
        (f"00-{'a' * 31}-{'b' * 16}-01", ""),
        (f"00-{'a' * 32}-{'b' * 16}-0g", ""),
        (f"01-{GIVEN[3:]}-{'x' * 1000}", ""),
        ("00-\u0661" + "a" * 31 + f"-{'b' * 16}-01", ""),
        (f"{GIVEN}\nset-cookie: x", ""),
    ],
)
def test_what_a_caller_sends_is_read_as_w3c_says_or_not_at_all(said: str | None, read: str) -> None:
    assert read_traceparent(said) == read


def test_ids_are_the_callers_where_there_is_one_and_else_always_the_same() -> None:
    given, alone = prediction(trace=GIVEN), prediction()
    assert (trace.trace_id(given), trace.parent_id(given), trace.flags(given)) == (GIVEN[3:35], GIVEN[36:52], 1)
    assert (trace.parent_id(alone), trace.flags(alone)) == ("", 0)
    assert trace.trace_id(alone) == trace.trace_id(prediction())
    assert trace.trace_id(alone) != trace.trace_id(prediction(id="another"))
    made = [
        trace.prediction_span_id(alone),
        *(trace.attempt_span_id(alone, number) for number in (1, 2, 11)),
        *(trace.delivery_span_id("msg_1", number) for number in (1, 2)),
    ]
    assert len(set(made)) == len(made)
    assert all(len(id) == 16 and int(id, 16) for id in made)


def test_a_gateway_without_tracing_hands_the_callers_context_on_as_it_came() -> None:
    assert trace.given(prediction(trace=GIVEN), 1) == GIVEN
    assert trace.given(prediction(), 1) == ""
