from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.provider import HttpResponse
from providers._retry_after import MAX_SECONDS, read_duration, read_retry_after


def response(body: bytes = b"", status: int = 429, **headers: str) -> HttpResponse:
    return HttpResponse(
        status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=body
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h30m", 5400.0),
        ("450ms", 0.45),
        ("1m2.5s", 62.5),
        ("2 minutes", 120.0),
        ("12", 12.0),
        ("1d", 86400.0),
        ("", None),
        ("soon", None),
        ("5 fortnights", None),
        ("s", None),
        ("1s later", None),
        ("x1s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert read_duration(text) == seconds


DATE = "Mon, 02 Mar 2026 09:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "2.5"}, 2.5),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "30s"}, 30.0),
        ({"retry_after": "99999999"}, MAX_SECONDS),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "٣"}, None),
        ({"retry_after": "later"}, None),
        ({"retry_after": "9" * 400}, None),
        ({"retry_after": "1", "retry_after_ms": "12500"}, 12.5),
        ({"retry_after": "1", "retry_after_ms": "soon"}, 1.0),
        ({"retry_after": "Mon, 02 Mar 2026 09:01:30 GMT", "date": DATE}, 90.0),
        ({"retry_after": "Mon, 02 Mar 2026 08:00:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Mon, 02 Mar 2026 09:01:30 GMT"}, None),  # no "now" to measure from
        ({"retry_after": "Mon, 02 Mar 2026 09:01:30 GMT", "date": "today"}, None),
        ({"retry_after": "Mon, 02 Mar 2026 09:01:30 -0000", "date": DATE}, 90.0),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0s"}, 360.0),
        ({"x_ratelimit_remaining_requests": "3", "x_ratelimit_reset_requests": "6m0s"}, None),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(response(**headers)) == seconds


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"retry_after": 5, "detail": "resets in ~9s"}', 5.0),
        (b'{"retry_after": "1m"}', 60.0),
        (b'{"retry_after": true}', None),
        (b'{"error": {"retry_after": 2.5}}', 2.5),
        (b'{"detail": "Request was throttled. Your rate limit resets in ~30s."}', 30.0),
        (b'{"error": {"message": "Please try again in 450ms. Visit us."}}', 0.45),
        (b"please wait 2 minutes before trying again", 120.0),
        (b"You have 3 tries. Wait for it.", None),
        (b'{"retry_after": 1e999}', None),
        (b"\xff\xfe resets in 4s", 4.0),
        (b"[" * 5000, None),
    ],
)
def test_bodies(body: bytes, seconds: float | None) -> None:
    assert read_retry_after(response(body)) == seconds


def test_a_body_of_a_success_says_nothing_of_when_to_come_back() -> None:
    assert read_retry_after(response(b'{"output": "it resets in 5s", "retry_after": 9}', status=200)) is None


@given(
    body=st.binary(max_size=300) | st.text(max_size=300).map(str.encode),
    header=st.text(max_size=60),
    date=st.text(max_size=40),
    status=st.integers(min_value=100, max_value=599),
)
def test_whatever_is_said_it_is_a_sane_number_or_nothing(body: bytes, header: str, date: str, status: int) -> None:
    for name in ("retry_after", "retry_after_ms", "x_ratelimit_reset_tokens"):
        found = read_retry_after(
            response(body, status=status, date=date, x_ratelimit_remaining_tokens="0", **{name: header})
        )
        assert found is None or (math.isfinite(found) and 0 <= found <= MAX_SECONDS)
