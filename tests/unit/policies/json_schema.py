"""A judge of values by JSON Schema, for the few words that ours is written in. A word it does not know is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_SAYS_NOTHING = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
}


def complaints(schema: Schema, value: Any, root: Schema, path: str = "$") -> Iterator[str]:
    """What does not fit, with its path."""
    for word, asked in schema.items():
        if word in _SAYS_NOTHING:
            continue
        match word:
            case "$ref":
                yield from complaints(root["$defs"][asked.removeprefix("#/$defs/")], value, root, path)
            case "anyOf":
                found = [list(complaints(one, value, root, path)) for one in asked]
                if all(found):
                    yield from min(found, key=len)
            case "type":
                if not isinstance(value, _TYPES[asked]) or (isinstance(value, bool) and asked != "boolean"):
                    yield f"{path}: no {asked}"
            case "enum":
                if value not in asked:
                    yield f"{path}: none of {asked}"
            case "pattern":
                if isinstance(value, str) and re.search(asked, value) is None:
                    yield f"{path}: not as {asked}"
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                if isinstance(value, (int, float)) and not _is_in_bound(word, value, asked):
                    yield f"{path}: beyond {word} {asked}"
            case "required":
                yield from (f"{path}: lacks {key}" for key in asked if isinstance(value, dict) and key not in value)
            case "properties" | "additionalProperties":
                pass  # together, below
            case "items":
                for index, item in enumerate(value if isinstance(value, list) else ()):
                    yield from complaints(asked, item, root, f"{path}[{index}]")
            case _:
                raise AssertionError(f"{path}: the schema says {word}, and nobody here knows what that is")
    if isinstance(value, dict):
        yield from _of_keys(schema, value, root, path)


def _of_keys(schema: Schema, value: dict[str, Any], root: Schema, path: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, inner in value.items():
        if key in known:
            yield from complaints(known[key], inner, root, f"{path}.{key}")
        elif rest is False:
            yield f"{path}: unknown key {key}"
        elif rest is not True:
            yield from complaints(rest, inner, root, f"{path}.{key}")


def _is_in_bound(word: str, value: float, bound: float) -> bool:
    return {
        "minimum": value >= bound,
        "maximum": value <= bound,
        "exclusiveMinimum": value > bound,
        "exclusiveMaximum": value < bound,
    }[word]
