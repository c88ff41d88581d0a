"""
Where a gateway of ours begins that is to misbehave: patches what the environment asks for, then is `turnout`.

The environment: TIMING (JSON, fields of the engine's `Timing`), POINTS (where to write the points it passes) and
CRASH_AT (`name:n`), PLANTED (bugs). Nothing of it is in the product: all is patched here, where the process
puts itself together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from gateway import cli
from gateway.engine import attempt as attempts
from tests.chaos import planted
from tests.chaos.points import point


def run(folder: str, out: str, err: str, arguments: list[str], environ: dict[str, str]) -> None:
    """In a process that was forked for it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for path, number, flags in (("/dev/null", 0, os.O_RDONLY), (out, 1, os.O_WRONLY), (err, 2, os.O_WRONLY)):
        file = os.open(path, flags | (os.O_APPEND if number == 2 else 0))
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(arguments: list[str]) -> int:
    patch(os.environ)
    return cli.main(arguments)


def patch(environ: Mapping[str, str]) -> None:
    if environ.get("TIMING"):
        _hurry(json.loads(environ["TIMING"]))
    for name in filter(None, environ.get("PLANTED", "").split(",")):
        planted.BUGS[name]()
    if environ.get("POINTS"):
        point.install(environ["POINTS"], crash_at=environ.get("CRASH_AT", ""))


def _hurry(changes: dict[str, Any]) -> None:
    from gateway.assembly import work

    hurried = attempts.Timing(**changes)
    work.Timing = lambda **given: hurried  # type: ignore[misc, assignment]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
