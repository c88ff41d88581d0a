"""Offers, what we measured of them, and the plan that says why. Values only; the verbs live in `policies`."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from gateway.contract.money import Price


class InputMapping(msgspec.Struct, kw_only=True, frozen=True):
    """How an offer's input differs from the model's. Applied in this order: values, rename, set, drop."""

    values: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # key → {our value as text: their value}
    rename: dict[str, str] = msgspec.field(default_factory=dict)  # our key → theirs
    set: dict[str, Any] = msgspec.field(default_factory=dict)  # their key → constant
    drop: tuple[str, ...] = ()  # their keys

    def apply(self, input: dict[str, Any]) -> dict[str, Any]:
        """A new dict; `input` is untouched."""
        mapped: dict[str, Any] = {}
        for key, value in input.items():
            table = self.values.get(key)
            if table is not None and not isinstance(value, (dict, list)):
                text = str(value).lower() if isinstance(value, bool) else str(value)
                value = table.get(text, value)
            mapped[self.rename.get(key, key)] = value
        mapped.update(self.set)
        for key in self.drop:
            mapped.pop(key, None)
        return mapped


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
    capabilities: frozenset[str] = frozenset()  # e.g. "stream", "cancel", "webhook"
    is_fallback: bool = False
    input: InputMapping = InputMapping()
    options: dict[str, Any] = msgspec.field(default_factory=dict)  # passed to the adapter, e.g. {"route": "images"}
    concurrency: int | None = None  # most attempts in flight here


class BreakerState(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Signals(msgspec.Struct, kw_only=True, frozen=True):
    """
    What we measured of an offer lately. Seconds; None where there is no data: no data is not zero.

    `success` is the decayed share of attempts that did what they should, blames CALLER and LOCAL left out.
    """

    samples: int = 0  # ended attempts in the window
    queue_p50: float | None = None
    run_p50: float | None = None
    run_p95: float | None = None
    total_p50: float | None = None
    total_p95: float | None = None
    success: float | None = None
    in_flight: int = 0
    breaker: BreakerState = BreakerState.CLOSED
    breaker_until_seconds: float | None = None  # until it probes again
    limited_for_seconds: float = 0.0  # rate limited: nothing should be sent for so long


NO_SIGNALS = Signals()


class Candidate(msgspec.Struct, kw_only=True, frozen=True):
    """An offer considered for one prediction."""

    offer: Offer
    signals: Signals
    expected_nanos: int | None  # None: unknown
    expected_seconds: float | None  # None: no data
    provider_ready: bool = True  # e.g. the local backend's process is up
    provider_full: bool = False  # the provider, over all its offers, has as many in flight as it may have


class Reason(msgspec.Struct, kw_only=True, frozen=True):
    """Why a candidate stands where it does. `code` is fixed vocabulary (see policies.keep), `text` a sentence."""

    code: str
    text: str


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
    wait_seconds: float | None = None

    @property
    def kept(self) -> tuple[Choice, ...]:
        return tuple(choice for choice in self.choices if choice.kept)
