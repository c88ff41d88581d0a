"""`turnout check`: says what a configuration would serve, or everything that is wrong with it. Starts nothing."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.table import Table

from gateway.commands.asked import offers_had, order_lines, remarks
from gateway.commands.folder import check_folders
from gateway.commands.supply import load
from gateway.commands.survey import Survey, survey
from gateway.config.load import Loaded
from gateway.config.model import Provider
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.contract.model import Model
from gateway.contract.money import PRICED_UNITS, Price, format_dollars
from gateway.contract.route import Offer
from gateway.telemetry.export import faults_of
from policies.document import Policy


def run(options: argparse.Namespace) -> int:
    loaded = load(options.config, environ=os.environ)
    found = _examined(loaded)
    console = printer()
    models = found.catalog.models()
    console.print(f"{loaded.place}: {_several(len(models), 'model')}, {_several(len(found.adapters), 'provider')}\n")
    console.print(models_table(tuple(model for model in models if model.slug not in loaded.supplied_models)))
    if loaded.supplied_models:
        supplied = _several(len(loaded.supplied_models), "model")
        console.print(f"and {supplied} of the catalogue: `turnout models` lists them\n", markup=False)
    console.print(providers_table(loaded, found))
    console.print(policies_table(loaded))
    for line in order_lines(loaded.policies.current().policies, default=loaded.config.policies.default):
        console.print(line, markup=False, soft_wrap=True)
    for line in notes(loaded, found):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    return 0


def _examined(loaded: Loaded) -> Survey:
    """Raises ConfigurationError with a line for everything that is wrong."""
    wrong = check_folders(loaded) + faults_of(os.environ, endpoint=loaded.config.telemetry.otlp_endpoint)
    try:
        found = survey(loaded, clock=SystemClock())
    except ConfigurationError as error:
        raise ConfigurationError("\n".join([str(error), *wrong])) from None
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return found


def printer() -> Console:
    """As wide as the terminal; in a file or a pipe wide enough that little is folded."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def models_table(models: tuple[Model, ...]) -> Table:
    table = new_table("Model", "Offer", "Price", "Region", "Policy")
    for model in sorted(models, key=lambda model: model.slug):
        for number, offer in enumerate(model.offers):
            first = number == 0
            table.add_row(
                model.slug if first else "",
                _offer(model, offer),
                price_text(offer.price),
                offer.region or "",
                (model.policy or "") if first else "",
                end_section=number == len(model.offers) - 1,
            )
    return table


def providers_table(loaded: Loaded, found: Survey) -> Table:
    table = new_table("Provider", "Adapter", "Address", "Token", "Callbacks")
    for name, adapter in found.adapters.items():
        section = loaded.config.providers.get(name)
        if section is None:
            table.add_row(name, "replicate", "a child process of ours", "not needed", "")
            continue
        table.add_row(
            name,
            section.adapter or name,
            urlsplit(section.base_url or adapter.base_url).geturl(),
            _credentials(section, is_supplied=name in loaded.supplied_providers),
            _callbacks(loaded, found, name),
        )
    return table


def policies_table(loaded: Loaded) -> Table:
    current = loaded.policies.current()
    table = new_table("Policy", "Ranks by", "Keeps", "Limits", caption=f"version {current.version}")
    for policy in current.policies:
        name = f"{policy.name} (default)" if policy.name == loaded.config.policies.default else policy.name
        table.add_row(name, _ranking(policy), _keeping(policy), _limits(policy))
    return table


def notes(loaded: Loaded, found: Survey) -> list[str]:
    """What is allowed and seldom meant."""
    lines = []
    used = {offer.provider for model in found.catalog.models() for offer in model.offers}
    lines += [f"provider {name} is used by no offer" for name in loaded.config.providers if name not in used]
    written = [model for model in found.catalog.models() if model.slug not in loaded.supplied_models]
    unknown = [offer.id for model in written for offer in model.offers if not offer.price.is_known]
    if unknown:
        lines.append(f"no price for {', '.join(unknown)}: counted as unknown, ranked behind every known one")
    for model in written:
        for name in {offer.equivalent for offer in model.offers if offer.equivalent}:
            if len({offer.version for offer in model.offers if offer.equivalent == name}) == 1:
                lines.append(f'equivalent = "{name}" joins no two versions of {model.slug}')
    current = loaded.policies.current().policies
    lines += [remark.text for remark in remarks(current, offers_had(loaded, found))]
    return [f"note: {line}" for line in lines]


