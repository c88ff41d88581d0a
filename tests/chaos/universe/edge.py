"""
The edges of the lifecycle, one by one. A run that has not gone along each often enough shows too little.

An edge that does not stand here is a breach of I2. The reducer alone would also go from `intent` to `abandoned` and
from `unknown` to `canceled`; the engine never asks for it: an intent without an answer becomes `unknown` first, and
what has no handle cannot be told to stop.
"""

from __future__ import annotations

from gateway.contract.attempt import AttemptStatus as Attempt
from gateway.contract.prediction import Status

ATTEMPT_EDGES: frozenset[tuple[Attempt, Attempt]] = frozenset(
    {
        (Attempt.INTENT, Attempt.REJECTED),
        (Attempt.INTENT, Attempt.UNKNOWN),
        (Attempt.INTENT, Attempt.ACCEPTED),
        (Attempt.INTENT, Attempt.RUNNING),
        (Attempt.INTENT, Attempt.COLLECTING),
        (Attempt.INTENT, Attempt.SUCCEEDED),
        (Attempt.INTENT, Attempt.FAILED),
        (Attempt.INTENT, Attempt.CANCELED),
        (Attempt.UNKNOWN, Attempt.ACCEPTED),
        (Attempt.UNKNOWN, Attempt.RUNNING),
        (Attempt.UNKNOWN, Attempt.COLLECTING),
        (Attempt.UNKNOWN, Attempt.SUCCEEDED),
        (Attempt.UNKNOWN, Attempt.FAILED),
        (Attempt.UNKNOWN, Attempt.ABANDONED),
        (Attempt.ACCEPTED, Attempt.RUNNING),
        (Attempt.ACCEPTED, Attempt.COLLECTING),
        (Attempt.ACCEPTED, Attempt.SUCCEEDED),
        (Attempt.ACCEPTED, Attempt.FAILED),
        (Attempt.ACCEPTED, Attempt.CANCELED),
        (Attempt.ACCEPTED, Attempt.ABANDONED),
        (Attempt.RUNNING, Attempt.COLLECTING),
        (Attempt.RUNNING, Attempt.SUCCEEDED),
        (Attempt.RUNNING, Attempt.FAILED),
        (Attempt.RUNNING, Attempt.CANCELED),
        (Attempt.RUNNING, Attempt.ABANDONED),
        (Attempt.COLLECTING, Attempt.SUCCEEDED),
        (Attempt.COLLECTING, Attempt.FAILED),
        # We gave it up; its provider told its end all the same.
        (Attempt.ABANDONED, Attempt.SUCCEEDED),
        (Attempt.ABANDONED, Attempt.FAILED),
        (Attempt.ABANDONED, Attempt.CANCELED),
        (Attempt.ABANDONED, Attempt.COLLECTING),
        # … or that it runs or waits, while it was still of use: it was taken up again.
        (Attempt.ABANDONED, Attempt.ACCEPTED),
        (Attempt.ABANDONED, Attempt.RUNNING),
    }
)

STATUS_EDGES: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status.STARTING, Status.PROCESSING),
        (Status.STARTING, Status.SUCCEEDED),
        (Status.STARTING, Status.FAILED),
        (Status.STARTING, Status.CANCELED),
        (Status.STARTING, Status.ABORTED),
        (Status.PROCESSING, Status.SUCCEEDED),
        (Status.PROCESSING, Status.FAILED),
        (Status.PROCESSING, Status.CANCELED),
    }
)


def names() -> tuple[str, ...]:
    return tuple(
        sorted(
            [f"attempt {before} -> {after}" for before, after in ATTEMPT_EDGES]
            + [f"prediction {before} -> {after}" for before, after in STATUS_EDGES]
        )
    )
