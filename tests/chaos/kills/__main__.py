"""`python -m tests.chaos.kills --scenario NAME`: one scenario with its figures and its verdict. Exit 1 if it breaks."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.figures import has_part, provenance, write_figures
from tests.chaos.kills import scenario
from tests.chaos.kills.clock import stepped_clock
from tests.chaos.kills.disk import within_small_disk
from tests.chaos.kills.scene import Options

SCENARIOS: dict[str, scenario.Scenario | None] = {
    "gateway": scenario.gateway,
    "redis": scenario.redis,
    "pause": scenario.pause,
    "clock": stepped_clock,
    "disk": None,  # in a child, which has mounts of its own
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, default="gateway")
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="always")
    parser.add_argument("--gateways", type=int, default=0, help="0: one on SQLite, two on Redis")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--faults", type=float, default=0.05, help="rate of each of F1 to F14")
    parser.add_argument("--folder", type=Path, help="keep what is left there")
    parser.add_argument("--write", action="store_true", help="write the figures into tests/chaos/README.md")
    given = parser.parse_args()
    name = given.scenario if given.scenario == "pause" else f"{given.scenario} on {given.store}"
    if given.scenario == "redis":
        name = f"redis, appendfsync {given.appendfsync}"
    if given.write and not has_part(f"kills: {name}"):
        parser.error(f"tests/chaos/README.md has no part for the figures of {name!r}")
    options = Options(
        predictions=given.predictions,
        seed=given.seed,
        store=given.store,
        appendfsync=given.appendfsync,
        gateways=given.gateways or (2 if given.store == "redis" else 1),
        clients=given.clients,
        faults=given.faults,
    )
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        played = SCENARIOS[given.scenario]
        if played is None:
            holds, said = within_small_disk(given.folder or Path(folder), options)
        else:
            verdict = played(given.folder or Path(folder), options)
            holds, said = verdict.is_good, str(verdict)
    print(f"{name}, seed {given.seed}, {given.predictions} predictions\n{said}")
    if given.write:
        write_figures(f"kills: {name}", report(given, said))
    return 0 if holds else 1


def report(given: argparse.Namespace, said: str) -> list[str]:
    command = f"python -m tests.chaos.kills --scenario {given.scenario} --predictions {given.predictions}"
    command += f" --seed {given.seed} --store {given.store}"
    if given.scenario == "redis":
        command += f" --appendfsync {given.appendfsync}"
    return ["", f"`{command}`, {provenance()}.", "", "```", said, "```", ""]


if __name__ == "__main__":
    sys.exit(main())
