"""`turnout prices check`: every offer's price, with what looks wrong about it. Asks no provider."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from gateway.commands.appraisal import Finding, Level, Priced, appraise
from gateway.commands.check import new_table, price_text, printer
from gateway.commands.models import known_models
from gateway.commands.supply import Environment, complete
from gateway.config import load as reading
from gateway.config.load import Loaded
from gateway.config.meaning import LOCAL
from gateway.contract.clock import SystemClock
from gateway.routing.catalog import read_price

MAX_AGE_DAYS = 180
_STYLES = {Level.ERROR: "red", Level.WARNING: "yellow"}


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """One offer, what it costs, and what is to be said of that."""

    priced: Priced
    is_served: bool
    findings: tuple[Finding, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    about = "say of every price whether its unit, its date or the price itself is in doubt"
    check = verbs.add_parser("check", help=about, description=f"{about[0].upper()}{about[1:]}.")
    check.add_argument("--all", action="store_true", help="also offers of the catalogue that lack credentials here")
    check.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    check.add_argument("--json", action="store_true", help="print JSON instead of a table")
    check.add_argument(
        "--max-age",
        type=_days,
        default=MAX_AGE_DAYS,
        metavar="DAYS",
        help=f"a price that is older is stale (default: {MAX_AGE_DAYS})",
    )
    check.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration (default: turnout.toml here, else built-in)"
    )


def run(options: argparse.Namespace) -> int:
    """1 if a unit is wrong, with --strict if anything is."""
    loaded = complete(reading.load(options.config, environ=os.environ), environ=os.environ)
    today = SystemClock().now().date()
    lines = [line for line in examine(loaded, today, options.max_age) if line.is_served or options.all]
    found = [finding for line in lines for finding in line.findings]
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = len(found) - errors
    if options.json:
        told = {"offers": [as_json(line) for line in lines], "errors": errors, "warnings": warnings}
        sys.stdout.write(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        show(lines, errors, warnings, every_offer=options.all)
    return 1 if errors or (options.strict and warnings) else 0


def examine(loaded: Loaded, today: date, max_age_days: int) -> list[Line]:
    """All offers that are known, served or not: those that are not are a measure all the same."""
    offers, served = [], []
    for model in known_models(loaded, Environment(loaded, os.environ)):
        properties = _properties(loaded, model.name)
        for offer in model.offers:
            who = offer.provider or offer.adapter
            priced = Priced(
                model=model.name,
                task=model.task,
                offer=f"{who}: {offer.name}",
                price=read_price(offer.price, offer.price_tiers, place=f"{model.name}, offer of {who}"),
                source=offer.source,
                date=offer.date,
                is_ours=who == LOCAL,
                properties=properties,
            )
            offers.append(priced)
            served.append(not offer.missing and (model.is_servable or not offer.fallback))
    judged = appraise(offers, today=today, max_age_days=max_age_days)
    return [
        Line(priced=priced, is_served=is_served, findings=findings)
        for priced, is_served, findings in zip(offers, served, judged, strict=True)
    ]


def _properties(loaded: Loaded, model: str) -> Mapping[str, Any] | None:
    """What the model's input may say; None where any key may be there."""
    known = loaded.catalogue.get(model)
    schema = loaded.schemas.get(model) or (known.schema if known is not None else {})
    schemas = schema.get("components", {}).get("schemas", {}) if "components" in schema else schema
    properties = schemas.get("Input", {}).get("properties") if isinstance(schemas, dict) else None
    return properties if isinstance(properties, dict) else None


def show(lines: Sequence[Line], errors: int, warnings: int, *, every_offer: bool) -> None:
    console = printer()
    console.print(_table(lines))
    found = [(line, finding) for line in lines for finding in line.findings]
    for line, finding in sorted(found, key=lambda one: one[1].level):
        told = f"{finding.level}[{finding.code}] {line.priced.model}, {line.priced.offer}: {finding.text}"
        console.print(told, style=_STYLES[finding.level], markup=False, soft_wrap=True)
    console.print(f"{_many(len(lines), 'offer')}: {_many(errors, 'error')}, {_many(warnings, 'warning')}", markup=False)
    if not every_offer:
        console.print("--all looks at the catalogue's offers that lack credentials here, too", style="dim")


def _table(lines: Sequence[Line]) -> Table:
    table = new_table("Model", "Offer", "Price", "Source", "Date")
    table.columns[0].no_wrap = True
    before = ""
    for line in lines:
        priced = line.priced
        worst = min((finding.level for finding in line.findings), default=None)
        style = _STYLES[Level.ERROR] if worst is Level.ERROR else None
        first = priced.model if priced.model != before else ""
        table.add_row(first, priced.offer, price_text(priced.price), priced.source, priced.date, style=style)
        before = priced.model
    return table


def as_json(line: Line) -> dict[str, Any]:
    priced = line.priced
    return {
        "model": priced.model,
        "offer": priced.offer,
        "served": line.is_served,
        "price": price_text(priced.price),
        "source": priced.source,
        "date": priced.date,
        "findings": msgspec.to_builtins(line.findings),
    }


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 36_500):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days: write 1 to 36500")
    return int(text)
