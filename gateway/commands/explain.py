"""`turnout explain MODEL`: the plan a prediction would get, and why. Sends nothing anywhere."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from gateway.api.validation import InputSchema
from gateway.commands.check import printer
from gateway.commands.models import remedy_text
from gateway.commands.supply import Environment, load
from gateway.commands.survey import survey
from gateway.config.load import Loaded
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError, NotFound, refuse
from gateway.contract.money import format_dollars
from gateway.contract.observer import Observer
from gateway.contract.route import Choice, Plan
from gateway.contract.wording import nearest, printable
from gateway.routing.breaker import Breakers
from gateway.routing.catalog import Catalog
from gateway.routing.planner import Planner
from gateway.routing.signals import Board

UNMEASURED = (
    "Without measurements: nothing was sent. A running gateway also knows latency, success, load and breakers, "
    "and writes its plan with reasons under `routing` of each prediction."
)


def run(options: argparse.Namespace) -> int:
    loaded = load(options.config, environ=os.environ)
    clock = SystemClock()
    catalog = survey(loaded, clock=clock).catalog
    slug, _, version = options.model.partition(":")
    given = read_input(options.input)
    fitted, complaints = fit(catalog, slug, version, given)
    # Seeded: asked twice, the same answer, though ties are drawn.
    draw = random.Random(0).random  # noqa: S311 - nothing secret hangs on it
    planner = make_planner(loaded, catalog, clock, draw)
    try:
        plan = planner.explain(
            slug,
            version=version or None,
            input=fitted,
            policy=options.policy or policy_of(loaded, options.key),
            key=options.key,
            labels=dict(options.label),
            now=options.at or clock.now(),
        )
    except NotFound as error:
        said = unserved(loaded, slug) if catalog.get(slug) is None else ""
        raise ConfigurationError(said or str(error)) from None
    if options.json:
        sys.stdout.write(json.dumps(as_json(slug, plan, loaded, complaints), indent=2, ensure_ascii=False) + "\n")
    else:
        show(printer(), slug, plan, complaints if given else ())
    return 0


def policy_of(loaded: Loaded, key: str) -> str | None:
    """What the section of a caller's key says of its policy. Raises ConfigurationError."""
    if not key:
        return None
    section = loaded.config.keys.get(key)
    if section is None:
        near = nearest(key, loaded.config.keys)
        remedy = f'did you mean "{near}"?' if near else "name a section [keys.NAME]"
        raise refuse(f'no key is called "{printable(key)}"', place="--key", remedy=remedy)
    return section.policy or None


def read_input(text: str) -> dict[str, Any]:
    """The input written as JSON, or in the file behind `@`. Raises ConfigurationError."""
    place = "--input"
    if text.startswith("@"):
        place = text[1:]
        try:
            text = Path(place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise refuse(f"it cannot be read ({reason})", place=place, remedy="name a file of JSON") from None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise refuse(f"not JSON ({printable(str(error))})", place=place, remedy='write {"name": "value"}') from None
    if not isinstance(value, dict):
        raise refuse("this is no object", place=place, remedy='write {"name": "value"}')
    return value


def unserved(loaded: Loaded, slug: str) -> str:
    """What to do about a model that nobody here serves and the catalogue knows, or nearly knows; empty for others."""
    known = loaded.catalogue.get(slug)
    if known is None:
        near = nearest(slug, [model.name for model in loaded.catalogue.models.values()])
        return f'unknown model "{printable(slug)}"; did you mean "{near}"?' if near else ""
    found = Environment(loaded, os.environ)
    remedies = (found.supply(offer.adapter).missing for offer in known.offers)
    return f"{known.name} is in the catalogue, and nobody here serves it; {remedy_text(filter(None, remedies))}"


def fit(catalog: Catalog, slug: str, version: str, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`given` with the model's defaults, by which prices are reckoned, and why it would be refused."""
    model = catalog.get(slug)
    wanted = version or (model.default_version if model is not None else "")
    schema = next((v.schema for v in model.versions if v.id == wanted), None) if model is not None else None
    if schema is None:
        return given, ()
    fitted, fields = InputSchema(schema).fit(given)
    return fitted, tuple(f"{field.field}: {field.description}" for field in fields)


def make_planner(loaded: Loaded, catalog: Catalog, clock: SystemClock, draw: Any) -> Planner:
    return Planner(
        catalog=lambda: catalog,
        board=Board(clock),
        breakers=Breakers(clock=clock, draw=draw, observer=Observer()),
        policies=lambda: loaded.policies.current().policies,
        default=loaded.config.policies.default,
        draw=draw,
    )


def show(console: Console, slug: str, plan: Plan, complaints: tuple[str, ...]) -> None:
    kept = len(plan.kept)
    console.print(f"{slug}, policy {plan.policy}: {kept} of {len(plan.choices)} candidates kept", markup=False)
    console.print(_table(plan))
    if kept:
        tries = min(plan.max_attempts, kept)
        console.print(f"Tried in this order, {tries} attempt{'s' if tries != 1 else ''} at most{_times(plan)}.")
    else:
        console.print("No candidate is left: such a prediction would fail.", style="bold red")
    console.print(UNMEASURED, style="dim")
    for complaint in complaints:
        console.print(f"note: this input would be refused: {complaint}", style="yellow", markup=False)


def _times(plan: Plan) -> str:
    """The seconds an attempt has, as far as the policy sets them."""
    named = (("to start", plan.start_seconds), ("to run", plan.run_seconds), ("in all", plan.attempt_seconds))
    words = [f"{seconds:g} s {what}" for what, seconds in named if seconds]
    return f"; each has {', '.join(words)}" if words else ""


def as_json(slug: str, plan: Plan, loaded: Loaded, complaints: tuple[str, ...]) -> dict[str, Any]:
    """The plan as `--json` prints it: money in nano-dollars, null where it is unknown."""
    built: dict[str, Any] = msgspec.to_builtins(plan)
    for shown, choice in zip(built["choices"], plan.choices, strict=True):
        shown["reasons"] = [{"code": reason.code, "text": reason.text} for reason in choice.reasons]
    return {
        "model": slug,
        "policies_version": loaded.policies.current().version,
        "input_problems": list(complaints),
        **built,
    }


def _table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "Candidate", "Expected cost", "Expected time", "Why"):
        table.add_column(column, overflow="fold", no_wrap=column == "Candidate")  # its name is there to be copied
    for number, choice in enumerate(plan.choices, 1):
        table.add_row(
            str(number) if choice.kept else "–",
            choice.offer if choice.quality == "full" else f"{choice.offer} ({choice.quality})",
            format_dollars(choice.expected_nanos),
            "no data" if choice.expected_seconds is None else f"{choice.expected_seconds:.3g} s",
            _why(choice),
            style=None if choice.kept else "dim",
        )
    return table


def _why(choice: Choice) -> str:
    reasons = "; ".join(reason.text for reason in choice.reasons)
    return reasons if choice.kept else f"dropped: {reasons}"
