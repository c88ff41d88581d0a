"""`python -m tests.chaos.points`: a gateway killed at every point, 1st, 2nd and 5th time. Exit 1 on a violation."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.figures import provenance, write_figures
from tests.chaos.points.enumeration import SQLITE, Outcome, enumerate_points
from tests.redis.server import RedisServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.points", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--most", type=int, help="only so many of them, chosen by the seed")
    parser.add_argument(
        "--at", action="append", default=[], metavar="POINT:N", help="only this one, as a failure names it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the figures into tests/chaos/README.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="points-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        outcome = enumerate_points(
            Path(folder),
            stores=stores(options.store, Path(folder), stack),
            seed=options.seed,
            most=options.most,
            only=options.at,
            at_once=options.at_once,
            say=lambda text: print(text, flush=True),
        )
    for target, verdict in outcome.broken.items():
        print(f"\n{target}\n{verdict}\n  again: python -m tests.chaos.points --store {options.store} --at {target}")
    if options.write:
        write_figures(f"points on {options.store}", report(options.store, outcome))
    print(f"crash points on {options.store}: {outcome}")
    return 1 if outcome.broken else 0


def stores(kind: str, folder: Path, stack: ExitStack) -> Callable[[int], str]:
    """What gives each run a store of its own: a file in its folder, or keys of its own on one server."""
    if kind == "sqlite":
        return lambda number: SQLITE
    server = stack.enter_context(RedisServer(folder / "redis"))
    databases = itertools.cycle(range(16))

    def fresh(number: int) -> str:
        database = next(databases)
        with server.client() as client:
            client.execute_command("SELECT", database)
            client.flushdb()
        return server.url.removesuffix("/0") + f"/{database}"

    return fresh


def report(store: str, outcome: Outcome) -> list[str]:
    return [
        "",
        f"`python -m tests.chaos.points --store {store}`, {provenance()}.",
        "",
        f"{outcome.points} points, {outcome.runs} runs, {outcome.crashed} of them reached their point: "
        f"**{len(outcome.broken)} violations**, {outcome.seconds:.0f} s.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
