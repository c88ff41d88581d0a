"""`turnout grafana`: writes the dashboards and alert rules. Talks to neither Grafana nor Prometheus."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.contract.errors import refuse
from gateway.telemetry.grafana import pack


def run(options: argparse.Namespace) -> int:
    folder: Path = options.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pack(dollars_per_hour=options.burn).items():
            (folder / name).write_text(content, encoding="utf-8")
            sys.stdout.write(f"{folder / name}\n")
    except OSError as error:
        problem = f"it cannot be written ({error.strerror})"
        raise refuse(problem, place=str(error.filename or folder), remedy="name another folder with --out") from None
    return 0
