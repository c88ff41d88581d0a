"""The table of rooms: who may import whom, and where neither clock nor chance may be taken but from outside."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("gateway", "providers", "policies", "local_backend")

# What a room may import of ours, beside itself. None is anything.
MAY_IMPORT: dict[str, frozenset[str] | None] = {
    "gateway.__init__": frozenset(),
    "gateway.__main__": frozenset({"gateway.cli"}),
    "gateway.contract": frozenset(),
    "policies": frozenset({"gateway.contract"}),
    "providers": frozenset({"gateway.contract"}),
    "local_backend": frozenset({"gateway.contract"}),
    "gateway.config": frozenset(
        {
            "gateway.contract",
            "policies.document",
            "policies.reading",
            "gateway.store.address",  # what may be written there: nothing is opened
            "gateway.store.durability",
        }
    ),
    "gateway.net": frozenset({"gateway.contract"}),  # its errors only: it raises AddressForbidden
    "gateway.routing": frozenset({"gateway.contract", "policies", "gateway.config.model"}),
    "gateway.store": frozenset({"gateway.contract"}),
    "gateway.artifact": frozenset({"gateway.contract", "gateway.net"}),
    "gateway.telemetry": frozenset({"gateway.contract"}),
    "gateway.edge": frozenset({"gateway.contract"}),
    "gateway.plugins": frozenset({"gateway.contract"}),
    "gateway.dashboard": frozenset({"gateway.contract", "gateway.routing", "gateway.store.protocol"}),
    "gateway.delivery": frozenset({"gateway.contract", "gateway.store.protocol", "gateway.net"}),
    "gateway.engine": frozenset({"gateway.contract", "gateway.routing", "gateway.store.protocol"}),
    "gateway.api": frozenset(
        {
            "gateway.contract",
            "gateway.engine",
            "gateway.store.protocol",
            "gateway.config.model",
            "gateway.dashboard.shape",  # the words of it: who gathers them is handed in
        }
    ),
    "gateway.testing": frozenset({"gateway.contract", "providers"}),
    "gateway.simulator": frozenset({"gateway.contract", "providers"}),
    "gateway.rehearsal": frozenset({"gateway.contract", "gateway.routing", "gateway.store.protocol", "policies"}),
    "gateway.demo": None,
    "gateway.commands": None,
    "gateway.link": None,
    "gateway.commission": frozenset({"gateway.contract"}),
    "gateway.reception": frozenset({"gateway.contract", "gateway.config"}),
    "gateway.drain": frozenset({"gateway.contract", "gateway.engine", "gateway.delivery"}),
    "gateway.workers": None,
    "gateway.assembly": None,
    "gateway.app": None,
    "gateway.cli": None,
}

# Rooms that only these may import; with their own insides, of course.
ONLY_FOR: dict[str, frozenset[str]] = {
    "gateway.app": frozenset({"gateway.cli", "gateway.commands"}),
    "gateway.cli": frozenset({"gateway.__main__"}),
    "gateway.edge": frozenset({"gateway.app", "gateway.workers"}),
    "gateway.assembly": frozenset({"gateway.app"}),
    "gateway.link": frozenset({"gateway.assembly", "gateway.workers"}),
    "gateway.workers": frozenset({"gateway.commands"}),
    "gateway.commands": frozenset({"gateway.cli", "gateway.assembly"}),
    "gateway.demo": frozenset({"gateway.cli", "gateway.commands"}),
    "gateway.testing": frozenset(),
    "gateway.simulator": frozenset({"gateway.cli", "gateway.commands", "gateway.demo"}),
    "gateway.telemetry": frozenset(
        {"gateway.app", "gateway.assembly", "gateway.workers", "gateway.cli", "gateway.commands", "gateway.demo"}
    ),
}

# Third parties of the rooms that are kept bare. A room that is not named here may use what the project depends on.
THIRD_PARTIES: dict[str, frozenset[str]] = {
    "gateway.contract": frozenset({"msgspec"}),
    "policies": frozenset({"msgspec"}),
    "providers": frozenset({"msgspec", "httpx", "httpx_aiohttp", "aiohttp", "yarl", "cryptography"}),
    "gateway.config": frozenset({"msgspec"}),
    "gateway.routing": frozenset({"msgspec", "aiobreaker"}),
    "gateway.engine": frozenset({"msgspec"}),
}
ONLY_IN: dict[str, frozenset[str]] = {
    "aiobreaker": frozenset({"gateway.routing.breaker"}),
    "litestar": frozenset({"gateway.api", "gateway.app"}),
    "opentelemetry": frozenset({"gateway.telemetry"}),
    "onnxruntime": frozenset({"local_backend"}),
    "redis": frozenset({"gateway.store"}),
}
# Of these only what waits for nothing: a blocking client would hold up every prediction of the process.
ONLY_OF: dict[str, frozenset[str]] = {
    "redis": frozenset({"redis.asyncio", "redis.backoff", "redis.crc", "redis.exceptions"}),
}

# Here time, chance and names are handed in: one seed replays them.
TIMELESS = ("gateway.engine", "gateway.routing", "gateway.store", "policies")
NO_MODULES = frozenset({"time", "random", "uuid", "secrets"})
NO_CALLS = frozenset({"now", "utcnow", "today", "fromtimestamp"})
NO_NAMES = frozenset({"SystemClock", "RandomIds"})


class Import(NamedTuple):
    by: str  # gateway.engine.run
    of: str  # gateway.contract.errors.StoreError, or .errors where a module is meant
    line: int


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for top in OURS:
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__" and len(parts) > 2:
                parts = parts[:-1]
            yield ".".join(parts), ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, tree: ast.Module) -> Iterator[Import]:
    """Every import, those inside of functions and of `if TYPE_CHECKING` too. Names are looked through to modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                source = ".".join([*module.split(".")[: -node.level], *filter(None, [source])])
            yield from (Import(module, f"{source}.{alias.name}", node.lineno) for alias in node.names)


