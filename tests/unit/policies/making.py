"""Candidates and draws for the tests of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.contract.money import NANOS, Price
from gateway.contract.route import Candidate, Offer, Plan, Signals
from policies.keep import Demand

VERSION = "a" * 64
OTHER_VERSION = "b" * 64


def candidate(
    provider: str, *, dollars: float | None = 0.01, offer: dict[str, Any] | None = None, **more: Any
) -> Candidate:
    """`more` are signals, but for `ready`, `full` and `expected_seconds`."""
    nanos = None if dollars is None else round(dollars * NANOS)
    ready, full = more.pop("ready", True), more.pop("full", False)
    seconds = more.pop("expected_seconds", more.get("total_p50"))
    return Candidate(
        offer=Offer(
            **{
                "id": f"acme/up@{provider}",
                "model": "acme/up",
                "provider": provider,
                "name": "up",
                "version": VERSION,
                "price": Price(per_prediction=nanos),
                **(offer or {}),
            }
        ),
        signals=Signals(**{"samples": 50, **more}),
        expected_nanos=nanos,
        expected_seconds=seconds,
        provider_ready=ready,
        provider_full=full,
    )


def demand(**more: Any) -> Demand:
    return Demand(**{"version": VERSION, "deadline_seconds": 600.0, **more})


def draws(*values: float) -> Callable[[], float]:
    """These numbers, in turn, for ever."""
    state = {"next": 0}

    def draw() -> float:
        value = values[state["next"] % len(values)]
        state["next"] += 1
        return value

    return draw


def never() -> float:
    raise AssertionError("nothing is to be drawn here")


def kept(plan: Plan) -> list[str]:
    return [choice.provider for choice in plan.kept]


def codes(plan: Plan, provider: str) -> list[str]:
    return [str(r.code) for choice in plan.choices if choice.provider == provider for r in choice.reasons]


def share(providers: Iterable[str], of: str) -> float:
    drawn = list(providers)
    return drawn.count(of) / len(drawn)
