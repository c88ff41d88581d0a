"""
What a configuration gets without a word in it: providers whose credentials the environment holds, and the models of
the catalogue at every provider that fits. Reads the environment; sends nothing, and opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.config import load as reading
from gateway.config.catalogue import CatalogueAdapter, CatalogueModel, CatalogueOffer
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.config.model import ModelSection, OfferSection, Provider
from gateway.config.secret import SecretMissing, resolve
from gateway.config.shape import did_you_mean
from gateway.contract.errors import ConfigurationError, refuse
from gateway.contract.key import is_ours
from gateway.contract.provider import Adapter, Auth
from gateway.plugins import installed_adapters, load_adapter


class Supply(msgspec.Struct, frozen=True):
    """Who serves the offers of one adapter, or what is missing for somebody to."""

    providers: tuple[str, ...] = ()
    missing: str = ""  # "set FAL_KEY"; empty if somebody does
    section: Provider | None = None  # what nobody had to write: the provider came with the environment


def load(path: Path | None = None, *, environ: Mapping[str, str]) -> Loaded:
    """The configuration as `gateway.config.load` reads it, completed. Raises ConfigurationError."""
    return complete(reading.load(path, environ=environ), environ=environ)


def complete(loaded: Loaded, *, environ: Mapping[str, str]) -> Loaded:
    """
    `loaded`, with the providers and models that it does not write out, as if it did.

    A provider found in the environment is called like its adapter; one that no offer uses is left out: its token was
    exported for something else. Raises ConfigurationError for a model that extends none of the catalogue.
    """
    if not loaded.catalogue.models and not any(section.extend for section in loaded.config.models):
        return loaded
    found = Environment(loaded, environ)
    models, schemas, supplied = _models(loaded, found)
    used = {offer.provider for model in models for offer in model.offers}
    providers = {
        word: section for word in found.words if word in used and (section := found.supply(word).section) is not None
    }
    secrets = {
        f"providers.{word}.credentials.{part}": resolve(reference, environ=environ, folder=loaded.folder)
        for word, section in providers.items()
        for part, reference in section.credentials.items()
    }
    return replace(
        loaded,
        config=replace(loaded.config, providers={**loaded.config.providers, **providers}, models=tuple(models)),
        secrets={**loaded.secrets, **secrets},
        schemas={**loaded.schemas, **schemas},
        supplied_providers=frozenset(providers),
        supplied_models=frozenset(supplied),
    )


class Environment:
    """What configuration and environment together have for each adapter that the catalogue names."""

    def __init__(self, loaded: Loaded, environ: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._environ = environ
        self._supplies: dict[str, Supply] = {}
        self._installed = frozenset(adapter.name for adapter in installed_adapters())
        self.words = tuple(dict.fromkeys(o.adapter for model in loaded.catalogue.models.values() for o in model.offers))

    def supply(self, word: str) -> Supply:
        """Who speaks `word` here, at the vendor's own address."""
        if word not in self._supplies:
            self._supplies[word] = self._supply(word)
        return self._supplies[word]

    def offers(self, model: CatalogueModel) -> tuple[OfferSection, ...]:
        """The model's offers at the providers there are."""
        return tuple(
            _section(offer, provider) for offer in model.offers for provider in self.supply(offer.adapter).providers
        )

    def _supply(self, word: str) -> Supply:
        config = self._loaded.config
        if word == LOCAL:
            return Supply((LOCAL,)) if config.local.enabled else Supply(missing="set enabled = true in [local]")
        if word not in self._installed:
            return Supply(missing=f"install an adapter called {word}")
        try:
            adapter = load_adapter(word)
        except ConfigurationError as error:
            return Supply(missing=str(error))
        configured = {name: section for name, section in config.providers.items() if (section.adapter or name) == word}
        if configured:
            near = {name: section for name, section in configured.items() if _is_at_home(section, adapter)}
            fitting = tuple(name for name, section in near.items() if _may_come_in(section, adapter))
            names = ", ".join(f"[providers.{name}]" for name in near or configured)
            away = f"write credentials in {names}" if near else f"set catalogue = true in {names}: it is somewhere else"
            return Supply(fitting, missing="" if fitting else away)
        return self._from_environment(word, adapter)

    def _from_environment(self, word: str, adapter: Adapter) -> Supply:
        if not self._loaded.config.catalogue.providers_from_environment:
            return Supply(missing=f"configure [providers.{word}]")
        if word in self._loaded.config.providers:
            return Supply(missing=f'configure a provider with adapter = "{word}": [providers.{word}] is another one')
        ways = [way for way in adapter.auth if _variables(way)]
        way = next((way for way in ways if all(map(self._holds, _variables(way)))), None)
        if way is None and ways:
            return Supply(missing=self._remedy(word, ways))
        if way is None or not adapter.base_url:
            return Supply(missing=f"configure [providers.{word}]" + ("" if adapter.base_url else " with base_url"))
        also = self._loaded.catalogue.adapters.get(word, CatalogueAdapter())
        lacking = [variable for variable in also.needs.values() if not self._environ.get(variable)]
        if lacking:
            return Supply(missing=f"set {' and '.join(lacking)}")
        found = {option: self._environ.get(variable) for option, variable in {**also.needs, **also.takes}.items()}
        held = {part: variable for part, variable in way.parts.items() if self._holds(variable)}
        section = Provider(
            adapter=word,
            credentials={part: f"env:{variable}" for part, variable in held.items()},
            options={option: value for option, value in found.items() if value},
        )
        return Supply((word,), section=section)

    def _remedy(self, word: str, ways: Iterable[Auth]) -> str:
        """`set FAL_KEY`, `set A and B or C`."""
        also = self._loaded.catalogue.adapters.get(word, CatalogueAdapter()).needs.values()
        wanted = dict.fromkeys(" and ".join((*_variables(way), *also)) for way in ways)
        ours = [name for way in ways for name in _variables(way) if is_ours(self._environ.get(name, ""))]
        return "set " + " or ".join(wanted) + (f" ({ours[0]} holds a key of Turnout itself)" if ours else "")

    def _holds(self, variable: str) -> bool:
        if not variable or is_ours(self._environ.get(variable, "")):
            return False  # people export a key of ours as REPLICATE_API_TOKEN to call us
        try:
            resolve(f"env:{variable}", environ=self._environ, folder=self._loaded.folder)
        except SecretMissing:
            return False
        return True


