"""`turnout plugins`: every adapter that is installed, what it can do, and what is wrong with one that cannot be had."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from rich.markup import escape
from rich.table import Table

from gateway.commands.check import new_table, printer
from gateway.contract.errors import ConfigurationError
from gateway.contract.provider import Adapter, Callbacks, Cancel, CostForm, Signature
from gateway.plugins import InstalledAdapter, installed_adapters, load_adapter

_CAPTION = "* its module says where facts are thin. In bold: found in the environment."


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """One installed adapter. Only `wrong` is told of one that cannot be loaded."""

    name: str
    distribution: str
    version: str
    wrong: str = ""
    title: str = ""  # what its module says it speaks
    address: str = ""
    credentials: tuple[tuple[str, ...], ...] = ()  # the environment variables of each way, or the parts' names
    modes: tuple[str, ...] = ()
    cancel: str = ""
    callbacks: str = ""
    signature: str = ""
    cost: str = ""
    inputs: tuple[str, ...] = ()  # the forms in which files are taken
    results: tuple[str, ...] = ()  # the forms in which they come
    result_lifetime_seconds: float | None = None
    min_poll_seconds: float | None = None
    thin: bool = False  # its module says that facts are thin


def run(options: argparse.Namespace) -> int:
    """1 if one of them cannot be loaded, else 0."""
    found = [examine(installed) for installed in installed_adapters()]
    if options.json:
        sys.stdout.write(json.dumps({"plugins": msgspec.to_builtins(found)}, indent=2, ensure_ascii=False) + "\n")
    else:
        console = printer()
        console.print(plugins_table([plugin for plugin in found if not plugin.wrong], os.environ))
        for plugin in found:
            if plugin.wrong:
                console.print(f"{plugin.name}: {plugin.wrong}", style="red", markup=False, soft_wrap=True)
    return 1 if any(plugin.wrong for plugin in found) else 0


def examine(installed: InstalledAdapter) -> Plugin:
    """Loads the adapter, as a configuration without options would. Never raises."""
    bare = Plugin(name=installed.name, distribution=installed.distribution, version=installed.version)
    try:
        adapter = load_adapter(installed.name)
    except ConfigurationError as error:
        return msgspec.structs.replace(bare, wrong=str(error))
    said = inspect.getdoc(sys.modules.get(type(adapter).__module__)) or ""
    can = adapter.capabilities
    return msgspec.structs.replace(
        bare,
        title=said.partition("\n\n")[0].replace("\n", " "),
        address=adapter.base_url,
        credentials=_credentials(adapter),
        modes=tuple(sorted(can.modes)),
        cancel=can.cancel.value,
        callbacks=can.callbacks.value,
        signature=can.signature.value,
        cost=can.cost.value,
        inputs=tuple(sorted(can.input_forms)),
        results=tuple(sorted(can.result_forms)),
        result_lifetime_seconds=can.result_lifetime_seconds,
        min_poll_seconds=can.min_poll_seconds if can.pollable else None,
        thin="Thin:" in said or "Thin throughout" in said,
    )


def _credentials(adapter: Adapter) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(variable or f"credentials.{part}" for part, variable in way.parts.items() if part not in way.optional)
        for way in adapter.auth
    )


def plugins_table(plugins: Iterable[Plugin], environ: Mapping[str, str]) -> Table:
    shown = new_table("Adapter", "Credentials", "What it does", caption=_CAPTION)
    for plugin in plugins:
        package = escape(f"{plugin.distribution} {plugin.version}")
        shown.add_row(
            f"{plugin.name}{'*' if plugin.thin else ''}\n[dim]{package}[/dim]",
            "\nor ".join(_way(way, environ) for way in plugin.credentials) or "none",
            "; ".join(_abilities(plugin)),
            end_section=True,
        )
    shown.columns[1].no_wrap = True  # names of variables are there to be copied
    return shown


def _way(way: Iterable[str], environ: Mapping[str, str]) -> str:
    return (
        "\nand ".join(f"[bold]{escape(name)}[/bold]" if environ.get(name) else escape(name) for name in way) or "none"
    )


def _abilities(plugin: Plugin) -> Iterator[str]:
    yield ", ".join(plugin.modes)
    if plugin.cancel != Cancel.NONE:
        yield f"cancel: {plugin.cancel.replace('_', ' ')}"
    if plugin.callbacks != Callbacks.NONE:
        proof = "" if plugin.signature == Signature.NONE else f" ({plugin.signature.replace('_', ' ')})"
        yield f"callbacks: {plugin.callbacks}{proof}"
    if plugin.cost != CostForm.NONE:
        yield f"cost: {plugin.cost}"