def is_inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(module: str, rooms: dict[str, frozenset[str] | None]) -> str | None:
    return max((room for room in rooms if is_inside(module, room)), key=len, default=None)


def trespasses(root: Path) -> list[str]:
    found: list[str] = []
    for module, tree in modules(root):
        room = "gateway.__init__" if module == "gateway" else room_of(module, MAY_IMPORT)
        if room is None:
            found.append(f"{module}: stands in no room of the table")
            continue
        for made in imports(module, tree):
            why = _forbidden(room, made)
            if why is not None:
                found.append(f"{module}:{made.line}: imports {made.of}, {why}")
    return found


def _forbidden(room: str, made: Import) -> str | None:
    top = made.of.split(".", 1)[0]
    if top not in OURS:
        allowed = THIRD_PARTIES.get(room)
        if top in sys.stdlib_module_names:
            return None
        if allowed is not None and top not in allowed:
            return f"which {room} does without"
        users = ONLY_IN.get(top)
        if users is not None and not any(is_inside(made.by, user) for user in users):
            return f"which only {', '.join(sorted(users))} may use"
        parts = ONLY_OF.get(top)
        if parts is not None and not any(is_inside(made.of, part) for part in parts):
            return f"of which only {', '.join(sorted(parts))} may be used"
        return None
    if is_inside(made.of, room) or made.of == "gateway.__version__":
        return None
    for private, guests in ONLY_FOR.items():
        if is_inside(made.of, private) and room not in guests:
            return f"which only {', '.join(sorted(guests)) or 'tests'} may"
    allowed = MAY_IMPORT[room]
    if allowed is None or any(is_inside(made.of, other) for other in allowed):
        return None
    if made.of in OURS and any(is_inside(other, made.of) for other in allowed):
        return None  # the bare package: it holds no code, only the place of its files
    return f"which is not among what {room} may import"


def clocks(root: Path) -> list[str]:
    """Where a timeless room takes the time, draws a number or makes a name by itself."""
    found: list[str] = []
    for module, tree in modules(root):
        if not any(is_inside(module, room) for room in TIMELESS):
            continue
        found += [
            f"{module}:{made.line}: imports {made.of}"
            for made in imports(module, tree)
            if made.of.split(".", 1)[0] in NO_MODULES or made.of.rpartition(".")[2] in NO_NAMES
        ]
        found += [
            f"{module}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in NO_CALLS and _is_type_of_time(node.value)
        ]
    return found


