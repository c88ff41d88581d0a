"""
The README's table of providers, made from what the adapters declare and what their recordings are.

`python -m tests.provider_table` prints it. What stands beside recordings and fakes is said in each INDEX.json.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

from gateway.contract.provider import Adapter, Callbacks, Cancel, CostForm
from gateway.testing.recording import read_recording, recordings

FOLDER = Path(__file__).parent / "contract" / "recordings"
HEAD = (
    "| adapter | speaks to | credentials | jobs | cancel | callbacks | cost | recordings"
    " | run against, beside our fakes | facts |\n|---|---|---|---|---|---|---|---|---|---|"
)
_CANCEL = {
    Cancel.NONE: "no",
    Cancel.QUEUED_ONLY: "while queued",
    Cancel.ANY_TIME: "yes",
    Cancel.DISCONNECT: "by hanging up",
}
_COST = {CostForm.NONE: "price list", CostForm.UNITS: "units × price", CostForm.MONEY: "told in money"}


def table() -> str:
    return "\n".join([HEAD, *(row(folder) for folder in _folders())])


def row(folder: Path) -> str:
    """Recordings are counted as recorded / documented / derived."""
    index = json.loads((folder / "INDEX.json").read_text())
    where, _, what = index["adapter"].partition(":")
    adapter: Adapter = getattr(importlib.import_module(where), what)(options=index.get("options", {}))
    able = adapter.capabilities
    kinds = Counter(read_recording(path).kind for path in recordings(folder))
    cells = (
        f"`{folder.name}`",
        index["title"],
        _credentials(adapter),
        _jobs(adapter),
        _CANCEL[able.cancel],
        {Callbacks.NONE: "none", Callbacks.UNSIGNED: "unsigned: a nudge"}.get(able.callbacks, _signed(adapter)),
        _COST[able.cost],
        f"{kinds['recorded']} / {kinds['documented']} / {kinds['derived']}",
        index["beside"],
        index["facts"],
    )
    return f"| {' | '.join(cells)} |"


def _folders() -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.is_dir())


def _credentials(adapter: Adapter) -> str:
    ways = []
    for way in adapter.auth:
        needed = [part for part in way.parts if part not in way.optional]
        ways.append(", ".join(f"`{way.parts[part]}`" if way.parts[part] else part for part in needed))
    return " or ".join(ways) or "none"


def _jobs(adapter: Adapter) -> str:
    able = adapter.capabilities
    words = [word for word in ("sync", "queue", "stream") if word in able.modes]
    return ", ".join(words) + ("; may be repeated" if able.idempotent_submit else "")


def _signed(adapter: Adapter) -> str:
    return f"signed ({adapter.capabilities.signature.value.replace('_', ' ')})"


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
