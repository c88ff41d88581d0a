"""Offers, what we measured of them, and the plan that says why. Values only; the verbs live in `policies`."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from gateway.contract.budget import Hold
from gateway.contract.money import Price
from gateway.contract.reason import Reason


class InputMapping(msgspec.Struct, kw_only=True, frozen=True):
    """
    How an offer's input differs from the model's. Applied in this order: values, spread, rename, set, drop.

    Their keys may be paths: "a.b" lies inside the object "a", and "a[]" is the next item of the list "a".
    """

    values: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # key → {our value as text: their value}
    # key → {our value as text: several keys of theirs with their values}
    spread: dict[str, dict[str, dict[str, Any]]] = msgspec.field(default_factory=dict)
    rename: dict[str, str] = msgspec.field(default_factory=dict)  # our key → theirs
    set: dict[str, Any] = msgspec.field(default_factory=dict)  # their key → constant
    drop: tuple[str, ...] = ()  # their keys, at the top

    def apply(self, input: dict[str, Any]) -> dict[str, Any]:
        """A new dict; `input` is untouched."""
        mapped: dict[str, Any] = {}
        for key, value in input.items():
            word = _word(value)
            many = self.spread.get(key, {}).get(word) if word is not None else None
            if many is not None:
                for their_key, constant in many.items():
                    _put(mapped, their_key, constant)
                continue
            if word is not None and key in self.values:
                value = self.values[key].get(word, value)
            theirs = self.rename.get(key)
            if theirs is None:
                mapped[key] = value  # a key of the caller's is never a path
            else:
                _put(mapped, theirs, value)
        for their_key, constant in self.set.items():
            _put(mapped, their_key, constant)
        for key in self.drop:
            mapped.pop(key, None)
        return mapped


def _word(value: Any) -> str | None:
    if isinstance(value, (dict, list)):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _put(target: dict[str, Any], path: str, value: Any) -> None:
    """Lay `value` at `path`; what lies in the way and is no object or list gives way to it."""
    *above, last = path.split(".")
    for name in above:
        inner = target.get(name)
        target[name] = target = dict(inner) if isinstance(inner, dict) else {}
    if last.endswith("[]"):
        before = target.get(last[:-2])
        target[last[:-2]] = [*(before if isinstance(before, list) else []), value]
    else:
        target[last] = value


class OutputMapping(msgspec.Struct, kw_only=True, frozen=True):
    """
    Where in an offer's output lies what the model's callers expect, and in which form. An empty path: it is that.

    A path is keys and list steps: "images[*].url" is the list of all urls, "images[0].url" the first, "video.url" one.
    """

    path: str = ""
    form: str = ""  # "list": one thing becomes a list of it; "one": of a list its first; "text": its parts joined

    def apply(self, output: Any) -> Any:
        """Raises LookupError, with the path as its first argument, for an output that has nothing there."""
        found = [output]
        is_list = False
        for step in self.path.replace("[", ".[").split(".") if self.path else ():
            if step == "[*]":
                is_list = True
                found = [item for value in found if isinstance(value, list) for item in value]
            elif step.startswith("["):
                index = int(step[1:-1])
                found = [value[index] for value in found if isinstance(value, list) and len(value) > index]
            elif step:
                found = [value[step] for value in found if isinstance(value, dict) and value.get(step) is not None]
        if not found:
            raise LookupError(self.path)
        value = found if is_list else found[0]
        match self.form:
            case "list":
                return value if isinstance(value, list) else [value]
            case "one":
                return value[0] if isinstance(value, list) and value else value
            case "text":
                return "".join(map(str, value)) if isinstance(value, list) else value
            case _:
                return value


QUALITIES = ("full", "reduced")  # reduced: what it makes is less than the model promises


class Offer(msgspec.Struct, kw_only=True, frozen=True):
    """One provider's way to serve a model, as configured."""

    id: str  # "<model>@<provider>" or "<model>@<provider>#2": stable key of signals, breaker, metrics
    model: str  # owner/name, ours
    provider: str  # name of the configured provider
    name: str  # what the provider calls it
    version: str  # public version it is declared for; pinned requests match on it
    remote_version: str | None = None  # what to send as the version, if the provider takes one
    price: Price = Price()
    region: str | None = None
    capabilities: frozenset[str] = frozenset()  # e.g. "stream", "cancel", "stop", "webhook"
    is_fallback: bool = False
    input: InputMapping = InputMapping()
    output: OutputMapping = OutputMapping()
    options: dict[str, Any] = msgspec.field(default_factory=dict)  # passed to the adapter, e.g. {"route": "images"}
    concurrency: int | None = None  # most attempts in flight here
    quality: str = "full"  # of QUALITIES
    equivalent: str | None = None  # a class of offers, across versions, of which any may stand in for another

    @property
    def own_name(self) -> str:
        """How a policy names this one offer: `provider#2`, the second of the provider's for the model."""
        name = self.id.rpartition("@")[2]
        return name if "#" in name else f"{name}#1"

    def is_called(self, name: str) -> bool:
        """Whether a policy means it by `name`, its own or its provider's."""
        return name == self.provider or ("#" in name and name == self.own_name)


