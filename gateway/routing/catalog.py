"""Which models there are, and who offers them. Built once from the configuration; reads no file, measures nothing."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.config.model import ModelSection, OfferSection, PriceTier, Provider
from gateway.contract.errors import refuse
from gateway.contract.model import Model, Version
from gateway.contract.money import PRICED_UNITS, Price, Tier, parse_dollars, read_when
from gateway.contract.provider import Callbacks, Cancel, Capabilities
from gateway.contract.route import InputMapping, Offer, OutputMapping
from gateway.contract.wording import nearest
from gateway.routing.schema import openapi_document

_HEX = re.compile(r"[0-9a-f]{64}")
_SLUG = re.compile(r"[^/\s@#]+/[^/\s@#]+")

Section = tuple[ModelSection, dict[str, Any] | None]  # with its schema, read


class Catalog:
    """Models by name and by version, offers by id. Names are compared without regard to case, as Replicate's are."""

    def __init__(self, models: Iterable[Model]) -> None:
        # A stable sort: what was made at the same moment stays as configured.
        self._models = tuple(sorted(models, key=lambda model: model.created_at, reverse=True))
        self._by_slug = {model.slug.lower(): model for model in self._models}
        self._by_version = {version.id: model for model in self._models for version in model.versions}
        self._offers = {offer.id: offer for model in self._models for offer in model.offers}

    @classmethod
    def build(
        cls,
        sections: Sequence[Section],
        *,
        capabilities: Mapping[str, Capabilities],
        now: datetime,
        providers: Mapping[str, Provider] | None = None,
        local_models: Sequence[Model] = (),
        place: str = "configuration",
    ) -> Catalog:
        """
        The catalog of a configuration.

        `sections` are the `[[models]]` with their schemas; `capabilities` what each provider can do, by name;
        `providers` their sections, for the region. `local_models` come with the offers of the local backend: one
        that has the name of a configured model lends it its version (if the section states none) and serves as its
        fallback, any other is a model in its own right. Raises ConfigurationError.
        """
        local = {model.slug.lower(): model for model in local_models}
        models: list[Model] = []
        for index, (section, schema) in enumerate(sections):
            where = f"{place}: models[{index}] ({section.name})"
            if any(model.slug.lower() == section.name.lower() for model in models):
                raise refuse("the model is there already", place=where, remedy="put its offers under one [[models]]")
            reading = _Reading(where, capabilities, providers or {}, now)
            models.append(reading.model(section, schema, local.pop(section.name.lower(), None)))
        models += local.values()
        _check_versions(models, place)
        return cls(models)

    def models(self) -> tuple[Model, ...]:
        """Newest first."""
        return self._models

    def get(self, slug: str) -> Model | None:
        return self._by_slug.get(slug.lower())

    def by_version(self, version: str) -> Model | None:
        """The model that has this version; a version belongs to one model only."""
        return self._by_version.get(version)

    def offer(self, id: str) -> Offer | None:
        return self._offers.get(id)

    def offers(self, slug: str) -> tuple[Offer, ...]:
        """All offers of a model, of every version, as configured."""
        model = self.get(slug)
        return model.offers if model is not None else ()


def read_price(price: Mapping[str, str], tiers: Sequence[PriceTier] = (), *, place: str) -> Price:
    """`{"per_second": "0.000725"}` → Price; `tiers` hold before it. Raises ConfigurationError."""
    rates: dict[str, Any] = {}
    for unit, amount in price.items():
        if unit not in PRICED_UNITS:
            near = nearest(unit, PRICED_UNITS)
            remedy = f'did you mean "{near}"?' if near else f"write one of {', '.join(PRICED_UNITS)}"
            raise refuse(f'"{unit}" is no unit of a price', place=place, remedy=remedy)
        try:
            rates[unit] = parse_dollars(amount)
        except ValueError as error:
            raise refuse(str(error), place=place, remedy=f'write dollars per unit, as {unit} = "0.000725"') from None
    return Price(**rates, tiers=tuple(_read_tier(tier, f"{place}, tier {i}") for i, tier in enumerate(tiers, 1)))


def _read_tier(tier: PriceTier, place: str) -> Tier:
    try:
        when = read_when(tier.when)
    except ValueError as error:
        problem, _, remedy = str(error).partition("; ")
        raise refuse(problem, place=place, remedy=remedy or "write a value, a list of values, or bounds") from None
    return Tier(when=when, price=read_price(tier.price, place=place))


def derived_version(name: str, schema: dict[str, Any] | None) -> str:
    """64 hex, the same for the same name and schema, in whatever order its keys are written."""
    canonical = msgspec.json.encode({"name": name, "schema": schema}, order="deterministic")
    return hashlib.sha256(canonical).hexdigest()


