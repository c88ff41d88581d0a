"""`turnout simulator`: reads its arguments, prints where each provider is, and runs until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from gateway.contract.errors import ConfigurationError
from gateway.simulator.behaviour import Behaviour
from gateway.simulator.house import Simulator

_EXAMPLES = {
    "cheap": Behaviour(price="0.0004", median=0.9, error=0.08, seed=1),
    "fast": Behaviour(price="0.0030", median=0.15, error=0.03, seed=2),
    "steady": Behaviour(price="0.0012", median=0.5, seed=3),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    keys = ", ".join(Behaviour.__struct_fields__)
    parser.add_argument("--host", default="127.0.0.1", help="listen on this address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="of the control; the providers' follow it. 0: any")
    parser.add_argument("--seed", type=int, default=0, help="added to every provider's seed")
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME,KEY=VALUE,…",
        help=f"a provider and how it behaves; the keys are {keys} (default: three examples)",
    )


def run(options: argparse.Namespace) -> int:
    """0 when it was interrupted; raises ConfigurationError."""
    providers = dict(_provider(text) for text in options.provider) or dict(_EXAMPLES)
    seeded = {name: one.changed({"seed": one.seed + options.seed}) for name, one in providers.items()}
    uvloop.run(_run(Simulator(seeded, host=options.host, port=options.port)))
    return 0


async def _run(simulator: Simulator) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    async with simulator:
        for name, provider in simulator.providers.items():
            behaviour = provider.behaviour
            sys.stdout.write(
                f"{name:12} {simulator.url(name)}  ${behaviour.price} each, {behaviour.median:g} s, "
                f"{behaviour.error:.0%} fail\n"
            )
        name = next(iter(simulator.providers))
        sys.stdout.write(
            f"control      {simulator.control_url}\n"
            f"Callbacks are signed with {simulator.secret}\n"
            f"To change one: curl -X PATCH {simulator.control_url}/{name} -d '{{\"error\": 0.5}}'; "
            "POST …/down kills it, POST …/up revives it, GET …/books shows what it billed.\n"
        )
        sys.stdout.flush()
        await done.wait()


def _provider(text: str) -> tuple[str, Behaviour]:
    name, _, rest = text.partition(",")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"--provider {text}: it must begin with a name, such as cheap,price=0.0004,median=0.8")
    changes = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigurationError(f"--provider {text}: {item!r} is no KEY=VALUE")
        changes[key.strip()] = value.strip()
    try:
        return name, Behaviour().changed(changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"--provider {text}: {error}") from None