def _is_type_of_time(node: ast.expr) -> bool:
    """`datetime` or `date`, bare or behind the module: not a clock that was handed in."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in ("datetime", "date")


def test_every_room_imports_only_what_the_table_allows() -> None:
    assert trespasses(ROOT) == []


def test_no_timeless_room_takes_the_time_or_draws_by_itself() -> None:
    assert clocks(ROOT) == []


def test_the_table_names_no_room_that_is_gone() -> None:
    known = {module for module, _ in modules(ROOT)}
    optional = {"gateway.testing", "gateway.simulator", "gateway.demo", "gateway.__init__"}
    gone = [room for room in MAY_IMPORT if room not in optional and not any(is_inside(name, room) for name in known)]
    assert gone == []


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("policies/rank.py", "import gateway.engine.run", "policies.rank:1: imports gateway.engine.run"),
        ("policies/rank.py", "from gateway import store", "policies.rank:1: imports gateway.store"),
        ("policies/rank.py", "import httpx", "policies.rank:1: imports httpx"),
        ("providers/acme.py", "def f():\n    from gateway.routing import unit", "providers.acme:2"),
        ("gateway/engine/run.py", "from gateway.store.sqlite import SqliteStore", "gateway.engine.run:1"),
        ("gateway/engine/run.py", "from ..telemetry import metrics", "imports gateway.telemetry.metrics"),
        ("gateway/engine/deep/run.py", "from gateway.app import serve", "gateway.engine.deep.run:1"),
        ("gateway/contract/fact.py", "import httpx", "gateway.contract.fact:1: imports httpx"),
        ("gateway/config/load.py", "from policies.rank import order", "gateway.config.load:1"),
        ("gateway/api/page.py", "from gateway.commands import check", "gateway.api.page:1"),
        ("gateway/routing/planner.py", "import aiobreaker", "gateway.routing.planner:1"),
        ("gateway/store/redis.py", "import redis", "gateway.store.redis:1: imports redis, of which only"),
        ("gateway/store/redis.py", "from redis import Redis", "gateway.store.redis:1: imports redis.Redis"),
        ("gateway/store/redis.py", "from redis.client import Redis", "gateway.store.redis:1"),
        ("gateway/store/redis.py", "def f():\n    from redis.sentinel import Sentinel", "gateway.store.redis:2"),
        ("gateway/api/page.py", "import redis.asyncio", "which only gateway.store may use"),
        ("gateway/app.py", "import gateway.testing", "gateway.app:1"),
        ("gateway/newroom/thing.py", "", "stands in no room"),
        ("local_backend/server.py", "from gateway.plugins import find", "local_backend.server:1"),
    ],
)
def test_a_planted_import_is_found_out(path: str, text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert any(said in line for line in trespasses(tmp_path)), trespasses(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import time",
        "import random",
        "from uuid import uuid4",
        "from datetime import datetime\nat = datetime.now()",
        "import datetime\nat = datetime.datetime.now(datetime.UTC)",
        "from datetime import date\nat = date.today()",
        "from gateway.contract.clock import SystemClock",
    ],
)
@pytest.mark.parametrize("folder", ["gateway/engine", "gateway/store", "policies"])
def test_a_planted_clock_is_found_out(folder: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / folder / "thing.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert clocks(tmp_path) != []


def test_the_redis_client_that_blocks_nobody_may_be_used(tmp_path: Path) -> None:
    file = tmp_path / "gateway" / "store" / "redis.py"
    file.parent.mkdir(parents=True)
    file.write_text("import redis.asyncio\nfrom redis.asyncio import Redis\nfrom redis import exceptions")
    assert trespasses(tmp_path) == []


def test_a_clock_that_was_handed_in_may_be_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway" / "engine" / "thing.py"
    file.parent.mkdir(parents=True)
    file.write_text("def f(clock, at):\n    return clock.now(), at.today")
    assert clocks(tmp_path) == []
