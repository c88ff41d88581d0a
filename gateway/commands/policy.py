"""`turnout policy`: examines policy files, rehearses them, and prints their JSON Schema. Changes nothing."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.commands import rehearse
from gateway.commands.asked import Remark, offers_had, order_lines, own, remarks
from gateway.commands.check import printer
from gateway.commands.supply import load
from gateway.commands.survey import survey
from gateway.config.load import PRESETS, Loaded
from gateway.config.watch import PolicyFiles
from gateway.contract.clock import SystemClock
from gateway.contract.errors import ConfigurationError
from gateway.contract.toml import Lines, read_toml
from policies.reading import read
from policies.schema import json_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    about = "read policy files and say everything that is wrong, with its line"
    checking = verbs.add_parser("check", help=about, description=f"{about.capitalize()}. 1 if anything is.")
    checking.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="files, or folders of *.toml, as one set; without any, those of the configuration",
    )
    checking.add_argument(
        "--config", type=Path, metavar="FILE", help="note also what is named and not there in this configuration"
    )
    about = "replay recorded traffic under other policies, and say what it would have come to"
    rehearse.add_arguments(verbs.add_parser("rehearse", help=about, description=f"{about.capitalize()}."))
    verbs.add_parser("schema", help="print the JSON Schema of policy files, for editors")


def run(options: argparse.Namespace) -> int:
    return _VERBS[options.verb](options)


def check(options: argparse.Namespace) -> int:
    try:
        needs_loaded = options.config is not None or not options.files
        loaded = load(options.config, environ=os.environ) if needs_loaded else None
        files = _files_of(options.files, loaded)
        had = offers_had(loaded, survey(loaded, clock=SystemClock())) if loaded is not None else None
    except ConfigurationError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"turnout: {line}\n")
        return 1
    policies = files.current().policies
    written = [file for file in files.files() if file.parent != PRESETS]
    console = printer()
    console.print(f"files: {len(written)}, policies: {len(own(policies))}, nothing wrong", markup=False)
    default = loaded.config.policies.default if loaded is not None else ""
    for line in order_lines(policies, default=default):
        console.print(line, markup=False, soft_wrap=True)
    places = _places(written)
    for remark in remarks(policies, had):
        console.print(
            f"note: {places[remark.policy](remark)}: {remark.text}", style="yellow", markup=False, soft_wrap=True
        )
    return 0


def schema(options: argparse.Namespace) -> int:
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {"check": check, "schema": schema, "rehearse": rehearse.run}


def _files_of(paths: Sequence[Path], loaded: Loaded | None) -> PolicyFiles:
    """Read as the gateway reads them, the presets among them. Raises ConfigurationError with a line per fault."""
    if loaded is not None and not paths:
        return loaded.policies
    empty = [path for path in paths if path.is_dir() and not any(path.glob("*.toml"))]
    if empty:
        raise ConfigurationError("\n".join(f"{path}: no *.toml is in it; name where they are" for path in empty))
    return PolicyFiles([PRESETS, *paths], read=read)


def _places(files: Sequence[Path]) -> Mapping[str, Callable[[Remark], str]]:
    """How to name the file and line of a remark, by policy."""
    places: dict[str, Callable[[Remark], str]] = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        tables = read_toml(text, place=str(file)).get("policies")
        for index, policy in enumerate(read(text, place=str(file))):
            within = ("policies", index) if tables is not None else ()
            places[policy.name] = functools.partial(_place, file, Lines(text), within)
    return places


def _place(file: Path, lines: Lines, within: tuple[str | int, ...], remark: Remark) -> str:
    return f"{file}:{lines.of((*within, *remark.path))}"
