"""What a configuration would serve: adapters and catalog, made as `serve` makes them. Starts and opens nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.config.shape import did_you_mean
from gateway.contract.clock import Clock
from gateway.contract.errors import ConfigurationError
from gateway.contract.model import Model
from gateway.contract.provider import Adapter
from gateway.plugins import load_adapter
from gateway.routing.catalog import Catalog, read_price
from local_backend.package import BUNDLED, describe
from providers._auth import choose

# It has no network and fetches nothing; a lone request is answered where it was asked; a key starts nothing twice.
LOCAL_OPTIONS = {"wait": True, "idempotent": True, "input_forms": ["data"], "max_inline_bytes": 100_000_000}


class Survey(msgspec.Struct, frozen=True):
    adapters: dict[str, Adapter]  # by provider's name, the local backend's too
    catalog: Catalog


def survey(loaded: Loaded, *, clock: Clock) -> Survey:
    """Raises ConfigurationError with a line for each adapter, package and model that cannot be had."""
    wrong: list[str] = []
    adapters = _adapters(loaded, wrong)
    wrong += _strange_options(loaded, adapters)
    local_models: tuple[Model, ...] = ()
    if loaded.config.local.enabled:
        price = read_price(loaded.config.local.price, place=loaded.where("local", "price"))
        try:
            local_models = describe((BUNDLED, *loaded.package_paths), price=price, provider=LOCAL)
        except ConfigurationError as error:
            wrong += str(error).splitlines()
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    catalog = Catalog.build(
        tuple((section, loaded.schemas.get(section.name)) for section in loaded.config.models),
        capabilities={name: adapter.capabilities for name, adapter in adapters.items()},
        providers=loaded.config.providers,
        local_models=local_models,
        now=clock.now(),
        place=loaded.place,
    )
    return Survey(adapters, catalog)


def _adapters(loaded: Loaded, wrong: list[str]) -> dict[str, Adapter]:
    adapters: dict[str, Adapter] = {}
    for name, section in loaded.config.providers.items():
        place = loaded.where("providers", name, *(("adapter",) if section.adapter else ()))
        try:
            adapters[name] = load_adapter(section.adapter or name, section.options, provider=name)
        except ConfigurationError as error:
            wrong += [f"{place}: {line}" for line in str(error).splitlines()]
            continue
        if not section.base_url and not adapters[name].base_url:
            wrong.append(f'{place}: the adapter knows no address; add base_url = "https://…"')
        wrong += _misfits(loaded, name, adapters[name])
    if loaded.config.local.enabled:
        adapters[LOCAL] = load_adapter("replicate", LOCAL_OPTIONS, provider=LOCAL)  # the dialect it speaks
    return adapters


def _strange_options(loaded: Loaded, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """Options of offers that their adapter refuses; some can say so before there is a call."""
    for index, model in enumerate(loaded.config.models):
        for number, offer in enumerate(model.offers):
            check = getattr(adapters.get(offer.provider), "check_offer", None)
            if check is None or not offer.options:
                continue
            try:
                check(offer.options)
            except ConfigurationError as error:
                place = loaded.where("models", index, "offers", number, "options")
                if model.name in loaded.supplied_models:  # it stands in no line of this file
                    place = f"{loaded.place}: catalogue: {model.name} at {offer.provider}"
                yield f"{place}: {error}"


def _misfits(loaded: Loaded, name: str, adapter: Adapter) -> Iterator[str]:
    """What a provider's section says that its adapter has no use for, with file and line."""
    section = loaded.config.providers[name]
    for site in section.sites:
        if site not in adapter.sites:
            remedy = did_you_mean(site, tuple(adapter.sites), otherwise="" if adapter.sites else "leave it out")
            yield f"{loaded.where('providers', name, 'sites', site)}: the adapter has no such site; {remedy}"
    prefix = f"providers.{name}.credentials."
    credentials = {
        place.removeprefix(prefix): secret.reveal()
        for place, secret in loaded.secrets.items()
        if place.startswith(prefix)
    }
    key = "credentials" if section.credentials else "token"
    part = next((part for part in credentials if not any(part in way.parts for way in adapter.auth)), None)
    where = (key, part) if part in section.credentials else (key,)
    try:
        choose(adapter.auth, credentials, provider=name)
    except ConfigurationError as error:
        yield f"{loaded.where('providers', name, *where)}: {str(error).removeprefix(f'provider {name}: ')}"
