"""`python -m tests.chaos.bars`: every bar measured with real processes, and whether it is met. Exit 1 if one is not."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.bars import failover, herd, loss, restart, stream
from tests.chaos.bars.place import Bar
from tests.chaos.figures import provenance, write_figures

BARS: dict[str, Callable[[Path], Bar]] = {
    "failover": failover.measure,
    "loss": loss.measure,
    "herd": herd.measure,
    "stream": stream.measure,
    "restart-sqlite": restart.measure,
    "restart-redis": lambda folder: restart.measure(folder, store="redis"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.bars", description=__doc__)
    parser.add_argument("--only", choices=BARS, action="append", metavar="NAME", help=f"this alone: {', '.join(BARS)}")
    parser.add_argument("--write", action="store_true", help="write the figures into tests/chaos/README.md")
    options = parser.parse_args()
    found: list[Bar] = []
    for name in options.only or BARS:
        load = os.getloadavg()[0]  # before the bar's own
        with tempfile.TemporaryDirectory(prefix="bars-", ignore_cleanup_errors=True) as folder:
            found.append(BARS[name](Path(folder)))
        print(found[-1], flush=True)
        if options.write:
            command = f"`python -m tests.chaos.bars --only {name}`, {provenance()}, load before it {load:.1f}."
            write_figures(part_of(name), ["", command, "", *found[-1].lines(), ""])
    print(f"{sum(bar.is_met for bar in found)} of {len(found)} bars are met")
    return 0 if all(bar.is_met for bar in found) else 1


def part_of(name: str) -> str:
    """Where a bar's figures stand on the page: each has its own, so that one can be measured anew alone."""
    return f"bars: {name}"


if __name__ == "__main__":
    sys.exit(main())
