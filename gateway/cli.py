"""The command line: arguments in, exit code out. What a command does stands in `gateway.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from gateway import __version__

FINE, FAILED, MISUSED = 0, 1, 2

# Where each command lives: nothing is imported for `--help`, and little for what is not asked.
_COMMANDS = {
    "check": "gateway.commands.check",
    "models": "gateway.commands.models",
    "prices": "gateway.commands.prices",
    "plugins": "gateway.commands.plugins",
    "policy": "gateway.commands.policy",
    "explain": "gateway.commands.explain",
    "doctor": "gateway.commands.doctor",
    "grafana": "gateway.commands.grafana",
    "keys": "gateway.commands.keys",
    "serve": "gateway.commands.serve",
    "store": "gateway.commands.store",
    "deliveries": "gateway.commands.deliveries",
    "demo": "gateway.commands.demo",
    "simulator": "gateway.simulator",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. 0: fine; 2: the configuration or the arguments are wrong, one line each; 1: anything else."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(words).parse_args(words)
    if options.command == "version":
        sys.stdout.write(f"turnout {__version__}\n")
        return FINE
    from gateway.contract.errors import ConfigurationError, TurnoutError

    try:
        return int(import_module(_COMMANDS[options.command]).run(options))
    except ConfigurationError as error:
        _complain(str(error))
        return MISUSED
    except TurnoutError as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read us has seen enough; Python would complain once more while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _complain(message: str) -> None:
    for line in message.splitlines() or ["no reason was given"]:
        sys.stderr.write(f"turnout: {line}\n")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="turnout",
        description="One endpoint for model predictions, routed over providers by cost, latency or health.",
        epilog="Exit codes: 0 fine, 2 wrong configuration or arguments, 1 anything else.",
    )
    parser.add_argument("--version", action="version", version=f"turnout {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the gateway")
    _take_config(serve)
    serve.add_argument("--host", help="listen on this address instead of [server] host")
    serve.add_argument("--port", type=_port, metavar="N", help="listen on this port instead of [server] port; 0: any")
    serve.add_argument(
        "--workers", type=_count, metavar="N", help="processes, instead of [server] workers; needs Redis"
    )
    serve.add_argument("--as-worker", action="store_true", help=argparse.SUPPRESS)

    check = commands.add_parser("check", help="read the configuration and say what it would serve, or what is wrong")
    _take_config(check)

    models = commands.add_parser("models", help="list the models that can be served, and what the others lack")
    models.add_argument("text", nargs="?", metavar="TEXT", help="only those that have it in name, task or offers")
    models.add_argument("--all", action="store_true", help="every offer, and where its price comes from")
    models.add_argument("--json", action="store_true", help="print JSON instead of tables")
    _take_config(models)

    prices = commands.add_parser("prices", help="look for prices that cannot be right, are stale, or unknown")
    if words[:1] == ["prices"]:
        import_module(_COMMANDS["prices"]).add_arguments(prices)

    plugins = commands.add_parser("plugins", help="list the adapters that are installed, and what they can do")
    plugins.add_argument("--json", action="store_true", help="print JSON instead of a table")

    explain = commands.add_parser("explain", help="show how a prediction would be routed, and why")
    explain.add_argument("model", metavar="MODEL", help="owner/name, or owner/name:version to pin one")
    explain.add_argument("--input", metavar="JSON", default="{}", help="the prediction's input, or @FILE")
    explain.add_argument("--policy", metavar="NAME", help="use this policy")
    explain.add_argument("--key", metavar="NAME", default="", help="as if made with the key of [keys.NAME]")
    explain.add_argument(
        "--label", metavar="NAME=VALUE", type=_label, action="append", default=[], help="as if it carried this label"
    )
    explain.add_argument("--at", metavar="TIME", type=_time, help="as if made then, such as 2026-03-29T02:30+01:00")
    explain.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _take_config(explain)

    policy = commands.add_parser("policy", help="check policy files by themselves, and describe them to editors")
    if words[:1] == ["policy"]:
        import_module(_COMMANDS["policy"]).add_arguments(policy)

    demo = commands.add_parser("demo", help="watch predictions being routed while providers die; needs nothing")
    demo.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="a picture to upscale; else one is drawn")
    demo.add_argument("--keep", action="store_true", help="leave it running, and print a line to try")

    simulator = commands.add_parser("simulator", help="serve Replicate's API with invented latency, price and faults")
    if words[:1] == ["simulator"]:  # its arguments are its own; nobody else waits for its imports
        import_module(_COMMANDS["simulator"]).add_arguments(simulator)

    keys = commands.add_parser("keys", help="make keys for callers")
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="VERB")
    new = verbs.add_parser("new", help="make a key: it is shown once, the configuration gets its hash")
    new.add_argument("--name", default="app", help="whose key it is: the NAME of [keys.NAME] (default: app)")

    store = commands.add_parser("store", help="move all that the store holds into another one")
    moves = store.add_subparsers(dest="verb", required=True, metavar="VERB")
    for move, about, file in (
        ("export", "write everything into a file; no gateway may run", "a new file; - is standard output"),
        (
            "import",
            "read such a file into the store of the configuration, which must be empty",
            "what was exported; - is standard input",
        ),
    ):
        one = moves.add_parser(move, help=about, description=f"{about[0].upper()}{about[1:]}.")
        one.add_argument("file", type=Path, metavar="FILE", help=file)
        _take_config(one)

    deliveries = commands.add_parser("deliveries", help="what became of webhooks, and send them again")
    if words[:1] == ["deliveries"]:
        import_module(_COMMANDS["deliveries"]).add_arguments(deliveries)

    doctor = commands.add_parser("doctor", help="examine this machine and the configuration")
    _take_config(doctor)

    grafana = commands.add_parser("grafana", help="write dashboards for Grafana and alert rules for Prometheus")
    grafana.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write them to")
    grafana.add_argument(
        "--burn", type=float, default=50.0, metavar="DOLLARS", help="alert when more is spent in an hour (default: 50)"
    )

    commands.add_parser("version", help="print the version")
    return parser


def _take_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration (default: turnout.toml here, else built-in)"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers: write 1 to 1000")
    return int(text)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no label: write NAME=VALUE")
    return name, value


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it as 2026-03-29T02:30+01:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write 0 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
