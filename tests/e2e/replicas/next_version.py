"""
The version after this one, as it may plausibly come: a copy of our packages with additions of each kind. Runs nothing.

Each edit names the text that it replaces, which stands there once: code that moves away breaks it loudly.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from gateway.store._encoding import CONTRACT_VERSION
from gateway.store.redis import FORMAT, MIN_FORMAT

ROOT = Path(__file__).parents[3]
PACKAGES = ("gateway", "providers", "policies", "local_backend")

MOOD = "bright"
PLEDGED = "pledged"  # what is "reserved" in this version's ledger
FUTURE = "from __future__ import annotations\n"
WARM = "warm"  # jobs whose text begins with it are in a state that this version has no word for


class Edit(NamedTuple):
    path: str
    before: str
    after: str


def add(path: str, after: str, added: str) -> Edit:
    return Edit(path, after, after + added)


VERSION = [
    Edit(
        "gateway/store/_encoding.py",
        f"\nCONTRACT_VERSION = {CONTRACT_VERSION}\n",
        f"\nCONTRACT_VERSION = {CONTRACT_VERSION + 1}\n",
    ),
    Edit("gateway/store/redis.py", f"\nFORMAT = {FORMAT} ", f"\nFORMAT = {FORMAT + 1} "),
]

# A field of the prediction, of an attempt, of a struct in it; all are filled, and shown.
FIELDS = [
    add("gateway/contract/prediction.py", "\n    revision: int = 0\n", "    mood: str | None = None\n"),
    add("gateway/contract/attempt.py", "\n    cost: Cost = UNKNOWN_COST\n", "    weight: float | None = None\n"),
    add("gateway/contract/route.py", "\n    pay_twice_up_to_nanos: int\n", "    note: str | None = None\n"),
    add("gateway/engine/attempt.py", "\n        is_fallback=choice.is_fallback,\n", "        weight=0.5,\n"),
    Edit(
        "gateway/engine/lifecycle.py",
        "plan=prediction.plan or happening.plan)",
        "plan=prediction.plan or (happening.plan and replace(happening.plan, note='later')))",
    ),
    add(
        "gateway/contract/body.py",
        "\n    reasons: tuple[ReasonBody, ...]\n",
        "    later: dict[str, Any] = msgspec.field(default_factory=dict)\n",
    ),
    add(
        "gateway/contract/body.py",
        "\n        reasons=_reasons(prediction),\n",
        "        later={\n"
        '            "mood": prediction.mood,\n'
        '            "weights": [attempt.weight for attempt in prediction.attempts],\n'
        '            "note": prediction.plan.note if prediction.plan else None,\n'
        "        },\n",
    ),
]

# A happening, with a stream event and a delivery of a kind of its own.
HAPPENING = [
    Edit(
        "gateway/contract/fact.py",
        "\nHappening = (\n    Planned\n",
        "\nclass Greeted(msgspec.Struct, kw_only=True, frozen=True, tag=True):\n    mood: str\n\n\n"
        "Happening = (\n    Greeted\n    | Planned\n",
    ),
    add("gateway/engine/lifecycle.py", FUTURE, "from gateway.contract.fact import Greeted, Notify, StreamEvent\n"),
    Edit(
        "gateway/engine/lifecycle.py",
        "\n_REDUCERS: dict[type, Callable[[Prediction, Any, datetime], Change]] = {\n",
        "\ndef _greeted(prediction: Prediction, happening: Greeted, now: datetime) -> Change:\n"
        "    if prediction.is_terminal or prediction.mood is not None:\n"
        "        return prediction, ()\n"
        "    effects = (StreamEvent(event='mood', data=happening.mood), Notify(event='mood'))\n"
        "    return replace(prediction, mood=happening.mood), effects\n\n\n"
        "_REDUCERS: dict[type, Callable[[Prediction, Any, datetime], Change]] = {\n"
        "    Greeted: _greeted,\n",
    ),
    add("gateway/engine/run.py", FUTURE, "from gateway.contract.fact import Greeted\n"),
    Edit(
        "gateway/engine/run.py",
        "\n            await self._resume()\n",
        f"\n            await self._hand.commit(Greeted(mood='{MOOD}'))\n            await self._resume()\n",
    ),
    Edit("gateway/api/stream.py", 'frozenset({"output", ', 'frozenset({"mood", "output", '),
]

# Words and members of the money rows and the events; a key, a field and a script of the store's own.
ROWS = [
    Edit("gateway/engine/settlement.py", "attempt.cost.nanos, attempt.cost.basis)", 'attempt.cost.nanos, "quoted")'),
    Edit("gateway/engine/lifecycle.py", '"reserved"', f'"{PLEDGED}"'),
    Edit("gateway/engine/report.py", '"reserved"', f'"{PLEDGED}"'),
    add("gateway/store/_redis_event.py", "\n    data: str\n    at: int\n", '    mood: str = ""\n'),
    add("gateway/store/_redis_event.py", "\n    basis: str\n    at: int\n", '    currency: str = "usd"\n'),
    add(
        "gateway/store/lua/create.lua", "\nwrite_pointers(17)\n", "redis.call('HSET', PREDICTION, 'made_by', 'later')\n"
    ),
    add(
        "gateway/store/lua/apply.lua",
        "\nlocal origin, channel, holders = take(), take(), take()\n",
        "local by = take()\nif by then redis.call('HSET', PREDICTION, 'changed_by', by) end\n",
    ),
    Edit(
        "gateway/store/_redis_prediction.py",
        "self._keys.changes, self._keys.holders]",
        'self._keys.changes, self._keys.holders, "later"]',
    ),
    add(
        "gateway/store/redis.py",
        "\n            seat = Seat(line, Keys(prefix, int(kept)), clock=clock, origin=origin)\n",
        '            await line.run(Call(load("greet"), [Keys(prefix, 1).first.tag + "later"], ["here"], now))\n',
    ),
]

# A state that this version has no word for.
WORD = [
    add("gateway/contract/attempt.py", '\n    RUNNING = "running"\n', '    WARMING = "warming"\n'),
    add("gateway/contract/attempt.py", "\n    AttemptStatus.RUNNING: 3,\n", "    AttemptStatus.WARMING: 3,\n"),
    Edit(
        "gateway/engine/report.py",
        "\n    moved = replace(\n",
        "\n    text = str(prediction.request.input.get('text'))\n"
        f"    if status is AttemptStatus.RUNNING and text.startswith('{WARM}'):\n"
        "        status = AttemptStatus.WARMING\n"
        "    moved = replace(\n",
    ),
]

ASKS_FOR_MORE = [Edit("gateway/store/redis.py", f"\nMIN_FORMAT = {MIN_FORMAT}\n", f"\nMIN_FORMAT = {FORMAT + 1}\n")]


def make(folder: Path, *, asks_for_more: bool = False) -> Path:
    """The folder, which comes first on the PYTHONPATH of whoever is to be of the next version."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gateway/store/lua/greet.lua").write_text("return redis.call('SET', KEYS[1], take())\n")
    for edit in (*VERSION, *FIELDS, *HAPPENING, *ROWS, *WORD, *(ASKS_FOR_MORE if asks_for_more else ())):
        path = folder / edit.path
        text = path.read_text("utf-8")
        found = text.count(edit.before)
        assert found == 1, f"{edit.path}: {edit.before!r} stands there {found} times; let the next version follow"
        path.write_text(text.replace(edit.before, edit.after), "utf-8")
    return folder