class BreakerState(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


# Where a distribution is told: the share of durations that are shorter. Close together where promises are made.
SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995)


class Signals(msgspec.Struct, kw_only=True, frozen=True):
    """
    What we measured of an offer lately. Seconds; None where there is no data: no data is not zero.

    `success` is the probability that the next attempt does what it should, blames CALLER, LOCAL and THROTTLE left out.
    `bill` and `failure_bill` are what a success and a failure are billed, as shares of what was expected of a success.
    """

    samples: int = 0  # ended attempts in the window
    queue_p50: float | None = None
    run_mean: float | None = None
    run_p50: float | None = None
    run_p95: float | None = None
    total_p50: float | None = None
    total_p95: float | None = None
    seconds: tuple[float, ...] = ()  # to a success begun now, at each of SHARES
    hoped_seconds: float | None = None  # to a success, if it were again as fast as it has been
    failure_seconds: float | None = None  # until a failure is known, in the mean
    success: float | None = None
    bill: float = 1.0
    failure_bill: float = 0.0
    in_flight: int = 0
    overdue: int = 0  # of them those that should have ended long ago
    unheard_seconds: float | None = None  # since anything was learned
    breaker: BreakerState = BreakerState.CLOSED
    breaker_until_seconds: float | None = None  # until it probes again
    limited_for_seconds: float = 0.0  # rate limited: nothing should be sent for so long
    pace_seconds: float = 0.0  # by the rate learned from its refusals: nothing should be sent for so long
    turn_seconds: float = 0.0  # it was away and is coming back: until this prediction's turn


NO_SIGNALS = Signals()


class Candidate(msgspec.Struct, kw_only=True, frozen=True):
    """An offer considered for one prediction."""

    offer: Offer
    signals: Signals
    expected_nanos: int | None  # None: unknown
    expected_seconds: float | None  # None: no data
    provider_ready: bool = True  # e.g. the local backend's process is up
    provider_full: bool = False  # the provider, over all its offers, has as many in flight as it may have
    views: dict[str, Any] = msgspec.field(default_factory=dict)  # by policy: what it has found out (policies.view)


class Choice(msgspec.Struct, kw_only=True, frozen=True):
    """One line of a plan."""

    offer: str
    provider: str
    kept: bool
    reasons: tuple[Reason, ...]
    score: float | None = None  # lower is better; None if dropped
    expected_nanos: int | None = None
    expected_seconds: float | None = None
    is_fallback: bool = False
    until_seconds: float | None = None  # after so long the plan goes on with the next; None: only limits end it
    quality: str = "full"  # of the offer, as declared


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """
    The ordered candidates: kept ones first, best first, the fallback last of them, then the dropped ones.

    `wait_seconds` is set when nothing can be tried now but something may be soon (breakers, rate limits).
    """

    policy: str
    choices: tuple[Choice, ...]
    max_attempts: int
    pay_twice_up_to_nanos: int
    attempt_seconds: float | None = None  # most seconds one attempt may take; None: only the deadline
    start_seconds: float | None = None  # most it may wait at its provider until it runs; None: any
    run_seconds: float | None = None  # most it may run; None: any
    wait_seconds: float | None = None
    holds: tuple[Hold, ...] = ()  # of the budgets it falls under

    @property
    def kept(self) -> tuple[Choice, ...]:
        return tuple(choice for choice in self.choices if choice.kept)
