"""`turnout models`: which models can be served with the credentials there are, by whom and for how much, or why not."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from rich.table import Table

from gateway.commands.check import new_table, price_text, printer
from gateway.commands.supply import Environment, complete
from gateway.config import load as reading
from gateway.config.catalogue import CatalogueModel, CatalogueOffer
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.config.model import ModelSection, OfferSection, PriceTier
from gateway.routing.catalog import read_price
from local_backend.package import BUNDLED, describe


class KnownOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A way to have a model served. `missing` is what to do for it to be one here; empty if it is."""

    adapter: str
    provider: str = ""  # as configured; empty if none is
    name: str
    price: dict[str, str]
    price_tiers: tuple[PriceTier, ...] = ()
    source: str = ""
    date: str = ""
    confidence: str = ""
    note: str = ""
    fallback: bool = False
    missing: str = ""


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is configured, or in the catalogue."""

    name: str
    task: str = ""
    description: str = ""
    catalogue: bool = False
    offers: tuple[KnownOffer, ...] = ()

    @property
    def is_servable(self) -> bool:
        return any(not offer.missing and not (self.catalogue and offer.fallback) for offer in self.offers)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Each of them alone would be enough."""
        return tuple(dict.fromkeys(offer.missing for offer in self.offers if offer.missing))

    def matches(self, text: str) -> bool:
        said = (self.name, self.task, self.description, *(f"{o.adapter} {o.provider} {o.name}" for o in self.offers))
        return text.lower() in " ".join(said).lower()


def run(options: argparse.Namespace) -> int:
    loaded = complete(reading.load(options.config, environ=os.environ), environ=os.environ)
    text = options.text or ""
    models = [model for model in known_models(loaded, Environment(loaded, os.environ)) if model.matches(text)]
    if options.json:
        sys.stdout.write(json.dumps({"models": as_json(models)}, indent=2, ensure_ascii=False) + "\n")
        return 0
    served = [model for model in models if model.is_servable]
    console = printer()
    if served:
        console.print(served_table(served, every_offer=options.all))
    rest = [model for model in models if not model.is_servable]
    if rest:
        console.print(missing_table(rest))
    asked = f' with "{text}"' if text else ""
    line = f"{len(served)} of {len(models)} models{asked} can be served" if models else f"no model is known{asked}"
    console.print(line, markup=False)
    if served and not options.all and any(model.remedies for model in served):
        console.print("--all lists the offers that lack credentials too, and where prices come from", style="dim")
    return 0


def known_models(loaded: Loaded, found: Environment) -> tuple[KnownModel, ...]:
    """By name: our own backend's, those of the configuration, and those of the catalogue that it does not replace."""
    models = {model.name.lower(): model for model in _packaged(loaded)}
    models |= {key: _known(model, found) for key, model in loaded.catalogue.models.items()}
    for section in loaded.config.models:
        key = section.name.lower()
        if section.name in loaded.supplied_models:
            continue
        beside = models[key].offers if section.extend else ()
        models[key] = _configured(section, loaded, beside)
    return tuple(models[key] for key in sorted(models))


def _packaged(loaded: Loaded) -> Iterator[KnownModel]:
    """What the local backend serves without a word of configuration. Raises ConfigurationError for a bad package."""
    if not loaded.config.local.enabled:
        return
    for model in describe((BUNDLED, *loaded.package_paths)):
        offer = KnownOffer(
            adapter="replicate", provider=LOCAL, name=model.slug, price=loaded.config.local.price, fallback=True
        )
        yield KnownModel(name=model.slug, description=model.description, offers=(offer,))


def _known(model: CatalogueModel, found: Environment) -> KnownModel:
    offers = tuple(known for offer in model.offers for known in _known_offers(offer, found))
    return KnownModel(name=model.name, task=model.task, description=model.description, catalogue=True, offers=offers)


