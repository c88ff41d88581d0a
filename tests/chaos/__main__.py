"""
Simulated universes from the command line.

    python -m tests.chaos --universes 50000 --seed 7      as many, on all cores; exit 1 on any violation
    python -m tests.chaos --seconds 240                   as many as fit into the time
    python -m tests.chaos --universe 7000042              one of them again, told
    python -m tests.chaos --both 200 --seed 7             each on both stores, whose rows must be equal
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.chaos.figures import provenance, write_figures
from tests.chaos.universe.play import Report
from tests.chaos.universe.run import Sum, run
from tests.chaos.universe.tale import tell

_MOST = 10_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Simulated universes.")
    parser.add_argument("--universes", type=int, default=_MOST, metavar="N", help="how many at most")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of the run (7)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="the first of them: a run in parts (0)")
    parser.add_argument("--universe", type=int, metavar="SEED", help="play this one again, and tell what happened")
    parser.add_argument("--both", type=int, metavar="N", help="play N on both stores, and compare what they keep")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="J", help="processes (all cores)")
    parser.add_argument("--seconds", type=float, metavar="T", help="begin no universe after so long")
    parser.add_argument("--write", action="store_true", help="write the figures into tests/chaos/README.md")
    asked = parser.parse_args()
    if asked.universe is not None:
        return _one(asked.universe, asked.store)
    if asked.both is not None:
        return _both(asked.seed, asked.both)
    if asked.universes == _MOST and asked.seconds is None:
        parser.error("say how many (--universes) or how long (--seconds)")
    total = run(
        universes=asked.universes,
        seed=asked.seed,
        first=asked.first,
        store=asked.store,
        jobs=asked.jobs,
        seconds=asked.seconds,
        heard=_complain,
    )
    missed = total.missed()
    for name, count in missed.items():
        sys.stderr.write(f"too rare: {name}: {count}\n")
    if asked.write:
        write_figures(f"universes on {asked.store}", _table(total))
    sys.stdout.write(total.last_line() + "\n")
    return 1 if total.violations or missed else 0


def _one(seed: int, store: str) -> int:
    from tests.chaos.universe.run import play_one

    report = play_one(seed, store)
    _complain(report)
    sys.stdout.write(
        f"universes=1 predictions={report.predictions} violations={len(report.violations)} "
        f"seconds={report.seconds:.2f} store={store} trace={report.trace}\n"
    )
    return 1 if report.violations else 0


def _both(seed: int, universes: int) -> int:
    from tests.chaos.universe.difference import differences

    found = 0
    for said in differences(seed, universes):
        found += 1
        sys.stderr.write(said + "\n")
    sys.stdout.write(f"universes={universes} differences={found} seed={seed}\n")
    return 1 if found else 0


def _complain(report: Report) -> None:
    if report.violations:
        sys.stderr.write("\n".join(tell(report)) + "\n")


def _table(total: Sum) -> list[str]:
    faults = sorted(name for name in total.counts if "->" not in name)
    edges = sorted(name for name in total.counts if "->" in name)
    return [
        "",
        f"`python -m tests.chaos --universes {total.universes} --seed {total.seed} --store {total.store}`,",
        f"{provenance()}.",
        "",
        f"{total.universes:,} universes, {total.predictions:,} predictions, {total.virtual_seconds / 3600:,.0f} hours"
        f" of their time in {total.seconds:,.0f} s of ours: **{total.violations} violations**.",
        "",
        "| fault | times |",
        "|---|--:|",
        *(f"| {name} | {total.counts[name]:,} |" for name in faults),
        "",
        "| edge | times |",
        "|---|--:|",
        *(f"| {name} | {total.counts[name]:,} |" for name in edges),
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
