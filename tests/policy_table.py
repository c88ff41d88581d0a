"""
The README's tables of what may stand in a policy, made of what the Structs say of their keys.

`python -m tests.policy_table` prints them, `--write` puts them into the README.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from policies.document import Part, Policy
from policies.reading import keys_of

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- what may stand in a policy -->\n", "<!-- end -->\n"
_WORDS = {str: "text", float: "number", int: "whole number", bool: "true or false"}


def text() -> str:
    return "\n".join(_table(header, kind) for header, kind in tables())


def tables() -> Iterator[tuple[str, type[Part]]]:
    """Every kind of table that may stand in a policy, by the header of the first of its kind."""
    seen: set[type[Part]] = set()

    def within(header: str, kind: type[Part]) -> Iterator[tuple[str, type[Part]]]:
        if kind not in seen:
            seen.add(kind)
            yield header, kind
            for key, hint in keys_of(kind).items():
                inner, many = _part_of(hint)
                if inner is not None:
                    dotted = f"{header.strip('[]')}.{key}".lstrip(".")
                    yield from within(f"[[{dotted}]]" if many else f"[{dotted}]", inner)

    return within("", Policy)


def _part_of(hint: Any) -> tuple[type[Part] | None, bool]:
    """The table that stands there, and whether it is one of a list."""
    many = typing.get_origin(hint) is tuple
    inner = typing.get_args(hint)[0] if many else hint
    return (inner if isinstance(inner, type) and issubclass(inner, Part) else None), many


def _table(header: str, kind: type[Part]) -> str:
    about = f"**`{header}`** " if header else "**At the top**: "
    lines = [
        f"{about}{(kind.__doc__ or '').strip()}\n",
        "| key | value | default | what it says |",
        "|---|---|---|---|",
    ]
    _, parts = msgspec.json.schema_components((kind,), ref_template="{name}")
    said = parts[kind.__name__]["properties"]
    hints = keys_of(kind)
    for field in msgspec.structs.fields(kind):
        key = field.encode_name
        cells = (f"`{key}`", _value(hints[key]), _default(field), said[key]["description"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _value(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(word)}`" for word in inner)
    if origin is tuple:
        return f"list of {_value(inner[0])}"
    if origin is dict:
        return f"table: name to {_value(inner[1])}"
    return "table" if issubclass(hint, Part) else _WORDS[hint]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be there"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default is msgspec.UNSET or default in ((), {}) or isinstance(default, Part):
        return ""
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    if "--write" in sys.argv:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(before + BEGIN + "\n" + text() + END + rest.partition(END)[2])
    else:
        sys.stdout.write(text())
