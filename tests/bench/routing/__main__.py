"""
The entrance exam of the router: `python -m tests.bench.routing [--count N] [--seed S] [--world NAME]`.

Prints a table of what it does beside what others do, in the same run and with the same luck, and exits 1 where a bar is
missed. All in virtual time, but for the processor time per decision.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.bench.routing import behaviour, theirs
from tests.bench.routing.regret import ORACLE, OURS, SUCCESS, Row, examine, regret
from tests.bench.routing.truth import WORLDS

POLICIES = ("cost", "latency", "goal")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.routing", description="The router's entrance exam.")
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="predictions in each world (10000)")
    parser.add_argument("--seed", type=int, default=3, metavar="S", help="of arrivals and luck (3)")
    parser.add_argument("--world", action="append", metavar="NAME", help="only these worlds")
    asked = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    is_passed = _behaviours(console)
    worlds = [weather for weather in WORLDS if asked.world is None or weather.name in asked.world]
    if not worlds:
        parser.error(f"no such world; there are {', '.join(weather.name for weather in WORLDS)}")
    rows: list[list[Row]] = []
    for weather, policy in itertools.product(worlds, POLICIES):
        rows.append(examine(weather, policy, seed=asked.seed, count=asked.count))
        sys.stderr.write(f"{weather.name}, {policy}: done\n")
    is_passed &= _regrets(console, rows, count=asked.count)
    console.print("every bar is met" if is_passed else "a bar is missed", style="green" if is_passed else "red")
    return 0 if is_passed else 1


def _behaviours(console: Console) -> bool:
    beside = f"LiteLLM {theirs.version()}" if theirs.is_here() else "LiteLLM"
    table = Table("Exam", "Turnout", "", beside)
    marks = [(name, exam(behaviour.turnout)) for name, exam in behaviour.EXAMS.items()]
    for name, mark in marks:
        table.add_row(name, mark.said, "met" if mark.is_passed else "MISSED", _theirs(name))
    console.print(table)
    if not theirs.is_here():
        console.print("LiteLLM is not installed here: `pip install litellm==1.106.2` puts it beside.", style="dim")
    return all(mark.is_passed for _, mark in marks)


def _theirs(name: str) -> str:
    if not theirs.is_here():
        return ""
    exam = behaviour.EXAMS[name]
    if exam is behaviour.dead_host:
        failed, count = theirs.dead_host()
        return f"{failed / count:.1%} of {count} failed"
    return exam(theirs.LatencyBased).said


def _regrets(console: Console, found: Sequence[Sequence[Row]], *, count: int) -> bool:
    """Loss beside the oracle's: dollars for each prediction (cost, goal) or seconds (latency)."""
    names = [row.strategy for row in found[0][2:]]
    table = Table("World", "Policy", "Oracle", "Turnout", "regret", *names, "")
    is_passed = True
    for oracle, ours, *others in found:
        assert (oracle.strategy, ours.strategy) == (ORACLE, OURS)
        is_best = all(ours.loss < other.loss for other in others)
        is_passed &= is_best
        table.add_row(
            ours.world,
            ours.policy,
            _loss(oracle),
            _loss(ours),
            f"{regret(ours, oracle):+.1%}",
            *(f"{_loss(other)} {regret(other, oracle):+.0%}" for other in others),
            "met" if is_best else "MISSED",
        )
    console.print(table)
    console.print(
        f"{count} predictions in each; cost and goal in dollars for a prediction, latency in seconds to its result; "
        f"the goal is {SUCCESS:.0%} in time. Regret is against an oracle that knows the truth, and not the luck."
    )
    return is_passed


def _loss(row: Row) -> str:
    return f"{row.loss:.2f} s" if row.policy == "latency" else f"${row.loss:.4f}"


if __name__ == "__main__":
    sys.exit(main())
