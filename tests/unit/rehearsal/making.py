"""Traces for the tests of rehearsals."""

from __future__ import annotations

from typing import Any

from gateway.contract.money import NANOS, Units
from gateway.rehearsal.trace import GOOD, Asked, Trace, Tried
from gateway.testing.virtual import START

A, B = "acme/up@a", "acme/up@b"


def tried(offer: str = A, at: float = 0.0, **more: Any) -> Tried:
    given = {"how": GOOD, "seconds": 2.0, "nanos": NANOS // 100, "expected_nanos": NANOS // 100}
    return Tried(offer=offer, at=at, **(given | more))


def asked(number: int, *attempts: Tried, at: float | None = None, **more: Any) -> Asked:
    won = next((one for one in attempts if one.how == GOOD), None)
    given = {
        "id": f"{number}",
        "at": float(number) if at is None else at,
        "model": "acme/up",
        "version": "0" * 64,
        "facts": Units(),
        "policy": "today",
        "deadline_seconds": 60.0,
        "status": "failed" if won is None else "succeeded",
        "seconds": None if won is None else won.seconds,
        "expected": {A: NANOS // 100, B: NANOS // 50},
    }
    return Asked(tried=attempts, **(given | more))


def trace(*ones: Asked) -> Trace:
    return Trace(begun_at=START, asked=ones)
