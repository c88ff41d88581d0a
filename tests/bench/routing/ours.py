"""Turnout as a strategy among others: its planner, board and breakers, as rehearsals drive them."""

from __future__ import annotations

from decimal import Decimal

from gateway.config.model import ModelSection, OfferSection
from gateway.contract.prediction import Request
from gateway.contract.provider import Cancel, Capabilities
from gateway.rehearsal.router import PolicyRouter, Wanted
from gateway.routing.catalog import Catalog
from gateway.testing.virtual import START
from policies.document import Policy
from tests.bench.routing.truth import PREFIX, Weather

MODEL = PREFIX.rstrip("@")


def turnout(weather: Weather, policy: Policy, *, seed: int) -> PolicyRouter:
    catalog = catalog_of(weather)
    model = catalog.get(MODEL)
    assert model is not None
    request = Request(model=MODEL, version=model.default_version, is_pinned=False, input={})

    def wanted(number: int) -> Wanted:
        return Wanted(f"{number:026d}", request, owner="bench", deadline_seconds=weather.deadline_seconds)

    return PolicyRouter(catalog, [policy], default=policy.name, start=START, seed=seed, wanted=wanted)


def catalog_of(weather: Weather) -> Catalog:
    providers = {offer: offer.removeprefix(PREFIX) for offer in weather.listed}
    offers = tuple(
        OfferSection(provider=providers[offer], name="up", price={"per_prediction": f"{Decimal(str(dollars)):f}"})
        for offer, dollars in weather.listed.items()
    )
    able = dict.fromkeys(providers.values(), Capabilities(modes=frozenset({"queue"}), cancel=Cancel.ANY_TIME))
    return Catalog.build([(ModelSection(name=MODEL, offers=offers), None)], capabilities=able, now=START, place="bench")
