"""
Power cuts from the command line.

    python -m tests.chaos.power --cuts 1000 --seed 7      exit 1 if one took what was told; figures on the last lines
    python -m tests.chaos.power --cuts 1000 --write       and into tests/chaos/README.md
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.figures import provenance, write_figures
from tests.chaos.power import redis, sqlite

_PREDICTIONS = 60
_LIFE_CUTS = 500  # of one life, then another one is recorded


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power", description="Power cuts.")
    parser.add_argument("--cuts", type=int, default=1_000, metavar="N", help="of the SQLite store (1000)")
    parser.add_argument("--seed", type=int, default=7, metavar="S")
    parser.add_argument("--write", action="store_true", help="write the figures into tests/chaos/README.md")
    asked = parser.parse_args()
    # In memory if it can be: what the real disk does decides nothing here.
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="turnout-power-", dir=place) as name:
        folder = Path(name)
        full = _sqlite(folder / "full", "FULL", asked.cuts, asked.seed)
        normal = _sqlite(folder / "normal", "NORMAL", max(100, asked.cuts // 10), asked.seed)
        lines = [_line("SQLite, FULL (what Turnout sets)", full), _line("SQLite, NORMAL (control)", normal)]
        is_fine = not full.lost and not full.broken and not normal.broken and normal.lost > 0
        if shutil.which("strace") is None:
            sys.stderr.write("Redis is left out: there is no strace on the PATH\n")
        else:
            always = redis.window(redis.live(folder / "always", "always", answers=2_000, pause_seconds=0))
            second = redis.window(redis.live(folder / "second", "everysec", answers=2_000, pause_seconds=0.004))
            lines += [_redis_line("Redis, aof-always", always), _redis_line("Redis, everysec", second)]
            is_fine = is_fine and not always.losing_cuts and second.seconds_longest < 2
    table = [
        f"Seed {asked.seed}, {provenance()}: `python -m tests.chaos.power --cuts {asked.cuts} --seed {asked.seed}`",
        "",
        "| disk | cuts | told before them | taken back | cuts that took | broken files | longest |",
        "|---|---|---|---|---|---|---|",
        *lines,
    ]
    sys.stdout.write("\n".join(table) + "\n")
    if asked.write:
        write_figures("power cuts", table)
    return 0 if is_fine else 1


def _sqlite(folder: Path, synchronous: str, cuts: int, seed: int) -> sqlite.Result:
    verdicts: list[sqlite.Verdict] = []
    seconds = 0.0
    while len(verdicts) < cuts:
        number = len(verdicts)
        life = sqlite.record(
            folder / f"life{number}", predictions=_PREDICTIONS, synchronous=synchronous, seed=seed + number
        )
        most = min(_LIFE_CUTS, cuts - number)
        found = sqlite.judge(life, folder / f"ruins{number}", cuts=most, seed=seed + number)
        verdicts += found.verdicts
        seconds += found.seconds
        sys.stderr.write(f"{synchronous}: {len(verdicts)} cuts in {seconds:.0f} s\n")
    return sqlite.Result(verdicts, seconds)


def _line(disk: str, found: sqlite.Result) -> str:
    return f"| {disk} | {found.cuts} | {found.told} | {found.lost} | {found.losing_cuts} | {len(found.broken)} | |"


def _redis_line(disk: str, found: redis.Window) -> str:
    longest = f"{found.seconds_longest:.2f} s" if found.losing_cuts else ""
    return f"| {disk} | {found.cuts} | {found.told} | at most {found.lost_most} | {found.losing_cuts} | | {longest} |"


if __name__ == "__main__":
    sys.exit(main())