def _known_offers(offer: CatalogueOffer, found: Environment) -> Iterator[KnownOffer]:
    supply = found.supply(offer.adapter)
    for provider in supply.providers or ("",):
        yield KnownOffer(
            adapter=offer.adapter,
            provider=provider,
            name=offer.name,
            price=offer.price,
            price_tiers=offer.price_tiers,
            source=offer.source,
            date=offer.date,
            confidence=offer.confidence,
            note=offer.note,
            fallback=offer.fallback,
            missing=supply.missing,
        )


def _configured(section: ModelSection, loaded: Loaded, beside: Iterable[KnownOffer]) -> KnownModel:
    written = section.offers
    if section.extend:  # what the catalogue adds was laid behind what is written, and is told with its sources
        count = sum(not offer.missing for offer in beside)
        written = written[: len(written) - count]
    offers = tuple(_known_offer(offer, loaded) for offer in written)
    known = loaded.catalogue.get(section.name)
    return KnownModel(
        name=section.name,
        task=known.task if known is not None else "",
        description=section.description,
        catalogue=False,
        offers=(*offers, *beside),
    )


def _known_offer(offer: OfferSection, loaded: Loaded) -> KnownOffer:
    provider = loaded.config.providers.get(offer.provider)
    return KnownOffer(
        adapter=(provider.adapter if provider is not None else "") or offer.provider,
        provider=offer.provider,
        name=offer.name,
        price=offer.price,
        price_tiers=offer.price_tiers,
        source=offer.source,
        date=offer.date,
        fallback=offer.fallback,
    )


def as_json(models: Iterable[KnownModel]) -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "task": model.task,
            "description": model.description,
            "catalogue": model.catalogue,
            "servable": model.is_servable,
            "offers": [
                {key: value for key, value in msgspec.to_builtins(offer).items() if value not in ("", False, ())}
                for offer in model.offers
            ],
        }
        for model in models
    ]


def served_table(models: Iterable[KnownModel], *, every_offer: bool) -> Table:
    columns = ("Model", "Offer", "Price", "Source") if every_offer else ("Model", "Offer", "Price")
    shown = new_table(*columns)
    shown.columns[0].no_wrap = True  # names are there to be copied
    for model in models:
        offers = [offer for offer in model.offers if every_offer or not offer.missing]
        for number, offer in enumerate(offers):
            row = [model.name if number == 0 else "", _offer(offer), _price(offer)]
            if every_offer:
                row.append(_source(offer))
            shown.add_row(*row, style="dim" if offer.missing else None, end_section=number == len(offers) - 1)
    return shown


def missing_table(models: Iterable[KnownModel]) -> Table:
    shown = new_table("Not served", "Task", "What would do")
    shown.columns[0].no_wrap = True
    for model in models:
        shown.add_row(model.name, model.task, remedy_text(model.remedies))
    return shown


def remedy_text(remedies: Iterable[str]) -> str:
    """`set FAL_KEY or REPLICATE_API_TOKEN`: the variables together, whatever else there is behind them."""
    variables: list[str] = []
    others: list[str] = []
    for remedy in remedies:
        if remedy.startswith("set ") and "=" not in remedy:
            variables.append(remedy.removeprefix("set "))
        else:
            others.append(remedy)
    first = ["set " + " or ".join(variables)] if variables else []
    return "; or ".join([*first, *others]) or "no offer is known"


def _offer(offer: KnownOffer) -> str:
    who = offer.provider or offer.adapter
    told = f"{who}: {offer.name}" + (", fallback" if offer.fallback else "")
    return f"{told} ({offer.missing})" if offer.missing else told


def _price(offer: KnownOffer) -> str:
    return price_text(read_price(offer.price, offer.price_tiers, place=offer.name))


def _source(offer: KnownOffer) -> str:
    parts = [", ".join(part for part in (offer.source, offer.date) if part), offer.note]
    return "; ".join(part for part in parts if part)
