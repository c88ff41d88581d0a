"""The vocabulary ops write in: the Structs of a policy file. No evaluation, no I/O."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Unknown keys are errors."""


class Match(Part, kw_only=True, frozen=True):
    """Which predictions the policy is for; empty parts match everything."""

    models: tuple[str, ...] = ()  # globs over owner/name
    keys: tuple[str, ...] = ()  # names of API keys
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Keep(Part, kw_only=True, frozen=True):
    """Which offers may serve. An offer that misses one of these is dropped, with the reason."""

    providers: tuple[str, ...] = ()  # only these
    without: tuple[str, ...] = ()  # never these
    regions: tuple[str, ...] = ()  # only offers declared for one of these
    capabilities: tuple[str, ...] = ()  # all of these
    max_price: str = ""  # dollars expected for this prediction, e.g. "0.05"
    unknown_price: Literal["keep", "drop"] = "keep"  # what max_price does with an offer whose price is unknown
    min_success: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0  # measured; no data passes


class Weights(Part, kw_only=True, frozen=True):
    """Of a weighted blend; only their proportion matters."""

    cost: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    latency: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    health: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Rank(Part, kw_only=True, frozen=True):
    """How the kept offers are ordered."""

    by: Literal["cost", "latency", "health", "blend", "ordered"] = "blend"
    weights: Weights = Weights(cost=1, latency=1, health=1)
    quantile: Literal["p50", "p95"] = "p50"  # of the total time, for latency
    order: tuple[str, ...] = ()  # provider names, for "ordered"
    explore: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.05  # share of predictions that try an offer without data


class Limits(Part, kw_only=True, frozen=True):
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 3_600
    attempt_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0  # most one attempt may take; 0: only the deadline
    start_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0  # most it may wait at the provider until it runs; 0: any
    run_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0  # most it may run, from when the provider began; 0: any
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    # Dollars: up to what expected price we start elsewhere after an unknown outcome. 0: only what is free.
    pay_twice_up_to: str = "0"


class Fallback(Part, kw_only=True, frozen=True):
    provider: str = "local"  # empty: none


class Policy(Part, kw_only=True, frozen=True):
    """One policy. `name` is unique over all files; a file may hold one or, as [[policies]], several."""

    name: str
    description: str = ""
    match: Match = Match()
    keep: Keep = Keep()
    rank: Rank = Rank()
    limits: Limits = Limits()
    fallback: Fallback = Fallback()


class File(Part, kw_only=True, frozen=True):
    """A policy file."""

    policies: tuple[Policy, ...]