def _models(loaded: Loaded, found: Environment) -> tuple[list[ModelSection], dict[str, dict[str, Any]], set[str]]:
    """What is served: the configured models first, then those of the catalogue; their schemas; the names of these."""
    models: list[ModelSection] = []
    schemas: dict[str, dict[str, Any]] = {}
    for index, section in enumerate(loaded.config.models):
        if section.extend:
            known = loaded.catalogue.get(section.name)
            if known is None:
                names = [model.name for model in loaded.catalogue.models.values()]
                remedy = did_you_mean(section.name, names, otherwise="remove `extend`, or correct the name")
                raise refuse(
                    "the catalogue has no such model", place=loaded.where("models", index, "extend"), remedy=remedy
                )
            section = replace(
                section,
                description=section.description or known.description,
                offers=(*section.offers, *found.offers(known)),
            )
            if section.name not in loaded.schemas:
                schemas[section.name] = known.schema
            if not section.offers:
                continue  # known, as the rest of the catalogue is
        models.append(section)
    written = {section.name.lower() for section in loaded.config.models}
    supplied: set[str] = set()
    for key, known in loaded.catalogue.models.items():
        offers = found.offers(known) if key not in written else ()
        if any(not offer.fallback for offer in offers):
            models.append(ModelSection(name=known.name, description=known.description, offers=offers))
            schemas[known.name] = known.schema
            supplied.add(known.name)
    return models, schemas, supplied


def _section(offer: CatalogueOffer, provider: str) -> OfferSection:
    return OfferSection(
        provider=provider,
        name=offer.name,
        version=offer.version,
        price=offer.price,
        price_tiers=offer.price_tiers,
        source=offer.source,
        date=offer.date,
        region=offer.region,
        input=offer.input,
        output=offer.output,
        options=offer.options,
        capabilities=offer.capabilities,
        fallback=offer.fallback,
        quality=offer.quality,
    )


def _variables(way: Auth) -> tuple[str, ...]:
    """The environment variables that its parts are customarily in; none if one of them has no such place."""
    variables = tuple(variable for part, variable in way.parts.items() if part not in way.optional)
    return variables if all(variables) else ()


def _is_at_home(section: Provider, adapter: Adapter) -> bool:
    return section.catalogue or not section.base_url or section.base_url.rstrip("/") == adapter.base_url.rstrip("/")


def _may_come_in(section: Provider, adapter: Adapter) -> bool:
    """False for a vendor that wants credentials, as far as its adapter knows, and a section that has none."""
    is_vendor = not section.base_url or section.base_url.rstrip("/") == adapter.base_url.rstrip("/")
    wants = any(_variables(way) for way in adapter.auth)
    return bool(section.token or section.credentials) or not (is_vendor and wants)
