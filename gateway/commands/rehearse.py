"""`turnout policy rehearse`: what recorded traffic would have come to under other policies, today's beside them."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.commands.check import new_table, printer
from gateway.commands.store import opened
from gateway.commands.supply import load
from gateway.commands.survey import survey
from gateway.config.load import Loaded
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError, refuse
from gateway.contract.wording import nearest
from gateway.rehearsal.forecast import CERTAINTY, Figures, Interval, Outcome, Rehearsed, change, figures, rehearse
from gateway.rehearsal.history import WhatIf
from gateway.rehearsal.trace import Trace, read_trace, shortened, trace_of, write_trace
from policies.document import Policy
from policies.duration import seconds_of
from policies.reading import read

LEDGER = "ledger"
_PRICE = re.compile(r"([^=\s]+)=(\d+(?:\.\d+)?)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="policies to try; none: today's")
    parser.add_argument(
        "--against",
        default=LEDGER,
        metavar="ledger|TRACE",
        help="the configured store, or a file that --save has written (ledger)",
    )
    parser.add_argument("--since", default="24h", metavar="TIME", help="of the recorded traffic the last so much (24h)")
    parser.add_argument("--without", action="append", default=[], metavar="PROVIDER", help="what if it were gone")
    parser.add_argument(
        "--price", action="append", default=[], metavar="PROVIDER=X", help="what if it cost X times that"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the luck that both sides have (0)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the traffic down, without inputs and outputs")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (turnout.toml)")
    parser.add_argument("--json", action="store_true", help="print figures for machines")


def run(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"turnout: {line}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    loaded = load(options.config, environ=os.environ)
    catalog = survey(loaded, clock=SystemClock()).catalog
    what_if = _what_if(options, [offer.provider for model in catalog.models() for offer in model.offers])
    candidate = [policy for file in options.files for policy in read(_text(file), place=str(file))]
    trace = _trace(options, loaded)
    if options.save is not None:
        write_trace(trace, options.save)
    if not trace.asked:
        raise refuse("nothing was recorded in that time", place=options.against, remedy="try a longer --since")
    today = loaded.policies.current().policies
    found = rehearse(
        trace,
        catalog,
        today=today,
        candidate=candidate or today,
        default=loaded.config.policies.default,
        what_if=what_if,
        seed=options.seed,
    )
    if options.json:
        sys.stdout.write(json.dumps(_as_json(found, options.seed), indent=2) + "\n")
    else:
        _show(printer(), trace, found, candidate, what_if, options.seed)
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(f"it cannot be read: {error}", place=str(file), remedy="name a policy file") from None


def _what_if(options: argparse.Namespace, providers: Sequence[str]) -> WhatIf:
    prices: dict[str, float] = {}
    for said in options.price:
        match = _PRICE.fullmatch(said)
        if match is None:
            raise refuse(f'"{said}" is no price', place="--price", remedy="write it as --price fal=2")
        prices[match[1]] = float(match[2])
    for name in (*options.without, *prices):
        if name not in providers:
            near = nearest(name, providers)
            remedy = f'did you mean "{near}"?' if near else f"there are {', '.join(sorted(set(providers)))}"
            raise refuse(
                f'no offer is at "{name}"', place="--without" if name in options.without else "--price", remedy=remedy
            )
    return WhatIf(dead=frozenset(options.without), prices=prices)


def _trace(options: argparse.Namespace, loaded: Loaded) -> Trace:
    try:
        seconds = seconds_of(options.since) if not options.since.endswith("d") else 86_400.0 * float(options.since[:-1])
    except ValueError:
        raise refuse(
            f'"{options.since}" is no length of time', place="--since", remedy="write 24h, 90m or 7d"
        ) from None
    if options.against != LEDGER:
        return shortened(read_trace(Path(options.against)), seconds=seconds)
    return asyncio.run(_recorded(loaded, seconds))


async def _recorded(loaded: Loaded, seconds: float) -> Trace:
    path = loaded.store_path
    if path is not None and not path.exists():
        raise refuse("there is no store yet", place=str(path), remedy="name a trace with --against FILE")
    async with opened(loaded) as store:
        return await trace_of(store, since=SystemClock().now() - timedelta(seconds=seconds))


# -- what is shown ------------------------------------------------------------------------------------------------


def _show(
    console: Console, trace: Trace, found: Rehearsed, candidate: Sequence[Policy], what_if: WhatIf, seed: int
) -> None:
    title = ", ".join(policy.name for policy in candidate) or "supposed"
    supposed = [f"without {name}" for name in sorted(what_if.dead)]
    supposed += [f"{name} at {factor:g} times its price" for name, factor in sorted(what_if.prices.items())]
    if supposed:
        console.print(f"{title}: {', '.join(supposed)}", markup=False, soft_wrap=True)
    columns = [figures(one, seed=seed) for one in (found.recorded, found.today, found.candidate)]
    table = new_table("", "Recorded", "Today", title, "Change")
    differences = change(found.today, found.candidate, seed=seed)
    for label, place, form in (
        ("cost", 0, _dollars),
        ("p50", 1, _seconds),
        ("p95", 2, _seconds),
        ("without a result", 3, _share),
    ):
        cells = [form(_figure(column, place)) for column in columns]
        table.add_row(label, *cells, form(differences[place], signed=True))
    table.add_row("attempts", *(f"{column.attempts}" for column in columns), "")
    for offer in sorted({offer for column in columns for offer in column.shares}):
        table.add_row(offer, *(f"{column.shares.get(offer, 0.0):.1%}" for column in columns), "")
    console.print(table)
    console.print(
        f"{len(trace.asked)} predictions from {trace.begun_at:%Y-%m-%d %H:%M} UTC on. In brackets: where it lies with "
        f"{CERTAINTY:.0%}, by resampling; of a change, pairs are drawn together.",
        markup=False,
        soft_wrap=True,
    )
    for offer, count in found.thin.items():
        known = f"only {count} attempts were recorded at {offer}" if count else f"nothing was recorded of {offer}"
        supposed_as = "what is said of it is a guess" if count else "it is supposed to be as the model's others are"
        console.print(f"note: {known}: {supposed_as}", style="yellow", markup=False, soft_wrap=True)


def _figure(column: Figures, place: int) -> Interval:
    return (column.dollars, column.p50, column.p95, column.misses)[place]


def _dollars(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"${interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _seconds(interval: Interval, *, signed: bool = False) -> str:
    if math.isnan(interval.value):
        return "none"
    sign = "+" if signed else ""
    return f"{interval.value:{sign}.2f} s [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"


def _share(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{interval.value:{sign}.2%} [{interval.low:{sign}.2%}, {interval.high:{sign}.2%}]"


def _as_json(found: Rehearsed, seed: int) -> dict[str, Any]:
    dollars, p50, p95, misses = change(found.today, found.candidate, seed=seed)
    return {
        "recorded": _column(found.recorded, seed),
        "today": _column(found.today, seed),
        "candidate": _column(found.candidate, seed),
        "change": {
            name: _list(one) for name, one in (("dollars", dollars), ("p50", p50), ("p95", p95), ("misses", misses))
        },
        "thin": found.thin,
    }


def _column(outcome: Outcome, seed: int) -> dict[str, Any]:
    made = figures(outcome, seed=seed)
    return {
        "predictions": made.predictions,
        "dollars": _list(made.dollars),
        "p50_seconds": _list(made.p50),
        "p95_seconds": _list(made.p95),
        "without_result": _list(made.misses),
        "attempts": made.attempts,
        "shares": made.shares,
    }


def _list(interval: Interval) -> list[float | None]:
    """Value, low, high; null where there is none."""
    return [None if math.isnan(value) else value for value in interval]