class _Reading:
    """One `[[models]]` section on its way to a Model."""

    def __init__(
        self, place: str, capabilities: Mapping[str, Capabilities], providers: Mapping[str, Provider], now: datetime
    ) -> None:
        self._place = place
        self._capabilities = capabilities
        self._providers = providers
        self._now = now

    def model(self, section: ModelSection, schema: dict[str, Any] | None, local: Model | None) -> Model:
        if _SLUG.fullmatch(section.name) is None:
            raise refuse("this is no name of a model", place=self._place, remedy="write owner/name")
        default = self._default_version(section, schema, local)
        offers = self._offers(section, default)
        if local is not None and not any(
            offer.provider == theirs.provider for offer in offers for theirs in local.offers
        ):
            offers += tuple(replace(offer, model=section.name, is_fallback=True) for offer in local.offers)
        if not offers:
            raise refuse("the model has no offers", place=self._place, remedy="add [[models.offers]]")
        owner, name = section.name.split("/")
        return Model(
            owner=owner,
            name=name,
            description=section.description or (local.description if local is not None else ""),
            default_version=default,
            versions=self._versions(default, offers, schema, local),
            offers=offers,
            created_at=self._now,
            policy=section.policy or None,
        )

    def _default_version(self, section: ModelSection, schema: dict[str, Any] | None, local: Model | None) -> str:
        stated = {offer.version for offer in section.offers if offer.version}
        for version in (section.version, *sorted(stated)):
            if version and _HEX.fullmatch(version) is None:
                raise refuse(
                    f'"{version}" is no version', place=self._place, remedy="write 64 hex digits, or leave it out"
                )
        if section.version:
            return section.version
        if len(stated) > 1:
            remedy = "set the model's own version to the one that callers get who name none"
            raise refuse("its offers state different versions", place=self._place, remedy=remedy)
        if stated:
            return stated.pop()
        return local.default_version if local is not None else derived_version(section.name, schema)

    def _versions(
        self, default: str, offers: Sequence[Offer], schema: dict[str, Any] | None, local: Model | None
    ) -> tuple[Version, ...]:
        """The default first. All share the section's schema, but for those that the local backend describes itself."""
        known = {version.id: version for version in local.versions} if local is not None else {}
        if schema is not None:
            known.pop(default, None)
        document = functools.cache(lambda: openapi_document(schema, place=self._place))
        ids = dict.fromkeys((default, *(offer.version for offer in offers)))
        return tuple(known.get(id) or Version(id=id, created_at=self._now, schema=document()) for id in ids)

    def _offers(self, section: ModelSection, default: str) -> tuple[Offer, ...]:
        offers: list[Offer] = []
        count: dict[str, int] = {}
        for offer in section.offers:
            number = count[offer.provider] = count.get(offer.provider, 0) + 1
            id = f"{section.name}@{offer.provider}" + (f"#{number}" if number > 1 else "")
            offers.append(self._offer(section.name, id, offer, default))
        return tuple(offers)

    def _offer(self, model: str, id: str, section: OfferSection, default: str) -> Offer:
        place = f"{self._place}, offer of {section.provider}"
        capabilities = self._capabilities.get(section.provider)
        if capabilities is None:
            near = nearest(section.provider, self._capabilities)
            remedy = f'did you mean "{near}"?' if near else f"add [providers.{section.provider}]"
            raise refuse(f'unknown provider "{section.provider}"', place=place, remedy=remedy)
        provider = self._providers.get(section.provider)
        return Offer(
            id=id,
            model=model,
            provider=section.provider,
            name=section.name,
            version=section.version or default,
            # Only what the offer itself states: the model's version is a name of ours, and may mean nothing there.
            remote_version=section.version or None,
            price=read_price(section.price, section.price_tiers, place=place),
            region=section.region or (provider.region if provider is not None else "") or None,
            capabilities=frozenset(section.capabilities) | _words(capabilities),
            is_fallback=section.fallback,
            input=InputMapping(
                values=section.input.values,
                spread=section.input.spread,
                rename=section.input.rename,
                set=section.input.set,
                drop=section.input.drop,
            ),
            output=OutputMapping(path=section.output.path, form=section.output.form),
            options=section.options,
            concurrency=section.concurrency or None,
            quality=section.quality,
            equivalent=section.equivalent or None,
        )


def _words(capabilities: Capabilities) -> frozenset[str]:
    """What a provider can do, in the words of policies."""
    words = {"stream"} if "stream" in capabilities.modes else set()
    if capabilities.cancel is not Cancel.NONE:
        words.add("cancel")
    if capabilities.cancel is Cancel.ANY_TIME:
        words.add("stop")  # a job that runs, and not only one that waits
    if capabilities.callbacks is not Callbacks.NONE:
        words.add("webhook")
    return frozenset(words)


def _check_versions(models: Sequence[Model], place: str) -> None:
    homes: dict[str, str] = {}
    for model in models:
        for version in model.versions:
            home = homes.setdefault(version.id, model.slug)
            if home != model.slug:
                problem = f"{home} and {model.slug} state the same version {version.id[:12]}…"
                raise refuse(
                    problem, place=place, remedy="callers run it by the version alone: give one of them another"
                )
