"""What can go wrong, by name, and how often it does in this universe. Draws and counts; does nothing itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import msgspec

from gateway.contract.errors import (
    AtCapacity,
    CredentialRefused,
    Failure,
    InputRefused,
    ModelFailed,
    NotSent,
    OutcomeUnknown,
    OutputModerated,
    RateLimited,
    Refused,
)
from gateway.contract.fact import Phase

SUBMIT_SECONDS = 15.0  # a driver waits no longer for an answer; of a held call, until its deadline


class Submit(msgspec.Struct, kw_only=True, frozen=True):
    """What becomes of a submit. One that is not sent starts nothing either."""

    is_sent: bool = True
    starts: bool = True  # a job
    error: Callable[[], Exception] | None = None  # what the driver says: a new one each time, for it keeps its frames
    answer: tuple[float, float] = (0.02, 0.3)  # seconds that it takes; beyond SUBMIT_SECONDS it is never heard
    streams: tuple[float, float] | None = None  # … and for so long it is streamed before the error, if it can be


SUBMITS: dict[str, Submit] = {
    "F1 slow submit": Submit(answer=(2.0, 14.0)),
    "F2 connection refused": Submit(is_sent=False, error=partial(NotSent, "connection refused")),
    "F3 no such host": Submit(is_sent=False, error=partial(NotSent, "the name has no address"), answer=(0.5, 5.0)),
    "F4 reset before the request": Submit(starts=False, error=partial(OutcomeUnknown, "connection reset")),
    "F4 reset after the request": Submit(error=partial(OutcomeUnknown, "connection reset")),
    "F5 closed without an answer": Submit(error=partial(OutcomeUnknown, "closed without an answer")),
    "F5 stream breaks off": Submit(error=partial(OutcomeUnknown, "the stream broke off"), streams=(0.3, 5.0)),
    "F5 keep-alive race": Submit(
        starts=False, error=partial(OutcomeUnknown, "closed without an answer"), answer=(0.0, 0.01)
    ),
    "F6 timeout, started": Submit(answer=(SUBMIT_SECONDS, 60.0)),
    "F7 timeout, not started": Submit(starts=False, answer=(SUBMIT_SECONDS, 60.0)),
    "F8 5xx, started": Submit(error=partial(OutcomeUnknown, "it answered 502", status=502)),
    "F8 5xx, not started": Submit(starts=False, error=partial(OutcomeUnknown, "it answered 500", status=500)),
    "F8 503": Submit(starts=False, error=partial(AtCapacity, "it answered 503", status=503)),
    "F9 429": Submit(starts=False, error=partial(RateLimited, status=429)),
    "F9 429 with a time": Submit(starts=False, error=partial(RateLimited, status=429, retry_after_seconds=4)),
    "F10 garbage": Submit(
        error=partial(OutcomeUnknown, "the provider accepted, but its answer is no JSON", status=200)
    ),
    "F11 dripping answer": Submit(answer=(10.0, 20.0)),
    "refused for its input": Submit(starts=False, error=partial(InputRefused, "no such size", status=422)),
    "refused": Submit(starts=False, error=partial(Refused, "not today", status=403)),
    "credential refused": Submit(starts=False, error=partial(CredentialRefused, status=401)),
    "a bug in the adapter": Submit(error=partial(ValueError, "a bug in the adapter")),
}


class Course(msgspec.Struct, kw_only=True, frozen=True):
    """What becomes of a job."""

    end: Phase = Phase.SUCCEEDED
    failure: Failure | None = None
    run_seconds: float | None = None  # None: drawn
    queue_seconds: float | None = None
    is_lost: bool = False  # once it runs, the provider knows it no more
    is_expired: bool = False  # its result is gone by the time it is asked for, or nearly
    is_empty: bool = False  # it says succeeded, and gives no output
    flips_to: Phase | None = None  # what it says of its end the second time
    polls_failing: int = 0
    poll_error: bool = False  # each poll stumbles over a bug
    cancel: str = "fits"  # fits, refused, cut, heard


COURSES: dict[str, Course] = {
    "job failed": Course(end=Phase.FAILED, failure=ModelFailed("out of memory").failure),
    "job moderated": Course(end=Phase.FAILED, failure=OutputModerated("withheld").failure),
    "job canceled by others": Course(end=Phase.CANCELED),
    "F16 result expired": Course(is_expired=True),
    "F16 succeeded without output": Course(is_empty=True),
    "F17 succeeded, then failed": Course(flips_to=Phase.FAILED),
    "F17 failed, then succeeded": Course(end=Phase.FAILED, flips_to=Phase.SUCCEEDED),
    "F18 hangs": Course(run_seconds=math.inf),
    "F18 waits for ever": Course(queue_seconds=math.inf),
    "F18 job lost": Course(is_lost=True),
    "polls cut": Course(polls_failing=4),
    "poll stumbles": Course(poll_error=True),
    "cancel refused": Course(cancel="refused", run_seconds=40.0),
    "cancel cut": Course(cancel="cut", run_seconds=30.0),
    "cancel only heard": Course(cancel="heard", run_seconds=20.0),
    "waits long": Course(queue_seconds=15.0),
}

CALLBACKS = (
    "F12 callback lost",
    "F13 callback duplicated",
    "F14 callback late",
    "F14 callbacks reordered",
    "F15 callback forged",
    "F15 callback replayed",
    "F15 callback for another attempt",
)

# Not drawn, but what comes of others: of a slow submit, of a long freeze, of an answer that was lost.
SEEN = ("F14 callback before the answer", "F22 freeze beyond the lease", "found in a list")

RECEIPTS = (
    "F19 receiver down",
    "F19 receiver slow",
    "F19 receiver redirects",
    "F19 receiver gone",
    "F19 receiver drips",
    "F19 receiver answers 500",
    "F19 receiver loses its answer",
)

STORES = ("F21 store slow", "F21 store out", "F21 answer lost after the commit")

WEATHER = (
    "F20 kill",
    "F21 outage",
    "F22 freeze",
    "F23 clock step",
    "F23 clock drift",
    "F25 drain",
    "F28 all providers down",
    "F29 links clogged",
)

CALLERS = (
    "F24 cancel",
    "F24 caller disconnects",
    "caller repeats with its key",
    "caller reads the stream again",
    "caller waits",
)

DISK = ("F21 commit fails",)  # of SQLite alone


def faults(store: str) -> tuple[str, ...]:
    """All that must come to pass in a run."""
    return (
        *SUBMITS,
        *COURSES,
        *CALLBACKS,
        *SEEN,
        *RECEIPTS,
        *STORES,
        *WEATHER,
        *CALLERS,
        *(DISK if store == "sqlite" else ()),
    )


class Fate:
    """
    One universe's dice. Each universe is bad in ways of its own: some faults are common there, some never come.

    `is_over`: the faults have stopped; from then on all goes well. `is_broken_off`: streams are, and another is begun.
    """

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self.random = Random(f"fate {seed}")
        self.counts = counts
        self.is_over = False
        self._shares = {
            kind: self.random.choice((0.0, 0.1, 0.3, 0.6)) for kind in ("submit", "job", "callback", "receipt", "store")
        }
        self._shares["store"] *= 0.05
        self._menus = {
            "submit": self._menu(tuple(SUBMITS)),
            "job": self._menu(tuple(COURSES)),
            "callback": self._menu(CALLBACKS),
            "receipt": self._menu(RECEIPTS),
            "store": STORES,
        }
        self.is_broken_off = False
        mood = self.random.random()
        if mood < 0.3:
            self._doubt()
        elif mood < 0.55:
            self._break_off()

    def _doubt(self) -> None:
        """A universe of answers that get lost, though the job begins, and of news that come late."""
        self._shares |= {"submit": 0.6, "callback": 0.6, "job": 0.5}
        unanswered = [name for name, plan in SUBMITS.items() if plan.starts]
        self._menus["submit"] = tuple(unanswered)
        self._menus["callback"] = ("F14 callback late", "F14 callback late", "F14 callbacks reordered")
        self._menus["job"] = ("job failed", "job failed", "waits long", "cancel only heard", "job canceled by others")

    def _break_off(self) -> None:
        """A universe of streams that break off, of jobs that run on, and of news that come once others have begun."""
        self.is_broken_off = True
        self._shares |= {"submit": 0.6, "callback": 0.9}
        self._menus["submit"] += ("F5 stream breaks off",) * len(self._menus["submit"])
        self._menus["callback"] = ("F14 callbacks reordered",) * 3 + ("F14 callback late", "F12 callback lost")

    def draw(self, kind: str) -> str | None:
        """A fault of this kind, counted; None: nothing goes wrong this time."""
        if self.is_over or self.random.random() >= self._shares[kind]:
            return None
        fault = self.random.choice(self._menus[kind])
        self.counts[fault] += 1
        return fault

    def count(self, fault: str) -> None:
        self.counts[fault] += 1

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def _menu(self, faults: tuple[str, ...]) -> tuple[str, ...]:
        """A few of them more often than the rest."""
        return faults + tuple(self.random.choices(faults, k=len(faults) // 2)) * 2
