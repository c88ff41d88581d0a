"""Sections, catalogs and predictions for the tests of routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gateway.config.model import ModelSection, OfferSection
from gateway.contract.model import Model, Version
from gateway.contract.money import Price
from gateway.contract.prediction import Prediction, Request
from gateway.contract.provider import Callbacks, Cancel, Capabilities
from gateway.contract.route import Offer
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board
from gateway.testing import ManualClock
from policies.document import Policy
from policies.reading import presets
from tests.unit.routing.fakes import BEGINNING, Heard

CAPABILITIES = {
    "a": Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME, callbacks=Callbacks.SIGNED),
    "b": Capabilities(modes=frozenset({"sync", "stream"})),
    "c": Capabilities(modes=frozenset({"sync"})),
    "local": Capabilities(modes=frozenset({"sync"}), cancel=Cancel.ANY_TIME),
}
PACKAGE_VERSION = "f" * 64


def section(*offers: OfferSection | str, name: str = "acme/up", **more: Any) -> ModelSection:
    made = tuple(OfferSection(provider=o, name="up") if isinstance(o, str) else o for o in offers)
    return ModelSection(name=name, offers=made, **more)


def local_model(slug: str = "acme/up", *versions: str) -> Model:
    owner, name = slug.split("/")
    ids = versions or (PACKAGE_VERSION,)
    return Model(
        owner=owner,
        name=name,
        description="from a package",
        default_version=ids[0],
        versions=tuple(
            Version(id=id, created_at=BEGINNING, schema={"components": {"schemas": {"Input": {}, "Output": {}}}})
            for id in ids
        ),
        offers=tuple(
            Offer(
                id=f"{slug}@local" + (f"#{number}" if number > 1 else ""),
                model=slug,
                provider="local",
                name=slug,
                version=id,
                price=Price(per_prediction=0),
                is_fallback=True,
            )
            for number, id in enumerate(ids, 1)
        ),
        created_at=BEGINNING - timedelta(days=1),
    )


def catalog(*sections: Any, local: Sequence[Model] = (), **more: Any) -> Catalog:
    pairs = [entry if isinstance(entry, tuple) else (entry, None) for entry in sections]
    return Catalog.build(
        pairs, capabilities=CAPABILITIES, now=BEGINNING, local_models=local, place="turnout.toml", **more
    )


class World:
    """A planner with everything it looks at, and a clock that is turned by hand."""

    def __init__(self, made: Catalog, *, draw: Callable[[], float], default: str = "cheapest", **more: Any) -> None:
        self.clock = ManualClock(BEGINNING)
        self.heard = Heard()
        self.board = Board(self.clock)
        self.breakers = Breakers(clock=self.clock, draw=lambda: 0.5, observer=self.heard)
        self.catalog = made
        self.policies: tuple[Policy, ...] = presets()
        self.planner = Planner(
            catalog=lambda: self.catalog,
            board=self.board,
            breakers=self.breakers,
            policies=lambda: self.policies,
            default=default,
            draw=draw,
            **more,
        )

    def prediction(
        self, *, version: str | None = None, seconds: float = 600, owner: str = "app", **request: Any
    ) -> Prediction:
        model = self.catalog.get(request.setdefault("model", "acme/up"))
        default = model.default_version if model is not None else "0" * 64
        now = self.clock.now()
        return Prediction(
            id="p" * 26,
            owner=owner,
            request=Request(
                version=version or default,
                is_pinned=version is not None,
                input=request.pop("input", {}),
                **request,
            ),
            created_at=now,
            deadline_at=now + timedelta(seconds=seconds),
            stream_token="t",
        )

    def providers(self, prediction: Prediction | None = None, *, excluded: frozenset[str] = frozenset()) -> list[str]:
        made = self.planner.plan(prediction or self.prediction(), excluded=excluded, now=self.clock.now())
        return [choice.provider for choice in made.kept]

    def serve(self, offer: str, total_seconds: float = 1.0, **more: Any) -> None:
        """One attempt, from its beginning to its end, in no time."""
        flight = self.board.attempt_begun(offer)
        self.board.attempt_ended(
            flight, run_seconds=total_seconds, total_seconds=total_seconds, blame=more.pop("blame", None), **more
        )
