"""How much of a rate limit is left, in the headers that providers tell it by. Not when it is full again."""

from __future__ import annotations

from gateway.contract.provider import HttpResponse

# (what is left, of how much)
_PAIRS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-limit-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-limit-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-limit"),
    ("ratelimit-remaining", "ratelimit-limit"),
)


def read_headroom(response: HttpResponse) -> float | None:
    """0…1: the share that is left of the tightest limit; None if the answer tells of none."""
    headers = response.headers
    found = [
        min(1.0, left / limit)
        for name, of in _PAIRS
        if (left := _number(headers.get(name))) is not None and (limit := _number(headers.get(of)))
    ]
    busy, most = (
        _number(headers.get("current-concurrent-requests")),
        _number(headers.get("maximum-concurrent-requests")),
    )
    if busy is not None and most:
        found.append(max(0.0, 1 - busy / most))
    return min(found, default=None)


def _number(text: str | None) -> float | None:
    if text is None or not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 15:
        return None
    return float(text)