def price_text(price: Price) -> str:
    """`$0.000725 per second + $0.01 per prediction`; `$0.30 per video second where audio true, else unknown`."""
    parts = [
        f"{format_dollars(rate)} {unit.replace('_', ' ')}"
        for unit in PRICED_UNITS
        if (rate := getattr(price, unit)) is not None
    ]
    tiers = [f"{price_text(tier.price)} where {tier.text}" for tier in price.tiers]
    plain = " + ".join(parts) or "unknown"
    return ", ".join([*tiers, f"else {plain}"]) if tiers else plain


def _offer(model: Model, offer: Offer) -> str:
    words = [f"{offer.provider}: {offer.name}"]
    if offer.version != model.default_version:
        words.append(f"version {offer.version[:12]}")
    if offer.concurrency:
        words.append(f"at most {offer.concurrency} at once")
    if offer.is_fallback:
        words.append("fallback")
    if offer.quality != "full":
        words.append(f"{offer.quality} quality")
    if offer.equivalent:
        words.append(f"equivalent {offer.equivalent}")
    return ", ".join(words)


def _credentials(section: Provider, *, is_supplied: bool) -> str:
    references = ([section.token] if section.token else []) + list(section.credentials.values())
    if not references:
        return "none"
    return f"{'found' if is_supplied else 'present'} ({', '.join(references)})"


def _callbacks(loaded: Loaded, found: Survey, name: str) -> str:
    kind = found.adapters[name].capabilities.callbacks.value
    if kind == "none":
        return "none"
    if not loaded.config.providers[name].callbacks or not loaded.config.server.public_url:
        return "switched off, polled" if loaded.config.server.public_url else "no public_url, polled"
    if kind == "signed" and f"providers.{name}.webhook_secret" not in loaded.secrets:
        return "without webhook_secret: only nudges"
    return "signed" if kind == "signed" else "only nudges"


def _ranking(policy: Policy) -> str:
    rank = policy.rank
    if rank.by == "ordered":
        return " > ".join(rank.order)
    if rank.by == "weighted":
        held = f", sticky by {rank.sticky.replace(':', ' ')}" if rank.sticky else ""
        return ", ".join(f"{share:g} {name}" for name, share in rank.shares.items()) + held
    if rank.by == "latency":
        return f"latency ({rank.quantile})"
    if rank.by == "blend":
        weights = {"cost": rank.weights.cost, "latency": rank.weights.latency, "health": rank.weights.health}
        return " + ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
    return rank.by


def _keeping(policy: Policy) -> str:
    keep = policy.keep
    words = [f"only {', '.join(keep.providers)}"] if keep.providers else []
    words += [f"without {', '.join(keep.without)}"] if keep.without else []
    words += [f"in {', '.join(keep.regions)}"] if keep.regions else []
    words += [f"that can {', '.join(keep.capabilities)}"] if keep.capabilities else []
    words += ["full quality"] if keep.quality == "full" else []
    words += ["equivalent versions"] if keep.version == "equivalent" else []
    words += [f"up to {format_price(keep.max_price)}"] if keep.max_price else []
    words += [f"success from {keep.min_success:.0%}"] if keep.min_success else []
    return "; ".join(words) or "all"


def format_price(text: str) -> str:
    return text if text.startswith("$") else f"${text}"


def _limits(policy: Policy) -> str:
    limits = policy.limits
    words = [_several(limits.attempts, "attempt"), f"{limits.deadline_seconds:g} s"]
    if limits.attempt_seconds:
        words.append(f"{limits.attempt_seconds:g} s each")
    if limits.start_seconds:
        words.append(f"{limits.start_seconds:g} s to start")
    if limits.run_seconds:
        words.append(f"{limits.run_seconds:g} s to run")
    if limits.pay_twice_up_to not in ("", "0"):
        words.append(f"may pay twice up to {format_price(limits.pay_twice_up_to)}")
    return ", ".join(words)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def new_table(*columns: str, caption: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
