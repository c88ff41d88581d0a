"""The metrics of several workers as one page: each sample says whose it is. Adds nothing up: Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "worker"


def merged(pages: Mapping[str, bytes]) -> bytes:
    """Prometheus text of several, by worker, as one text in which every family stands once."""
    heads: dict[str, list[str]] = {}  # HELP and TYPE, by family
    samples: dict[str, list[str]] = {}
    for worker, page in pages.items():
        family = ""
        for line in page.decode().splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                if not any(known.startswith(line[:7]) for known in head):
                    head.append(line)
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(_labelled(line, worker))
    parts: list[str] = []
    for family, head in heads.items():
        parts += (*head, *samples.get(family, ()))
    return "".join(f"{part}\n" for part in parts).encode()


def _labelled(line: str, worker: str) -> str:
    name, brace, rest = line.partition("{")
    if brace and " " not in name:
        return f'{name}{{{LABEL}="{worker}",{rest}' if not rest.startswith("}") else f'{name}{{{LABEL}="{worker}"{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{{LABEL}="{worker}"}} {value}'
